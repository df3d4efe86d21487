"""Composition root: builds everything from the settings, joins it, starts it, and stops it in order.

settings -> rules and keys (before anything listens) -> authorizer -> servers -> ready
SIGTERM  -> not ready -> no new calls, those in flight end -> decision log and spans flushed -> end
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import TYPE_CHECKING

import uvloop

from zta_authz import __version__
from zta_authz.admin.health import HealthServer
from zta_authz.admin.state import KeyKind, KeyStatus, Phase, ServiceState
from zta_authz.authorizer import Authorizer
from zta_authz.errors import Fault, FaultsError, SettingsErrors
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import encode_response
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http import HttpClient
from zta_authz.keys.jwks import JwksLoader
from zta_authz.keys.refresher import JwksRefresher
from zta_authz.keys.schedule import Timing
from zta_authz.policy_sources.files import SnapshotHolder
from zta_authz.policy_sources.pacing import freeze_gc
from zta_authz.policy_sources.reloader import PolicySet
from zta_authz.policy_sources.shadow import SET as SHADOW_SET, ShadowPolicies
from zta_authz.servers.group import ServerGroup
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint
from zta_authz.servers.methods import AUTHORIZATION_SERVICE
from zta_authz.service.loading import load
from zta_authz.service.observability import MetricsSources, audit_status, new_origin, open_observability, open_push
from zta_authz.service.preflight import other_faults
from zta_authz.service.readiness import Outlook, ReadinessWatch
from zta_authz.service.reloading import Reloading
from zta_authz.service.serving import Servers
from zta_authz.service.warmup import warm_up
from zta_authz.settings.live import LiveSettings
from zta_authz.signals import ignore_signals, reload_requested
from zta_authz.telemetry.logs import configure_logging

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from zta_authz.admin.http import Page
    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.keys import KeySlot
    from zta_authz.keys.outcomes import FetchOutcome
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import Clock
    from zta_authz.settings import Settings

_LOG = logging.getLogger(__name__)
KEYS_PATIENCE_SECONDS = 2.0
"""How long the start waits for issuers' keys. Without it, each start would deny good tokens for a moment."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def start_log(settings: Settings) -> None:
    """From now on the service's own log goes to standard error, as the settings say."""
    configure_logging(settings.log.level, for_people=settings.log.format == "text")


def serve(
    settings: Settings,
    config: str | None = None,
    read: Callable[[], Settings] | None = None,
    as_worker: Callable[[Service], None] | None = None,
    replays: Replays | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises `FaultsError` if anything keeps it from starting.

    Settings that can change live are taken with `read` on SIGHUP, and whenever the file `config` changes. One of
    several workers shares its TCP ports with the others, and is handed to `as_worker` once it serves; `replays` is
    where they all remember used DPoP proofs.
    """
    start_log(settings)
    try:
        uvloop.run(_serve(settings, config, read, as_worker, replays))
    finally:
        ignore_signals()


async def _serve(
    settings: Settings,
    config: str | None,
    read: Callable[[], Settings] | None,
    as_worker: Callable[[Service], None] | None,
    replays: Replays | None,
) -> None:
    stopping = asyncio.Event()
    again = asyncio.Event()

    def on_signal() -> None:
        (again if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    service = _build(settings, as_worker is not None, replays)  # takes its time, in which a signal ends us at once
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    loop.add_signal_handler(signal.SIGUSR2, _LOG.info, "SIGUSR2 replaces workers, and this process has none")
    await service.start()
    service.follow(None if read is None else LiveSettings(settings, read, service.take_settings), config)
    if reload_requested():  # what was read since may be older than that
        service.reload()
    if as_worker is not None:
        as_worker(service)
    await stopping.wait()
    await service.stop(again)


def _warm_up() -> None:
    try:
        warm_up()
    except Exception as error:  # noqa: BLE001  the first check is slow then, and right
        _LOG.warning("warming up failed", extra={"error": type(error).__qualname__})


def _build(settings: Settings, shared_ports: bool, replays: Replays | None) -> Service:
    """The service. Raises `FaultsError` with everything that keeps it from starting."""
    try:
        return Service(settings, shared_ports=shared_ports, replays=replays)
    except FaultsError as error:
        raise FaultsError([*error.faults, *other_faults(settings, shared_ports=shared_ports)]) from error


class Service:
    """The whole process. `start` it once, then `stop` it."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock = time.time,
        *,
        shared_ports: bool = False,
        replays: Replays | None = None,
    ) -> None:
        """Load rules and certificates, and build the rest. Raises `FaultsError` with everything that is wrong."""
        self._settings = settings
        self._snapshots = SnapshotHolder()
        self.state = ServiceState(self._snapshots, clock, self._keys_in_force, self._missing, self._denied)
        self._telling: set[asyncio.Task[None]] = set()
        snapshot, authorities, self._trust, self._tls = load(settings, self._readiness_changed, self._key_fetched)
        origin = new_origin()
        self._audit, self._observer = open_observability(settings, origin)
        self.state.audit = lambda: audit_status(self._audit, clock())
        metrics = self._observer.metrics
        self._jwks = self._build_jwks(authorities)
        self._outlook: Outlook = Outlook(settings, self._trust, self._snapshots, self._jwks, clock)
        self._watch = ReadinessWatch(self._outlook.obstacles, self._outlook.blanket_denials, self._readiness_changed)
        self._figures = MetricsSources(settings, metrics, self.state, self._snapshots, self._trust, self._jwks)
        self._push = open_push(settings, origin, self._figures.families)
        if self._push is not None:
            metrics.watch_push(self._push)
        self._shadow = ShadowPolicies(metrics.policies) if settings.shadow_policies else None
        self._reloading = Reloading(settings, self._policy_sets())
        if replays is not None:
            snapshot.verifier.share_replays(replays)
        self.publish(snapshot)
        self._health = Health((AUTHORIZATION_SERVICE,))
        servers = Servers(settings, self._tls, self._health, shared_ports=shared_ports)
        self._servers = ServerGroup(list(servers.build(self._build_servicer(), metrics, self.state)))
        self._probes = self._build_probes()

    def publish(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force."""
        self._trust.bind(snapshot.verifier.bundle_slot)
        if self._tls is not None:
            self._tls.revocations.current = snapshot.verifier.revocations
        self._jwks.bind(snapshot.verifier.key_slots)  # before it is in force: keys that are here hold at once
        at_start = self._snapshots.current() is None
        self._snapshots.publish(snapshot)
        self.state.loaded_at = self.state.now
        self._observer.metrics.policies_taken(self.state.loaded_at)
        self._observer.metrics.policies.in_force(snapshot)
        self._show_faults(())
        freeze_gc(at_start=at_start)

    def reload(self) -> None:
        """Read policies, and settings that can change live, again soon."""
        self._reloading.ask()

    def follow(self, live: LiveSettings | None = None, config: str | None = None) -> None:
        """From now on take over what changes in policies and, with `live`, in the settings file `config`."""
        self._reloading.start(live, config)

    def take_settings(self, settings: Settings) -> None:
        """Put the settings that can change live in force. May be called from any thread."""
        logging.getLogger().setLevel(settings.log.level.upper())
        self._observer.sample(settings.tracing.sample_ratio)
        self._audit.sample(settings.audit.sample_allows)

    def _policy_sets(self) -> Iterator[PolicySet]:
        metrics = self._observer.metrics

        def refuse(faults: Sequence[Fault]) -> None:
            metrics.policies_refused()
            self._show_faults(faults)

        def keep() -> None:
            metrics.policies_kept()
            self._show_faults(())

        current = self._snapshots.current
        yield PolicySet("policies", self._settings.policies, current, self.publish, refuse, keep)
        shadow, paths = self._shadow, self._settings.shadow_policies
        if shadow is not None:
            yield PolicySet(SHADOW_SET, paths, shadow.current, self._take_shadow, shadow.refuse, shadow.keep)

    def _take_shadow(self, snapshot: Snapshot) -> None:
        if self._shadow is not None:
            self._shadow.take(snapshot)
            freeze_gc()

    def _show_faults(self, faults: Sequence[Fault]) -> None:
        self.state.load_errors = tuple(faults)
        self._observer.metrics.policies.faults("policies", len(faults))

    def _build_jwks(self, authorities: ssl.SSLContext | None) -> JwksRefresher:
        """What fetches the keys of issuers; `authorities` None are the system's."""
        wanted = self._settings.jwks
        client = HttpClient(
            AddressRules(wanted.allow_private_addresses, frozenset(wanted.private_hosts)),
            allow_http=wanted.allow_http,
            tls=authorities,
        )
        timing = Timing(
            refresh=wanted.refresh_seconds,
            min_refresh=wanted.min_refresh_seconds,
            max_refresh=wanted.max_refresh_seconds,
            max_stale=wanted.max_stale_seconds,
            unknown_kid=wanted.unknown_kid_seconds,
        )
        loader = JwksLoader(client, strict=self._settings.options().strict)
        return JwksRefresher(loader, timing, self._observer.metrics.keys_fetched)

    def _build_servicer(self) -> CheckServicer:
        authorizer = Authorizer(
            parse_check_request, encode_response, self._snapshots, self._audit, self._observer, self._shadow
        )
        return CheckServicer(authorizer, wants_metadata=self._observer.traces)

    def _build_probes(self) -> HealthServer | None:
        if self._settings.health.listen is None:
            return None
        endpoint = Endpoint.parse(self._settings.health.listen)
        return HealthServer(endpoint.host, endpoint.port, self.state, self._figures.page)

    def page(self, path: bytes) -> Page:
        """What the health listener answers for `path`, whether or not there is one."""
        return HealthServer("", 0, self.state, self._figures.page).page(path)

    def _keys_in_force(self, snapshot: Snapshot) -> list[KeyStatus]:
        verifier, since, expiry = snapshot.verifier, self.state.loaded_at, snapshot.verifier.bundle_expiry
        bundles = [
            KeyStatus(
                KeyKind.TRUST_BUNDLE, each.trust_domain, each.authorities, each.since, expiry.get(each.trust_domain)
            )
            for each in self._trust.status()
        ]
        return bundles + [self._key_set(slot, since) for slot in verifier.key_slots]

    def _key_set(self, slot: KeySlot, loaded_at: float) -> KeyStatus:
        age = self._jwks.age_of(slot)
        since, until = (loaded_at, None) if age is None else (age.since, age.until)
        return KeyStatus(KeyKind.JWKS, slot.issuer, len(slot.current.keys), since, until)

    async def start(self) -> None:
        """Listen everywhere, then say SERVING. Raises `SettingsErrors` with every address that can't be had."""
        faults: list[Fault] = []
        await self._health.set_serving(False)
        await asyncio.gather(self._jwks.start(KEYS_PATIENCE_SECONDS), self._trust.start(KEYS_PATIENCE_SECONDS))
        _warm_up()
        health = ""
        addresses: tuple[Endpoint, ...] = ()
        try:
            health = await self._probes.start() if self._probes is not None else ""
        except SettingsErrors as error:
            faults += error.faults
        try:
            addresses = await self._servers.start()
        except SettingsErrors as error:
            faults += error.faults
        if faults:
            await self._close(grace=0)
            raise SettingsErrors(faults)
        if self._push is not None:
            self._push.start()
        self.state.phase = Phase.SERVING
        await self._health.set_serving(self.state.ready)
        self._watch.start()
        snapshot = self._snapshots.current()
        _LOG.info(
            "serving",
            extra={
                "version": __version__,
                "listen": [str(address) for address in addresses],
                "health": health,
                "table_digest": snapshot.digest if snapshot is not None else "",
                "obstacles": self.state.obstacles(),
            },
        )

    def _missing(self) -> tuple[str, ...]:
        return self._outlook.obstacles()

    def _denied(self) -> tuple[str, ...]:
        return self._outlook.blanket_denials()

    def _readiness_changed(self) -> None:
        """Something that readiness depends on came, changed or went: say so where it is asked for."""
        if self.state.phase is Phase.SERVING:
            ready = self.state.ready
            self._health.note_serving(ready)  # a health check may be read before the task has its turn
            telling = asyncio.get_running_loop().create_task(self._health.set_serving(ready))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    def _key_fetched(self, host: str, outcome: FetchOutcome) -> None:
        self._observer.metrics.keys_fetched(host, outcome)

    async def stop(self, at_once: asyncio.Event | None = None) -> None:
        """Drain for at most `drain_seconds`, or until `at_once` is set; then flush and close everything."""
        self.state.phase = Phase.DRAINING
        _LOG.info("draining", extra={"drain_seconds": self._settings.drain_seconds})
        await self._health.set_serving(False)
        closing = asyncio.create_task(self._close(self._settings.drain_seconds))
        impatient = asyncio.create_task(at_once.wait()) if at_once is not None else None
        await asyncio.wait([task for task in (closing, impatient) if task], return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            self._audit.hurry()
            self._observer.hurry()
            await self._servers.stop(0)
        await closing
        if impatient is not None:
            impatient.cancel()
        _LOG.info("stopped")

    async def _close(self, grace: float) -> None:
        """Stop in order. What calls leave of `grace` seconds is the decision log's, and a little in any case."""
        until = time.monotonic() + grace
        await self._reloading.close()
        await self._watch.close()
        await self._servers.stop(grace)
        await self._jwks.close()
        await self._trust.close()
        await asyncio.to_thread(self._flush, until)
        if self._push is not None:
            await self._push.close()
        if self._probes is not None:
            await self._probes.stop()

    def _flush(self, until: float) -> None:
        self._audit.close(until - time.monotonic())
        self._observer.close()

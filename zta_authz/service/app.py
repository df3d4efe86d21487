"""Composition root: builds all parts of the service from the settings, starts them, and stops them in order.

settings -> policies and keys (before listening) -> authorizer -> servers -> ready
SIGTERM  -> not ready -> no new calls, wait for those in flight -> flush decision log and spans -> exit
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
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.ext_authz.servicer import CheckServicer
from zta_authz.model.facts import FactSlot
from zta_authz.policy_sources.files import SnapshotHolder
from zta_authz.policy_sources.pacing import freeze_gc
from zta_authz.policy_sources.reloader import PolicySet
from zta_authz.policy_sources.shadow import SET as SHADOW_SET, ShadowPolicies
from zta_authz.servers.group import ServerGroup
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint
from zta_authz.servers.methods import AUTHORIZATION_SERVICE
from zta_authz.service.fact_data import FactData
from zta_authz.service.following import Following
from zta_authz.service.loading import build_jwks, load
from zta_authz.service.minting import Minting
from zta_authz.service.observability import MetricsSources, audit_status, new_origin, open_observability, open_push
from zta_authz.service.preflight import other_faults
from zta_authz.service.readiness import Outlook, ReadinessWatch
from zta_authz.service.reloading import Reloading
from zta_authz.service.server_factory import ServerFactory
from zta_authz.service.warmup import warm_up
from zta_authz.settings.live import LiveSettings
from zta_authz.signals import ignore_signals, reload_requested
from zta_authz.telemetry.service_log import configure_logging

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence

    from zta_authz.admin.http_listener import Page
    from zta_authz.authn.dpop import Replays
    from zta_authz.authn.keys import KeySlot
    from zta_authz.keys.outcomes import FetchOutcome
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import Clock
    from zta_authz.settings import Settings

_LOG = logging.getLogger(__name__)
KEYS_WAIT_SECONDS = 2.0
"""How long the start waits for issuers' keys. Without the wait, each start would briefly deny valid tokens."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def start_log(settings: Settings) -> None:
    """Send the service's own log to standard error, as configured."""
    configure_logging(settings.log.level, for_people=settings.log.format == "text")


def serve(
    settings: Settings,
    config: str | None = None,
    read: Callable[[], Settings] | None = None,
    as_worker: Callable[[Service], None] | None = None,
    replays: Replays | None = None,
    relay: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises `FaultsError` with everything that prevents the start.

    On SIGHUP, and when the file `config` changes, `read` loads the settings again and live ones are applied. A
    worker shares its TCP ports with the others and is passed to `as_worker` once it serves; `replays` is the
    workers' common memory of used DPoP proofs, and over `relay` it gets what the supervisor follows.
    """
    start_log(settings)
    try:
        uvloop.run(_serve(settings, config, read, as_worker, replays, relay))
    finally:
        ignore_signals()


async def _serve(
    settings: Settings,
    config: str | None,
    read: Callable[[], Settings] | None,
    as_worker: Callable[[Service], None] | None,
    replays: Replays | None,
    relay: socket.socket | None,
) -> None:
    stopping = asyncio.Event()
    stop_now = asyncio.Event()

    def on_signal() -> None:
        (stop_now if stopping.is_set() else stopping).set()

    loop = asyncio.get_running_loop()
    service = _build(
        settings, as_worker is not None, replays, relay
    )  # slow; a signal ends the process immediately meanwhile
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    loop.add_signal_handler(signal.SIGUSR2, _LOG.info, "SIGUSR2 replaces workers, but this process has none")
    await service.start()
    service.follow(None if read is None else LiveSettings(settings, read, service.apply_settings), config)
    if reload_requested():  # the policies may have been read before the signal
        service.reload()
    if as_worker is not None:
        as_worker(service)
    await stopping.wait()
    await service.stop(stop_now)


def _warm_up() -> None:
    try:
        warm_up()
    except Exception as error:  # noqa: BLE001  the first check is then slow but correct
        _LOG.warning("warming up failed", extra={"error": type(error).__qualname__})


def _build(settings: Settings, shared_ports: bool, replays: Replays | None, relay: socket.socket | None) -> Service:
    """Build the service. Raises `FaultsError` with everything that prevents the start."""
    try:
        return Service(settings, shared_ports=shared_ports, replays=replays, relay=relay)
    except FaultsError as error:
        raise FaultsError([*error.faults, *other_faults(settings, shared_ports=shared_ports)]) from error


class Service:
    """The whole process. Call `start` once, then `stop`."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock = time.time,
        *,
        shared_ports: bool = False,
        replays: Replays | None = None,
        relay: socket.socket | None = None,
    ) -> None:
        """Load policies and certificates, and build the rest. Raises `FaultsError` with all faults."""
        self._settings = settings
        self._snapshots = SnapshotHolder()
        self.state = ServiceState(self._snapshots, clock, self._keys_in_force, self._obstacles, self._blanket_denials)
        self._health_updates: set[asyncio.Task[None]] = set()
        snapshot, authorities, self._trust, self._tls = load(
            settings, settings.options(), self._readiness_changed, self._key_fetched
        )
        origin = new_origin()
        self._audit, self._observer = open_observability(settings, origin)
        self.state.audit = lambda: audit_status(self._audit, clock())
        metrics = self._observer.metrics
        self._jwks = build_jwks(settings, authorities, metrics.keys_fetched)
        self._facts = FactSlot()
        self.state.views = lambda: self._facts.views
        self._following = Following(settings, self._trust, self._facts, self._readiness_changed, clock, relay)
        following = self._following
        self.state.following = following.status
        self._outlook: Outlook = Outlook(
            settings, self._trust, self._snapshots, self._jwks, clock, following.obstacles, following.blanket_denials
        )
        self._watch = ReadinessWatch(self._outlook.obstacles, self._outlook.blanket_denials, self._readiness_changed)
        self._fact_data = FactData(settings, self._facts, metrics.network_data_loaded)
        self._fact_data.load(snapshot.models.inventories)
        self._minting = Minting(settings, clock)
        self._metrics_sources = MetricsSources(
            settings, metrics, self.state, self._snapshots, self._trust, self._jwks, self._fact_data, self._minting
        )
        self._push = open_push(settings, origin, self._metrics_sources.families)
        if self._push is not None:
            metrics.watch_push(self._push)
        self._shadow = ShadowPolicies(metrics.policies) if settings.shadow_policies else None
        self._reloading = Reloading(settings, settings.options(), self._policy_sets())
        if replays is not None:
            snapshot.verifier.share_replays(replays)
        self._following.use_in(snapshot.verifier)
        self.publish(snapshot)
        self._health = Health((AUTHORIZATION_SERVICE,))
        servers = ServerFactory(settings, self._tls, self._health, shared_ports=shared_ports)
        self._servers = ServerGroup(list(servers.build(self._build_servicer(), metrics, self.state)))
        self._health_server = self._build_health_server()

    def publish(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force."""
        self._trust.bind(snapshot.verifier.bundle_slot)
        if self._tls is not None:
            self._tls.revocations.current = snapshot.verifier.revocations
        self._jwks.bind(snapshot.verifier.key_slots)  # first, so that available keys apply at once
        at_start = self._snapshots.current() is None
        self._snapshots.publish(snapshot)
        self._fact_data.follow(snapshot.models.inventories)
        self.state.loaded_at = self.state.now
        self._observer.metrics.policies_taken(self.state.loaded_at)
        self._observer.metrics.policies.in_force(snapshot)
        self._show_faults(())
        freeze_gc(at_start=at_start)

    def reload(self) -> None:
        """Schedule a reload of the policies, of the data that facts come from, and of settings that can change live."""
        self._reloading.ask()
        self._fact_data.ask()
        self._minting.ask()

    def follow(self, live: LiveSettings | None = None, config: str | None = None) -> None:
        """Start watching policies and, if `live` is given, the settings file `config`."""
        self._reloading.start(live, config)
        self._fact_data.start(self._reloading.background)
        self._minting.start()

    def apply_settings(self, settings: Settings) -> None:
        """Apply the settings that can change live. Can be called from any thread."""
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
        yield PolicySet("policies", self._settings.policies, current, self.publish, refuse, keep, self._prepare)
        shadow, paths = self._shadow, self._settings.shadow_policies
        if shadow is not None:
            yield PolicySet(
                SHADOW_SET, paths, shadow.current, self._publish_shadow, shadow.on_refused, shadow.on_unchanged
            )

    async def _prepare(self, snapshot: Snapshot) -> None:
        await self._fact_data.prepare(snapshot.models.inventories)

    def _publish_shadow(self, snapshot: Snapshot) -> None:
        if self._shadow is not None:
            self._shadow.apply(snapshot)
            freeze_gc()

    def _show_faults(self, faults: Sequence[Fault]) -> None:
        self.state.load_errors = tuple(faults)
        self._observer.metrics.policies.faults("policies", len(faults))

    def _build_servicer(self) -> CheckServicer:
        authorizer = Authorizer(
            CheckRequestParser().parse,
            ResponseEncoder().encode,
            self._snapshots,
            self._audit,
            self._observer,
            self._shadow,
            self._facts,
            self._minting.minter,
        )
        return CheckServicer(authorizer, wants_metadata=self._observer.traces)

    def _build_health_server(self) -> HealthServer | None:
        if self._settings.health.listen is None:
            return None
        endpoint = Endpoint.parse(self._settings.health.listen)
        return self._health_pages(endpoint.host, endpoint.port)

    def _health_pages(self, host: str = "", port: int = 0) -> HealthServer:
        return HealthServer(host, port, self.state, self._metrics_sources.page, self._minting.published)

    def page(self, path: bytes) -> Page:
        """Return the health listener's page for `path`, even if the listener is off."""
        return self._health_pages().page(path)

    def _keys_in_force(self, snapshot: Snapshot) -> list[KeyStatus]:
        verifier, since, expiry = snapshot.verifier, self.state.loaded_at, snapshot.verifier.bundle_expiry
        bundles = [
            KeyStatus(KeyKind.TRUST_BUNDLE, domain, bundle.authorities, bundle.since, expiry.get(domain))
            for bundle in self._trust.status()
            for domain in (bundle.trust_domain,)
        ]
        return bundles + [self._key_set(slot, since) for slot in verifier.key_slots]

    def _key_set(self, slot: KeySlot, loaded_at: float) -> KeyStatus:
        age = self._jwks.age_of(slot)
        since, until = (loaded_at, None) if age is None else (age.since, age.until)
        return KeyStatus(KeyKind.JWKS, slot.issuer, len(slot.current.keys), since, until)

    async def start(self) -> None:
        """Listen everywhere, then report SERVING. Raises `SettingsErrors` with every address that can't be bound."""
        faults: list[Fault] = []
        await self._health.set_serving(False)
        await asyncio.gather(self._jwks.start(KEYS_WAIT_SECONDS), self._trust.start(KEYS_WAIT_SECONDS))
        _warm_up()
        health = ""
        addresses: tuple[Endpoint, ...] = ()
        try:
            health = await self._health_server.start() if self._health_server is not None else ""
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
        self._following.start()
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

    def _obstacles(self) -> tuple[str, ...]:
        return self._outlook.obstacles()

    def _blanket_denials(self) -> tuple[str, ...]:
        return self._outlook.blanket_denials()

    def _readiness_changed(self) -> None:
        """Update the reported health when something that readiness depends on changes."""
        if self.state.phase is Phase.SERVING:
            ready = self.state.ready
            self._health.note_serving(ready)  # a health check may come before the task runs
            update = asyncio.get_running_loop().create_task(self._health.set_serving(ready))
            self._health_updates.add(update)
            update.add_done_callback(self._health_updates.discard)

    def _key_fetched(self, host: str, outcome: FetchOutcome) -> None:
        self._observer.metrics.keys_fetched(host, outcome)

    async def stop(self, stop_now: asyncio.Event | None = None) -> None:
        """Drain for at most `drain_seconds`, or until `stop_now` is set; then flush and close everything."""
        self.state.phase = Phase.DRAINING
        _LOG.info("draining", extra={"drain_seconds": self._settings.drain_seconds})
        await self._health.set_serving(False)
        closing = asyncio.create_task(self._close(self._settings.drain_seconds))
        interrupted = asyncio.create_task(stop_now.wait()) if stop_now is not None else None
        await asyncio.wait([task for task in (closing, interrupted) if task], return_when=asyncio.FIRST_COMPLETED)
        if not closing.done():
            self._audit.hurry()
            self._observer.hurry()
            await self._servers.stop(0)
        await closing
        if interrupted is not None:
            interrupted.cancel()
        _LOG.info("stopped")

    async def _close(self, grace: float) -> None:
        """Stop in order. The decision log gets what the calls leave of `grace` seconds, and a minimum in any case."""
        deadline = time.monotonic() + grace
        await self._reloading.close()
        await self._fact_data.close()
        await self._minting.close()
        await self._watch.close()
        await self._following.close()
        await self._servers.stop(grace)
        await self._jwks.close()
        await self._trust.close()
        await asyncio.to_thread(self._flush, deadline)
        if self._push is not None:
            await self._push.close()
        if self._health_server is not None:
            await self._health_server.stop()

    def _flush(self, deadline: float) -> None:
        self._audit.close(deadline - time.monotonic())
        self._observer.close()

"""Detect conditions in which nobody, or a whole class of callers, can be allowed although the process answers.

Obstacles make the service not ready: no proxy can connect, or no peer's certificate can be verified. Blanket denials
are only reported: policies may intend them, and denials must still be recorded.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from zta_authz.authn.certificates import ValidityPeriod
from zta_authz.model.options import CertificateCheck
from zta_authz.model.spiffe import SpiffeId
from zta_authz.servers.own_certificate import CertificateFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.authn.bundles import Bundles, BundleSlot
    from zta_authz.keys.refresher import JwksRefresher
    from zta_authz.keys.trust import TrustRefresher
    from zta_authz.model.options import Workload
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import Clock, SnapshotSource
    from zta_authz.settings import Settings

_LOG = logging.getLogger(__name__)
CHECK_SECONDS: Final = 1.0
MAX_DENIALS: Final = 20
_UNVERIFIED: Final = "no trust bundle has a valid authority, and `peer.verify_certificate` is `required`"
_NO_CALLERS: Final = "no trust bundle has a valid authority for a proxy of `tls.allowed_spiffe_ids`"


class Authorities:
    """The validity of each trust domain's authorities, computed once per set of bundles."""

    def __init__(self, slot: BundleSlot) -> None:
        self._slot = slot
        self._bundles: Bundles | None = None
        self._windows: dict[str, tuple[ValidityPeriod, ...]] = {}

    def valid(self, now: float) -> dict[str, bool]:
        """Return, by trust domain, whether one of its authorities is valid at `now`."""
        bundles = self._slot.current
        if bundles is not self._bundles:
            self._windows = {name: tuple(map(ValidityPeriod.of, bundle.anchors)) for name, bundle in bundles.items()}
            self._bundles = bundles
        return {
            name: any(window.not_before <= now <= window.not_after for window in windows)
            for name, windows in self._windows.items()
        }


class Outlook:
    """Whether anybody can be allowed with the current settings, policies and keys."""

    def __init__(
        self,
        settings: Settings,
        trust: TrustRefresher,
        snapshots: SnapshotSource,
        jwks: JwksRefresher,
        clock: Clock,
        followed: Callable[[], tuple[str, ...]] = tuple,
        stale: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        """`followed` says why the administrator's view can't be used yet, `stale` what is denied if it is too old."""
        tls = settings.tls
        self._trust = trust
        self._snapshots = snapshots
        self._jwks = jwks
        self._clock = clock
        self._followed = followed
        self._stale = stale
        self._authorities = Authorities(trust.store.slot)
        self._files: CertificateFiles | None = None
        self._callers: frozenset[str] = frozenset()
        if tls is not None and tls.source == "workload_api":
            self._callers = frozenset(SpiffeId.parse(text).trust_domain.name for text in tls.allowed_spiffe_ids)
        elif tls is not None:
            self._files = CertificateFiles(tls.cert_file or "", tls.client_ca_file or "")

    def obstacles(self) -> tuple[str, ...]:
        """Return the reasons why nobody can be allowed; () if somebody can."""
        now = self._clock()
        obstacles = list(self._trust.obstacles())
        if self._files is not None:
            obstacles += self._files.problems(now)
        valid = self._authorities.valid(now)
        if self._callers and not any(valid.get(name) for name in self._callers):
            obstacles.append(_NO_CALLERS)
        snapshot = self._snapshots.snapshot
        required = snapshot is not None and snapshot.options.verify_certificate is CertificateCheck.REQUIRED
        if required and not any(valid.values()):
            obstacles.append(_UNVERIFIED)
        return (*obstacles, *self._followed())

    def blanket_denials(self) -> tuple[str, ...]:
        """Return what is denied regardless of the rest of a request, at most `MAX_DENIALS` entries."""
        snapshot = self._snapshots.snapshot
        if snapshot is None:
            return ()
        now, issuers = self._clock(), frozenset(snapshot.verifier.issuers)
        denials = [
            *self._stale(),
            *self._untrusted(snapshot, now),
            *self._without_keys(issuers),
            *_without_rules(snapshot),
        ]
        return tuple(denials[:MAX_DENIALS])

    def _untrusted(self, snapshot: Snapshot, now: float) -> Iterator[str]:
        valid = self._authorities.valid(now)
        for name in sorted(self._callers - valid.keys()):
            yield f"proxies of trust domain `{name}`: it has no trust bundle"
        if snapshot.options.strict and snapshot.options.verify_certificate is not CertificateCheck.NEVER and not valid:
            yield "every peer with a certificate: there is no trust bundle"
        for name, is_valid in sorted(valid.items()):
            if not is_valid:
                yield f"peers of trust domain `{name}`: its bundle has no authority that is valid now"

    def _without_keys(self, issuers: frozenset[str]) -> Iterator[str]:
        if issuers and issuers <= set(self._jwks.missing_issuers()):
            yield "every token: the keys of no issuer are loaded"


def without_allow(snapshot: Snapshot) -> Iterator[Workload]:
    """Yield the workloads for which no policy can allow anything, among those that the settings name."""
    options = snapshot.options
    if options.gateways:
        return  # each request names its own namespace
    for workload in [named.workload for named in options.workloads] or [options.workload]:
        view = snapshot.table.view(workload)
        if not view.allow.rules and (view.has_allow or not options.default_allow):
            yield workload


def _without_rules(snapshot: Snapshot) -> Iterator[str]:
    for workload in without_allow(snapshot):
        yield f"every request for a workload of namespace `{workload.namespace}`: no ALLOW rule selects it"


class ReadinessWatch:
    """Reports changes of obstacles and blanket denials, most of which only time causes."""

    def __init__(
        self,
        obstacles: Callable[[], tuple[str, ...]],
        blanket_denials: Callable[[], tuple[str, ...]],
        on_change: Callable[[], None],
    ) -> None:
        self._obstacles = obstacles
        self._denials = blanket_denials
        self._on_change = on_change
        self._last: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check now and then every `CHECK_SECONDS`, until `close`."""
        self.check()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="readiness")

    def check(self) -> None:
        """Log what changed since the last check, and report changed obstacles."""
        before, now = self._last, (self._obstacles(), self._denials())
        self._last = now
        if now[0] != before[0]:
            self._on_change()
            if now[0]:
                _LOG.warning("not ready", extra={"obstacles": now[0]})
            else:
                _LOG.info("ready again")
        if now[1] != before[1]:
            _LOG.log(logging.WARNING if now[1] else logging.INFO, "blanket denials", extra={"denied": now[1]})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                self.check()
            except Exception:  # noqa: BLE001 - one failed check must not end the task
                _LOG.exception("readiness could not be checked")

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

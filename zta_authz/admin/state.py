"""The state of the process: whether and why it is not ready, what is in force, and which policies were refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from zta_authz import __version__
from zta_authz.model.facts import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.errors import Fault
    from zta_authz.model.facts import FactViews
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import Clock, FollowingStatus, SnapshotSource


class Phase(StrEnum):
    """The phase of the process. Only `serving` is ready."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class KeyKind(StrEnum):
    """The purpose of key material."""

    TRUST_BUNDLE = "trust_bundle"
    JWKS = "jwks"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """Keys in force of a trust domain or an issuer (`name`). Times are seconds since the epoch; None: no expiry."""

    kind: KeyKind
    name: str
    count: int
    since: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """The state of the decision log: why writing fails ("" if it works), and the age of the oldest queued record."""

    failing: str = ""
    queued: int = 0
    oldest_unwritten_seconds: float = 0.0


class ServiceState:
    """The state that `app` writes, and that the health listener and the admin API read."""

    __slots__ = (
        "_clock",
        "_keys",
        "_needs",
        "_snapshots",
        "audit",
        "blanket_denials",
        "following",
        "load_errors",
        "loaded_at",
        "phase",
        "started_at",
        "views",
    )

    def __init__(
        self,
        snapshots: SnapshotSource,
        clock: Clock,
        keys: Callable[[Snapshot], Sequence[KeyStatus]] = lambda _: (),
        needs: Callable[[], Sequence[str]] = lambda: (),
        blanket_denials: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """Create the state of a starting process.

        `keys` returns the keys in force, `needs` what else is missing before calls can be served, in words, and
        `blanket_denials` what is denied whatever else a request carries.
        """
        self._snapshots = snapshots
        self._clock = clock
        self._keys = keys
        self._needs = needs
        self.blanket_denials = blanket_denials
        self.phase = Phase.STARTING
        self.started_at = clock()
        self.loaded_at = 0.0
        self.load_errors: tuple[Fault, ...] = ()
        self.audit: Callable[[], AuditStatus] = AuditStatus
        """The state of the decision log; set when the log is opened."""
        self.views: Callable[[], FactViews] = lambda: NO_FACTS
        """The facts in force; set when their sources are loaded."""
        self.following: Callable[[], FollowingStatus | None] = lambda: None
        """How the administrator is followed, None if none is."""

    @property
    def version(self) -> str:
        """The version of zta-authz."""
        return __version__

    @property
    def snapshot(self) -> Snapshot | None:
        """The rules and keys in force."""
        return self._snapshots.snapshot

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    def keys_in_force(self) -> Sequence[KeyStatus]:
        """Return the keys in force, none before rules are loaded."""
        snapshot = self.snapshot
        return () if snapshot is None else self._keys(snapshot)

    def issuers_without_keys(self) -> tuple[str, ...]:
        """Return the issuers whose tokens are denied because their keys are missing. This does not affect readiness."""
        return tuple(sorted({key.name for key in self.keys_in_force() if key.kind is KeyKind.JWKS and not key.count}))

    def obstacles(self) -> tuple[str, ...]:
        """Return the reasons why the service is not ready; () if it is."""
        reasons = [] if self.phase is Phase.SERVING else [self.phase.value]
        if self.snapshot is None:
            reasons.append("no rules loaded")
        reasons.extend(self._needs())
        return tuple(reasons)

    @property
    def ready(self) -> bool:
        """Whether the service is ready."""
        return not self.obstacles()

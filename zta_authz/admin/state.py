"""What the process knows about itself: ready or not and why, what is in force, what could not be taken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from zta_authz import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.errors import Fault
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import Clock, SnapshotSource


class Phase(StrEnum):
    """Where the process is in its life; only `serving` is ready."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class KeyKind(StrEnum):
    """What a piece of key material is for."""

    TRUST_BUNDLE = "trust_bundle"
    JWKS = "jwks"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """Keys in force: of a trust domain or an issuer (`name`). Times are seconds since the epoch; None: nothing ends."""

    kind: KeyKind
    name: str
    count: int
    since: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class AuditStatus:
    """How the decision log does: why it can't be written ("" while it can), and how long what is queued has waited."""

    failing: str = ""
    queued: int = 0
    oldest_unwritten_seconds: float = 0.0


class ServiceState:
    """Read by the health listener and the admin API, written by `app`."""

    __slots__ = (
        "_clock",
        "_keys",
        "_needs",
        "_snapshots",
        "audit",
        "blanket_denials",
        "load_errors",
        "loaded_at",
        "phase",
        "started_at",
    )

    def __init__(
        self,
        snapshots: SnapshotSource,
        clock: Clock,
        keys: Callable[[Snapshot], Sequence[KeyStatus]] = lambda _: (),
        needs: Callable[[], Sequence[str]] = lambda: (),
        blanket_denials: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        """`keys` gives the keys in force, `needs` what else is missing before calls can be served, in words.

        `blanket_denials` says what is denied whatever else a request carries.
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
        """How the decision log does; set by whoever opens it."""

    @property
    def version(self) -> str:
        """The program's version."""
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
        """The keys in force, none before the first are loaded."""
        snapshot = self.snapshot
        return () if snapshot is None else self._keys(snapshot)

    def issuers_without_keys(self) -> tuple[str, ...]:
        """Issuers whose tokens are denied because their keys are not there. That keeps nobody from being ready."""
        return tuple(sorted({key.name for key in self.keys_in_force() if key.kind is KeyKind.JWKS and not key.count}))

    def obstacles(self) -> tuple[str, ...]:
        """Why the service is not ready; () when it is."""
        found = [] if self.phase is Phase.SERVING else [self.phase.value]
        if self.snapshot is None:
            found.append("no rules loaded")
        found.extend(self._needs())
        return tuple(found)

    @property
    def ready(self) -> bool:
        """True while checks are answered by rules."""
        return not self.obstacles()

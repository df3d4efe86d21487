"""The interfaces that the authorizer needs from outside, as Protocols. `service.app` provides them, tests use fakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from zta_authz.model.facts import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.model.changed_headers import GuardedNames
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.pdp.snapshot import Snapshot

    Metadata = Sequence[tuple[str, str | bytes]]
    Parse = Callable[[bytes], tuple[RequestAttributes, Evidence]]
    """Parse a request and the peer's evidence. Raises `Refused` for malformed bytes."""
    Encode = Callable[[Decision, str, RequestAttributes | None, GuardedNames], bytes]
    """Encode a final decision: (decision, its id, the request if it was parsed, headers that no client may send)."""


class SnapshotSource(Protocol):
    """The source of the rules and keys in force."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in force, None until the first is loaded. Implement it as a plain attribute."""
        ...


class ShadowPolicies(Protocol):
    """A second set of policies, which never decides."""

    def compare(
        self,
        request: RequestAttributes,
        decision: Decision,
        now: float,
        caller: str = "",
        views: FactViews = NO_FACTS,
    ) -> Decision:
        """Return `decision` with the second set's decision, if it differs. Must not raise or block."""
        ...


class AuditSink(Protocol):
    """The decision log. It turns an allow into a denial if it can't keep the record."""

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Record a decision without blocking. False if the record can't be kept, so that an allow becomes a denial.

        `request` is None if its bytes were not parsed; `now` is in seconds since the epoch. `metadata` is that of the
        proxy's call, which contains its trace. `table_digest` identifies the rules in force.
        """
        ...


class Minter(Protocol):
    """Mints tokens for applications."""

    def mint(self, allow: Decision, decision_id: str, now: float) -> Decision:
        """Return `allow` with the token that its response orders, or a denial. Must not raise or block.

        `now` is in seconds since the epoch.
        """
        ...


class Clock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float:
        """The current time, read once for each request."""
        ...


class CheckEvent(msgspec.Struct):
    """One Check call, filled in step by step and then observed. `request` is None if its bytes did not parse.

    `metadata` is that of the gRPC call (names in lower case). Times are nanoseconds since the epoch. `stages` is set
    for calls that the observer times.
    """

    metadata: Sequence[tuple[str, str | bytes]]
    request: RequestAttributes | None
    decision: Decision
    decision_id: str
    started_ns: int
    ended_ns: int = 0
    stages: Stages | None = None


class Observer(Protocol):
    """Telemetry, which receives each call after its response is encoded."""

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """Begin a call: return its `Stages` if it is to be timed, else None. Must not raise or block."""
        ...

    def observe(self, event: CheckEvent) -> None:
        """Record spans and metrics of an answered call. Must not raise or block."""
        ...


@dataclass(frozen=True, slots=True)
class FollowingStatus:
    """How a process follows its administrator. `age` is the time in seconds since it was last heard, None for never.

    `stale`: the view is too old, so grants and signals no longer count. `items` are counted by kind. `streams` were
    begun since the start, `refused_items` could not be read, and `refused_updates` could not be applied.
    """

    address: str
    connected: bool
    age: float | None
    stale: bool
    revision: int
    items: dict[str, int]
    streams: int = 0
    refused_items: int = 0
    refused_updates: int = 0

"""What the authorizer needs from the outside, as Protocols; `app` joins them to the real things, tests to fakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from zta_authz.model.facts import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.guarded_names import GuardedNames
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.pdp.snapshot import Snapshot

    Metadata = Sequence[tuple[str, str | bytes]]
    Parse = Callable[[bytes], tuple[RequestAttributes, Evidence]]
    """Reads a request and what was presented with it. Raises `Refused` for bytes that hold none."""
    Encode = Callable[[Decision, str, RequestAttributes | None, GuardedNames], bytes]
    """Writes a final decision: (decision, its id, the request if it was read, names that no client may send)."""


class SnapshotSource(Protocol):
    """Where the rules and keys in force come from."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in force, None until the first is loaded. A plain attribute: reading it costs nothing."""
        ...


class ShadowPolicies(Protocol):
    """A second set of policies, which never answers."""

    def compare(
        self,
        request: RequestAttributes,
        decision: Decision,
        now: float,
        caller: str = "",
        views: FactViews = NO_FACTS,
    ) -> Decision:
        """`decision`, with what the second set says of it where that is something else. Must not raise or block."""
        ...


class AuditSink(Protocol):
    """Where decisions are recorded. It may turn an allow into a deny by refusing the record."""

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Take the record without blocking. False: it could not be kept, and an allow must not stand.

        `request` is None where its bytes were not read; `now` is in seconds since the epoch. `metadata` is the call's,
        where it is looked at: the trace that the proxy's call is part of is in it. `table_digest` names the rules in
        force.
        """
        ...


class Clock(Protocol):
    """Seconds since the epoch."""

    def __call__(self) -> float:
        """The time now; read once a request."""
        ...


class CheckEvent(msgspec.Struct):
    """One Check call, filled in on its way and then observed. `request` is None where the bytes did not parse.

    `metadata` is the gRPC call's (names in lower case); times are nanoseconds since the epoch. `stages` are there for
    calls that the observer wanted timed.
    """

    metadata: Sequence[tuple[str, str | bytes]]
    request: RequestAttributes | None
    decision: Decision
    decision_id: str
    started_ns: int
    ended_ns: int = 0
    stages: Stages | None = None


class Observer(Protocol):
    """Telemetry. It hears of each answer after it was made, and can change nothing."""

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """A call comes in: where to note its stages if it is to be timed, else None. Must not raise and not block."""
        ...

    def observe(self, event: CheckEvent) -> None:
        """Record spans and metrics of one answered call. Must not raise and must not block."""
        ...

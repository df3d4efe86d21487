"""What an access log says about grants, revocations and signals, for the decisions that name them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.access_events import read_log_line

if TYPE_CHECKING:
    from zta_authz.administrator.access_events import LoggedEvent

BEGINNINGS: Final = frozenset({"access.approved", "access.activated", "access.break_glass"})
ENDS: Final = frozenset({"access.revoked", "access.ended"})
_SIGNALS: Final = frozenset({"signal.accepted", "signal.released"})


def seconds_of(time: str) -> float | None:
    """Parse an RFC 3339 time with an offset into seconds since the epoch; None if it can't be parsed."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()


@dataclass(slots=True)
class GrantHistory:
    """What is known of a grant. Times are seconds since the epoch; `ended` is infinite if nobody ended it early."""

    entitlement: str
    holder: tuple[str, str, str]
    begun: float
    start: float
    until: float
    ended: float = math.inf
    ended_by: str = ""

    @property
    def end(self) -> float:
        """When the grant no longer counts."""
        return min(self.until, self.ended)


@dataclass(slots=True)
class AccessHistory:
    """The events of all replicas' access logs, as far as decisions can name them.

    `first_time` is the time of the oldest event, infinite without one. `complete` is false if every log lacks its
    beginning. `decisions` has the events by the decision that allowed them.
    """

    grants: dict[str, GrantHistory] = field(default_factory=dict)
    revocations: dict[str, float] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)
    first_time: float = math.inf
    complete: bool = False

    def read(self, line: bytes) -> None:
        """Take a line into account. Lines that are no events of the access log are skipped."""
        event = read_log_line(line)
        time = None if event is None else seconds_of(event.time)
        if event is None or time is None:
            return
        self.first_time = min(self.first_time, time)
        if event.actor.decision_id:
            self.decisions[event.actor.decision_id] = event.kind
        if event.type == "grant":
            self._read_grant(event, time)
        elif event.type == "revocation" and event.kind == "revocation.added":
            _keep_earliest(self.revocations, event.id, time)
        elif event.type == "signal" and event.kind in _SIGNALS:
            _keep_earliest(self.signals, event.id, time)

    def _read_grant(self, event: LoggedEvent, time: float) -> None:
        grant = self.grants.get(event.id)
        if event.kind in BEGINNINGS:
            start, until = event.number("start"), event.number("until")
            if start is None or until is None:
                return
            if grant is None:
                holder = (event.text("issuer"), event.text("subject"), event.text("spiffe_id"))
                self.grants[event.id] = GrantHistory(event.text("entitlement"), holder, time, start, until)
            else:
                grant.begun = min(grant.begun, time)
        elif event.kind in ENDS and grant is not None and time < grant.ended:
            grant.ended, grant.ended_by = time, event.kind


def _keep_earliest(times: dict[str, float], name: str, time: float) -> None:
    times[name] = min(time, times.get(name, math.inf))


def holder_text(holder: tuple[str, str, str]) -> str:
    """The holder of a grant as it is shown."""
    issuer, subject, spiffe_id = holder
    return spiffe_id or f"{issuer}/{subject}"

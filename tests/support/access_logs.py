"""Access logs and decision logs that belong together, written by the real code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from tests.support.check_requests import allow, attributes, deny
from zta_authz.administrator.access_events import AccessEvent, Actor, EventKind, EventObject, encode_event, log_line
from zta_authz.administrator.access_items import grant_object
from zta_authz.administrator.store.port import Commit
from zta_authz.administrator.view_items import GrantItem, SubjectItem
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.segments import SegmentedLog
from zta_authz.audit.sinks import capture
from zta_authz.errors import Reason
from zta_authz.model.access import Grant, Subject
from zta_authz.model.decision import AccessBasis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from zta_authz.administrator.access_events import Value

EPOCH = "e" * 32
NOON = 1_700_000_000.0
"""When the grant of these tests begins."""
REQUEST, GRANT = "0123456789abcdef", "fedcba9876543210"
ENTITLEMENT = "default/payments-db"
HOLDER = SubjectItem(spiffe_id="spiffe://cluster.local/ns/default/sa/frontend")
BOSS = Actor("", "https://idp.example", "boss", "b" * 32)


def grant_item(until: float = NOON + 3600, holder: SubjectItem = HOLDER, entitlement: str = ENTITLEMENT) -> GrantItem:
    """The grant `GRANT`."""
    return GrantItem(GRANT, entitlement, holder, NOON, until, REQUEST)


class AccessLogFile:
    """An access log that is being written."""

    def __init__(self, path: Path, max_bytes: int = 1 << 20, first_revision: int = 1) -> None:
        """Begin or continue the log."""
        self.path = path
        self._log = SegmentedLog(str(path), max_bytes=max_bytes, max_files=100, checkpoints=None)
        self._revision = first_revision - 1

    def add(
        self, kind: EventKind, what: EventObject, time: float, *, actor: Actor = BOSS, reason: str = "",
        detail: Mapping[str, Value] | None = None,
    ) -> None:  # fmt: skip
        """Append an event."""
        self._revision += 1
        data = encode_event(AccessEvent(kind, what, actor, reason, detail=detail or {}))
        self._log.write([log_line(data, Commit(self._revision, time), EPOCH)])

    def add_grant(self, kind: EventKind, time: float, item: GrantItem | None = None) -> None:
        """Append an event of a grant."""
        self.add(kind, grant_object(item or grant_item()), time)

    def add_approval(self, time: float = NOON) -> None:
        """Append what the approval of `REQUEST` records."""
        asked = EventObject("request", REQUEST, {"entitlement": ENTITLEMENT, "duration": 3600.0})
        self.add(EventKind.ACCESS_REQUESTED, asked, time - 60, actor=Actor(HOLDER.spiffe_id), reason="INC-4711")
        self.add_grant(EventKind.ACCESS_APPROVED, time)
        self.add_grant(EventKind.ACCESS_ACTIVATED, time)

    def close(self) -> None:
        """End the log."""
        self._log.close()


def use(time: float, number: int = 1, until: float = NOON + 3600, grant_id: str = GRANT) -> bytes:
    """The line of an allow that rests on a grant."""
    grant = Grant(grant_id, ENTITLEMENT, Subject(spiffe_id=HOLDER.spiffe_id), NOON, until)
    return decision_line(AccessBasis(grant), time, number)


def decision_line(access: AccessBasis, time: float, number: int = 1) -> bytes:
    """The line of an allow if it rests on a grant, otherwise of a denial."""
    decision = deny(Reason.TOKEN_REVOKED) if access.grant is None else allow(principal=HOLDER.spiffe_id)
    return encode_line(
        make_record(capture(attributes(), structs.replace(decision, access=access), f"{number:032x}", time))
    )


def write_decisions(path: Path, *lines: bytes) -> None:
    """Write a decision log."""
    log = SegmentedLog(str(path), max_bytes=1 << 20, max_files=100, checkpoints=None)
    log.write(list(lines))
    log.close()

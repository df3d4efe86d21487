"""Requests and grants as the store keeps them, and the commit that changes them or revocations.

Keys: `request/ID`, `grant/ID`, `open/DIGEST` (what one person has open of one entitlement) and `due/TIME/KIND/ID` (when
something has to happen by itself). A published grant is at `view/grant/ID` too. Times are seconds since the epoch,
durations seconds.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import structs

from zta_authz.access.lifecycle import OperationRefused, Refusal, RequestState
from zta_authz.administrator.access_events import AccessEvent, EventObject, encode_event
from zta_authz.administrator.store.port import ABSENT, Change, Conflict
from zta_authz.administrator.view_items import GrantItem, SubjectItem, encode_item

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from zta_authz.administrator.access_events import Value
    from zta_authz.administrator.store.port import Committed, Store, Versioned
    from zta_authz.model.access import Subject

REQUEST: Final = "request/"
GRANT: Final = "grant/"
DUE: Final = "due/"
MAX_REASON: Final = 500
_OPEN: Final = "open/"
_ASKED: Final = "asked/"
_MAX_ATTEMPTS: Final = 10
_Result = TypeVar("_Result")
_ID: Final = re.compile(r"[0-9a-f]{16}")


class ApprovalItem(msgspec.Struct, frozen=True):
    """One approval: who gave it, for which groups of approvers, and when."""

    subjects: tuple[SubjectItem, ...]
    groups: tuple[int, ...]
    at: float
    comment: str = ""


class RequestItem(msgspec.Struct, frozen=True):
    """A request. `needed` has the approvals that each group must give. `due` is when the next step comes by itself.

    `definition` is the digest of the entitlement as it was when the request was made.
    """

    id: str
    entitlement: str
    subjects: tuple[SubjectItem, ...]
    duration: float
    reason: str
    state: RequestState
    requested_at: float
    pending_until: float
    scope_sha256: str
    needed: tuple[int, ...] = ()
    start: float = 0.0
    approvals: tuple[ApprovalItem, ...] = ()
    grant_id: str = ""
    due: float = 0.0
    definition: str = ""


class GrantRecord(msgspec.Struct, frozen=True):
    """A grant, all subjects of its holder, and when its next step comes by itself (0: never)."""

    grant: GrantItem
    holder: tuple[SubjectItem, ...]
    due: float = 0.0


class OpenItem(msgspec.Struct, frozen=True):
    """What one person has open of one entitlement: when each request and grant ends, and the grant to be reviewed."""

    ends: dict[str, float] = {}
    review: str = ""


@dataclass(slots=True)
class Draft:
    """A commit that is being made from what was read."""

    expect: dict[str, int] = field(default_factory=dict)
    put: dict[str, bytes] = field(default_factory=dict)
    delete: list[str] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)

    async def read(self, store: Store, key: str) -> Versioned | None:
        """Read an item, and expect its version when the draft is committed."""
        entry = await store.get(key)
        self.expect[key] = ABSENT if entry is None else entry.version
        return entry

    def change(self) -> Change:
        """The finished change."""
        return Change(self.expect, self.put, self.delete, self.events)

    def add_event(self, event: AccessEvent) -> None:
        """Record `event` with the change."""
        self.events.append(encode_event(event))

    def put_request(self, request: RequestItem, before: RequestItem | None) -> None:
        """Put a request, and when its next step is due."""
        self.put[REQUEST + request.id] = msgspec.json.encode(request)
        self._move_due("request", request.id, 0.0 if before is None else before.due, request.due)

    def put_grant(self, record: GrantRecord, before: GrantRecord | None, *, published: bool = True) -> None:
        """Put a grant, publish it or end its publication, and put when its next step is due."""
        grant = record.grant
        self.put[GRANT + grant.id] = msgspec.json.encode(record)
        if published:
            self.put[grant.key] = encode_item(grant)
        else:
            self.delete.append(grant.key)
        self._move_due("grant", grant.id, 0.0 if before is None else before.due, record.due)

    async def read_open(self, store: Store, entitlement: str, holder: SubjectItem) -> tuple[str, OpenItem]:
        """The key and the content of what `holder` has open of an entitlement."""
        key = open_key(entitlement, holder)
        entry = await self.read(store, key)
        return key, OpenItem() if entry is None else msgspec.json.decode(entry.value, type=OpenItem)

    async def close_open(
        self, store: Store, entitlement: str, holder: SubjectItem, item_id: str, *, review: bool = False
    ) -> None:
        """Remove a request or grant from what `holder` has open; with `review`, only the review of the grant."""
        key, opened = await self.read_open(store, entitlement, holder)
        if review:
            left = structs.replace(opened, review="" if opened.review == item_id else opened.review)
        else:
            left = structs.replace(opened, ends={name: end for name, end in opened.ends.items() if name != item_id})
        if left.ends or left.review:
            self.put[key] = msgspec.json.encode(left)
        elif self.expect[key] != ABSENT:
            self.delete.append(key)

    def _move_due(self, kind: str, item_id: str, before: float, after: float) -> None:
        old, new = (due_key(at, kind, item_id) if at else "" for at in (before, after))
        if old and old != new:
            self.delete.append(old)
        if new:
            self.put[new] = b"{}"


async def commit_draft(
    store: Store,
    attempt: Callable[[Draft, float], Awaitable[_Result]],
    settle: Callable[[Committed], Awaitable[None]],
) -> _Result:
    """Commit what `attempt` drafts at the store's time, again if another change came first; then settle."""
    for _ in range(_MAX_ATTEMPTS):
        draft = Draft()
        result = await attempt(draft, (await store.head()).time)
        try:
            committed = await store.commit(draft.change())
        except Conflict:
            continue
        await settle(committed)
        return result
    raise OperationRefused(Refusal.UNAVAILABLE, "other changes came first each time: try again")


async def at_once(_: Committed) -> None:
    """Settle a commit without waiting for anything."""


def check_text(text: str) -> None:
    """Refuse a reason or comment that could deceive those who read it in a terminal, a page or a log.

    Raises `OperationRefused`.
    """
    if len(text) > MAX_REASON or not text.isprintable():
        message = f"a text has at most {MAX_REASON} characters, all of them printable, and no line breaks"
        raise OperationRefused(Refusal.INVALID, message)


def check_reason(reason: str) -> None:
    """Require a reason of a length that the log keeps. Raises `OperationRefused`."""
    check_text(reason)
    if not reason.strip():
        raise OperationRefused(Refusal.REASON_REQUIRED, "a reason is required")


def due_key(at: float, kind: str, item_id: str) -> str:
    """The key of a due time, in whole milliseconds and never too early; keys are in order of time."""
    return f"{DUE}{math.ceil(at * 1000):015d}/{kind}/{item_id}"


def parse_due_key(key: str) -> tuple[float, str, str]:
    """Time, kind and ID of a key from `due_key`."""
    _, at, kind, item_id = key.split("/")
    return int(at) / 1000, kind, item_id


def is_id(text: str) -> bool:
    """Whether `text` can be the ID of a request or grant."""
    return _ID.fullmatch(text) is not None


def subject_items(subjects: Iterable[Subject]) -> tuple[SubjectItem, ...]:
    """The subjects of a caller as items."""
    return tuple(SubjectItem(subject.issuer, subject.subject, subject.spiffe_id) for subject in subjects)


def open_key(entitlement: str, subject: SubjectItem) -> str:
    """The key of what `subject` has open. A digest, because subjects may have any characters and any length."""
    return _OPEN + _digest(entitlement, subject)


def asked_key(subject: SubjectItem) -> str:
    """The name of the reservations that count how often `subject` has asked."""
    return _ASKED + _digest("", subject)


def _digest(entitlement: str, subject: SubjectItem) -> str:
    parts = (entitlement, subject.issuer, subject.subject, subject.spiffe_id)
    encoded = b"".join(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass") for part in parts)
    return hashlib.sha256(encoded).hexdigest()


def is_same_person(one: Sequence[SubjectItem], other: Sequence[SubjectItem]) -> bool:
    """Whether two callers, by all their names (the token's first), may be one person.

    Names are issuer and subject, or a SPIFFE ID; never a display name. If both have a token, only these are compared:
    people may share a workload, such as a web page, through which they come.
    """
    if one[0].issuer and other[0].issuer:
        return one[0] == other[0]
    return not set(one).isdisjoint(other)


def request_object(request: RequestItem) -> EventObject:
    """A request as the object of an event."""
    return EventObject("request", request.id, {"entitlement": request.entitlement, "duration": request.duration})


def grant_object(grant: GrantItem) -> EventObject:
    """A grant as the object of an event."""
    subject = grant.subject
    fields: dict[str, Value] = {
        "entitlement": grant.entitlement,
        "request": grant.request_id,
        "start": grant.start,
        "until": grant.until,
    }
    holder: dict[str, Value] = {
        "issuer": subject.issuer,
        "subject": subject.subject,
        "spiffe_id": subject.spiffe_id,
    }
    return EventObject("grant", grant.id, fields | holder)

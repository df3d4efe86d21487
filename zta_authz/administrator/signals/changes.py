"""Turn the plan of one security event into a change of the store: items of the view, and the events that record them.

An item has the same ID for the same subject of the same source. So a repeated event replaces an item, and a source
keeps at most one revocation for a subject. A change is never undone by an older event: of two revocations the later
times count, of two signals the one that was observed later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.administrator.access_events import AccessEvent, Actor, EventKind, EventObject, encode_event
from zta_authz.administrator.revocation_items import digest, end_key, merge_revocations, revocation_event
from zta_authz.administrator.store.port import ABSENT, Change
from zta_authz.administrator.view_items import RevocationItem, SignalItem, SourceItem, decode_item, encode_item
from zta_authz.model.signal_documents import EventKind as SecurityEventKind, SignalAction
from zta_authz.model.signals import SignalKind
from zta_authz.security_events.actions import FOR_EVER, Outcome, SetSignal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Store, Versioned
    from zta_authz.model.signal_documents import SignalSource
    from zta_authz.security_events.actions import Change as EventChange, Plan
    from zta_authz.security_events.set_verifier import SecurityEvent

HELD: Final = "held-signal/"
"""The prefix of the items of held events."""
_KINDS: Final[Mapping[Outcome, EventKind]] = {
    Outcome.ACCEPTED: EventKind.SIGNAL_ACCEPTED,
    Outcome.WITHOUT_EFFECT: EventKind.SIGNAL_ACCEPTED,
    Outcome.STREAM: EventKind.SIGNAL_ACCEPTED,
    Outcome.DISCARDED: EventKind.SIGNAL_DISCARDED,
    Outcome.HELD: EventKind.SIGNAL_HELD,
}
_SIGNAL_KINDS: Final[Mapping[SecurityEventKind, SignalKind]] = {
    SecurityEventKind.RISK_LEVEL_CHANGE: SignalKind.RISK,
    SecurityEventKind.ASSURANCE_LEVEL_CHANGE: SignalKind.ASSURANCE,
    SecurityEventKind.DEVICE_COMPLIANCE_CHANGE: SignalKind.COMPLIANCE,
}
_SIGNALLED: Final = (SignalAction.TRUST, SignalAction.DEVICE)


class HeldItem(msgspec.Struct, frozen=True):
    """A held event: what its release puts in force. `held_at` is in seconds since the epoch."""

    id: str
    source: str
    issuer: str
    jti: str
    event_type: str
    why: str
    happened_at: float
    held_at: float
    changes: tuple[RevocationItem | SignalItem, ...]

    @property
    def key(self) -> str:
        """The item's key in the store."""
        return HELD + self.id


@dataclass(slots=True)
class Draft:
    """A change that is being made."""

    expect: dict[str, int] = field(default_factory=dict)
    put: dict[str, bytes] = field(default_factory=dict)
    events: list[bytes] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def change(self, marks: Mapping[str, float] | None = None, delete: tuple[str, ...] = ()) -> Change:
        """The finished change."""
        return Change(self.expect, self.put, delete, self.events, marks or {})


def set_mark(issuer: str, token_id: str) -> str:
    """The key under which a SET is remembered. A `jti` is unique only together with its issuer."""
    return f"set/{digest(issuer, token_id)}"


def item_of(change: EventChange, source: SignalSource, event: SecurityEvent, now: float) -> RevocationItem | SignalItem:
    """The item that puts one change in force."""
    subject = change.subject
    name = source.full_name
    if isinstance(change, SetSignal):
        identity = "set-" + digest(name, subject.what, subject.issuer, subject.value, change.kind)
        return SignalItem(
            identity, subject.what, subject.issuer, subject.value, change.kind, change.value, change.observed_at, name,
            event.token_id,
        )  # fmt: skip
    return RevocationItem(
        id="set-" + digest(name, subject.what, subject.issuer, subject.value),
        what=subject.what,
        value=subject.value,
        issuer=subject.issuer,
        before=0.0 if change.before == FOR_EVER else change.before,
        until=change.until,
        reason=str(event.kind or event.type),
        source=f"{name} jti {event.token_id}",
        created_at=now,
    )


def held_item(plan: Plan, source: SignalSource, event: SecurityEvent, now: float) -> HeldItem:
    """The item that keeps a held event until an operator decides."""
    return HeldItem(
        id=digest(event.issuer, event.token_id),
        source=source.full_name,
        issuer=event.issuer,
        jti=event.token_id,
        event_type=event.type,
        why=str(plan.why),
        happened_at=event.happened_at,
        held_at=now,
        changes=tuple(item_of(change, source, event, now) for change in plan.changes),
    )


async def put_items(store: Store, draft: Draft, items: tuple[RevocationItem | SignalItem, ...], jti: str) -> None:
    """Add `items` to `draft`, merged with those in the store, and a record of each new revocation."""
    for item in items:
        known = await store.get(item.key)
        draft.expect[item.key] = ABSENT if known is None else known.version
        merged = _merge(item, known)
        if merged is None:
            continue
        draft.put[item.key] = encode_item(merged)
        draft.changed.append(item.key)
        if isinstance(merged, RevocationItem):
            if merged.until:
                draft.put[end_key(merged)] = b"{}"
            actor = Actor(f"signal-source/{merged.source.partition(' ')[0]}")
            added = EventKind.REVOCATION_ADDED
            event = revocation_event(added, merged, actor, merged.reason, detail={"jti": jti})
            draft.events.append(encode_event(event))


def _merge(item: RevocationItem | SignalItem, known: Versioned | None) -> RevocationItem | SignalItem | None:
    """The item to put, None if the one in the store says more."""
    existing = None if known is None else decode_item(item.key, known.value)
    if isinstance(item, SignalItem) and isinstance(existing, SignalItem):
        return None if existing.observed_at > item.observed_at else item
    if isinstance(item, RevocationItem) and isinstance(existing, RevocationItem):
        return merge_revocations(item, existing)
    return item


def source_item(source: SignalSource, heard_at: float) -> SourceItem:
    """The item that says when a source was heard, and what it reports."""
    subjects, actions = source.subjects, source.actions
    kinds = {kind for event, kind in _SIGNAL_KINDS.items() if actions.get(event, SignalAction.IGNORE) in _SIGNALLED}
    return SourceItem(
        source.full_name,
        heard_at,
        source.max_silence,
        subjects.token_issuers,
        tuple(sorted(kinds)),
        subjects.device_inventory,
        subjects.spiffe_ids,
    )


def put_source(draft: Draft, source: SignalSource, now: float) -> None:
    """Record that the source was heard."""
    item = source_item(source, now)
    draft.put[item.key] = encode_item(item)


def signal_event(plan: Plan, source: SignalSource, event: SecurityEvent, changed: list[str], digest: str) -> bytes:
    """The record of one SET."""
    fields: dict[str, Any] = {"source": source.full_name, "event_type": event.type, "txn": event.transaction}
    detail: dict[str, Any] = {
        "outcome": str(plan.outcome),
        "why": str(plan.why or ""),
        "happened_at": event.happened_at,
        "issued_at": event.issued_at,
        "subjects": tuple(
            f"{change.subject.what} {change.subject.issuer} {change.subject.value}" for change in plan.changes
        ),
        "items": tuple(changed),
    }
    return encode_event(
        AccessEvent(
            _KINDS[plan.outcome],
            EventObject("signal", event.token_id, fields),
            Actor(f"signal-source/{source.full_name}", issuer=event.issuer),
            policy_digest=digest,
            detail=detail,
        )
    )


def released_event(
    item: HeldItem, caller: AuthorizedCaller, reason: str, changed: list[str], *, discarded: bool
) -> bytes:
    """The record of an operator's decision on a held event."""
    return encode_event(
        AccessEvent(
            EventKind.SIGNAL_DISCARDED if discarded else EventKind.SIGNAL_RELEASED,
            EventObject("signal", item.jti, {"source": item.source, "event_type": item.event_type}),
            caller.actor,
            reason,
            caller.policy_digest,
            {"held": item.id, "why": item.why, "items": tuple(changed)},
        )
    )

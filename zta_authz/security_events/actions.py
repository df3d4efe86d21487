"""Decide what a verified event of CAEP or RISC changes: revocations and signals. Nothing here is in force yet.

The action of each kind of event comes from the SignalSource. An event that takes access away may count for more than
its subject; one that restores trust counts only for exactly its subject. Events for a whole tenant, and those beyond
`max_subjects`, are held until an operator releases them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.model.documents import Revoked
from zta_authz.model.signal_documents import CHANGE_TYPES, STREAM_KINDS, EventKind, RiskLevel, SignalAction
from zta_authz.model.signals import Compliance, SignalKind
from zta_authz.security_events.set_verifier import invalid_set
from zta_authz.security_events.subjects import match_subject

if TYPE_CHECKING:
    from collections.abc import Collection

    from zta_authz.model.signal_documents import SignalSource
    from zta_authz.security_events.set_verifier import SecurityEvent
    from zta_authz.security_events.subjects import SubjectKey

MAX_LEVEL_CHARACTERS: Final = 256
"""The maximum length of an assurance level and of its namespace."""
FOR_EVER: Final = float("inf")
_WHOLE: Final = frozenset((Revoked.SESSION, Revoked.TOKEN))
"""What never comes back after its end, so that the time of issue does not matter."""


class Outcome(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    WITHOUT_EFFECT = "without_effect"
    DISCARDED = "discarded"
    HELD = "held"
    STREAM = "stream"  # the event is about the stream itself


class Why(StrEnum):
    """Why an event does less than usual."""

    UNKNOWN_EVENT = "unknown_event"  # the event type is not known
    NOT_MAPPED = "not_mapped"  # the SignalSource gives this event no effect
    UNKNOWN_SUBJECT = "unknown_subject"  # the subject joins to no token, session or device
    OTHER_TENANT = "other_tenant"  # the event is about another tenant
    CRITICAL_MEMBER = "critical_member"  # a critical member of the subject can't be evaluated
    WIDER_SUBJECT = "wider_subject"  # the event restores trust, and only for a part of what it would count for
    ENDED = "ended"  # every token that the event is about has expired
    TENANT_WIDE = "tenant_wide"  # the event is about every user
    TOO_MANY_SUBJECTS = "too_many_subjects"  # more subjects than `maxSubjects` within the window


@dataclass(frozen=True, slots=True)
class AddRevocation:
    """Revoke the credentials of `subject` that were issued before `before`, until `until`.

    Both are seconds since the epoch; `before` is infinite where the time of issue does not matter.
    """

    subject: SubjectKey
    before: float
    until: float


@dataclass(frozen=True, slots=True)
class SetSignal:
    """Replace the signal `kind` of `subject`, unless the one in force was observed later than `observed_at`."""

    subject: SubjectKey
    kind: SignalKind
    value: str
    observed_at: float


Change = AddRevocation | SetSignal


@dataclass(frozen=True, slots=True)
class Plan:
    """The effect of one event. `changes` of a held event are those that its release puts in force."""

    outcome: Outcome
    why: Why | None = None
    changes: tuple[Change, ...] = ()

    @property
    def subjects(self) -> int:
        """How many different subjects change. The tokens of several issuers may be those of one."""
        return len({(change.subject.what, change.subject.value) for change in self.changes})


def plan_changes(
    event: SecurityEvent,
    source: SignalSource,
    now: float,
    *,
    critical: Collection[str] = (),
    recent_subjects: int = 0,
) -> Plan:
    """Decide what `event` changes.

    Args:
        event: The verified event.
        source: The document of its transmitter.
        now: Seconds since the epoch.
        critical: The transmitter's `critical_subject_members`.
        recent_subjects: How many subjects this source has changed within the window of `max_subjects`.

    Raises:
        SetError: The event lacks a value that its type requires.
    """
    if event.kind in STREAM_KINDS:
        return Plan(Outcome.STREAM)
    if event.kind is None:
        return Plan(Outcome.WITHOUT_EFFECT, Why.UNKNOWN_EVENT)
    action = source.actions.get(event.kind, SignalAction.IGNORE)
    signal = _SIGNALS.get(action)
    kind_and_value = None if signal is None else signal(event)
    if action is SignalAction.IGNORE or not _counts(event, source):
        return Plan(Outcome.WITHOUT_EFFECT, Why.NOT_MAPPED)
    match = match_subject(event, source, critical)
    if match.unmatched is not None:
        why = Why(match.unmatched)
        return Plan(Outcome.DISCARDED if why is Why.CRITICAL_MEMBER else Outcome.WITHOUT_EFFECT, why)
    if kind_and_value is None:
        changes = _revocations(match.keys, event, source, now)
    elif not match.exact and not _takes_away(event, kind_and_value[1]):
        return Plan(Outcome.WITHOUT_EFFECT, Why.WIDER_SUBJECT)
    else:
        changes = tuple(SetSignal(key, *kind_and_value, event.happened_at) for key in match.keys)
    if not changes:
        return Plan(Outcome.WITHOUT_EFFECT, Why.ENDED)
    return _bounded(changes, source, recent_subjects)


def _bounded(changes: tuple[Change, ...], source: SignalSource, recent_subjects: int) -> Plan:
    if any(change.subject.what is Revoked.ISSUER for change in changes):
        return Plan(Outcome.HELD, Why.TENANT_WIDE, changes)
    plan = Plan(Outcome.ACCEPTED, changes=changes)
    if recent_subjects + plan.subjects > source.max_subjects:
        return Plan(Outcome.HELD, Why.TOO_MANY_SUBJECTS, changes)
    return plan


def _revocations(
    keys: tuple[SubjectKey, ...], event: SecurityEvent, source: SignalSource, now: float
) -> tuple[Change, ...]:
    """Revoke what was issued up to the event. Times are whole seconds, so its own second is included."""
    before = event.happened_at + 1
    until = before + source.max_token_life
    if until <= now:
        return ()
    return tuple(AddRevocation(key, FOR_EVER if key.what in _WHOLE else before, until) for key in keys)


def _counts(event: SecurityEvent, source: SignalSource) -> bool:
    """Whether the source's document lets this event count, by the event's own values."""
    if event.kind is not EventKind.CREDENTIAL_CHANGE:
        return True
    change = event.values.get("change_type")
    if change not in CHANGE_TYPES:
        raise invalid_set(f"`change_type` is not one of {', '.join(CHANGE_TYPES)}")
    return change in source.change_types


def _takes_away(event: SecurityEvent, value: str) -> bool:
    """Whether a signal lowers the trust in its subject whatever the signal before it said."""
    if event.kind is EventKind.ASSURANCE_LEVEL_CHANGE:
        return event.values.get("change_direction") == "decrease"
    return value in (RiskLevel.HIGH, Compliance.NOT_COMPLIANT)


def _trust_signal(event: SecurityEvent) -> tuple[SignalKind, str]:
    level = event.values.get("current_level")
    if event.kind is EventKind.RISK_LEVEL_CHANGE:
        if level not in tuple(RiskLevel):
            raise invalid_set(f"`current_level` is not one of {', '.join(RiskLevel)}")
        return SignalKind.RISK, RiskLevel(level)
    namespace = event.values.get("namespace", "")
    for name, value in (("current_level", level), ("namespace", namespace)):
        if not isinstance(value, str) or len(value) > MAX_LEVEL_CHARACTERS:
            raise invalid_set(f"`{name}` is not a string of at most {MAX_LEVEL_CHARACTERS} characters")
    if not level:
        raise invalid_set("`current_level` is empty")
    return SignalKind.ASSURANCE, f"{namespace}/{level}"


def _device_signal(event: SecurityEvent) -> tuple[SignalKind, str]:
    status = event.values.get("current_status")
    if status not in tuple(Compliance):
        raise invalid_set(f"`current_status` is not one of {', '.join(Compliance)}")
    return SignalKind.COMPLIANCE, Compliance(status)


_SIGNALS: Final = {SignalAction.TRUST: _trust_signal, SignalAction.DEVICE: _device_signal}
"""How the signal of an event is read, by the action. Actions that are not here set no signal."""

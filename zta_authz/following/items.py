"""Read the items of the administrator's view. An item that can't be read is refused, and the others still count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.access import Grant, Subject
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.signal_documents import RiskLevel
from zta_authz.model.signals import Compliance, Signal, SignalKind, SourceState

if TYPE_CHECKING:
    from zta_authz._proto import administrator_pb2 as pb

FOR_EVER: Final = float("inf")
_KINDS: Final = {str(kind): kind for kind in Revoked}
_SIGNAL_KINDS: Final = {str(kind): kind for kind in SignalKind}
_VALUES: Final = {
    SignalKind.RISK: frozenset(map(str, RiskLevel)),
    SignalKind.COMPLIANCE: frozenset(map(str, Compliance)),
}
"""The values of signals, by kinds that have a closed list of them."""
_MAX_COMMENT: Final = 500
_MAX_LEVEL: Final = 1024


@dataclass(frozen=True, slots=True)
class TimedRevocation:
    """A revocation of the administrator, which ends at `until` (seconds since the epoch)."""

    id: str
    revocation: Revocation
    until: float


class InvalidItem(ValueError):
    """The administrator sent an item that makes no sense. The message names no subject."""


def read_grant(message: pb.Grant) -> Grant:
    """Read a grant. Raises `InvalidItem`."""
    subject = Subject(message.subject.issuer, message.subject.subject, message.subject.spiffe_id)
    named = bool(subject.spiffe_id) != bool(subject.issuer and subject.subject)
    times = math.isfinite(message.start) and math.isfinite(message.until)
    if not (message.id and message.entitlement and named and times):
        raise InvalidItem("a grant without ID, entitlement, times or exactly one subject")
    return Grant(message.id, message.entitlement, subject, message.start, message.until, message.break_glass)


def read_revocation(message: pb.Revocation) -> TimedRevocation:
    """Read a revocation. 0 is no bound of time. Raises `InvalidItem`."""
    kind = _KINDS.get(message.what)
    if kind is None or not message.id or not message.value:
        raise InvalidItem("a revocation without ID or value, or of an unknown kind")
    if math.isnan(message.before) or math.isnan(message.until):
        raise InvalidItem("a revocation whose time is no number")
    revocation = Revocation(
        kind,
        message.value,
        message.issuer,
        before=message.before or FOR_EVER,
        comment=message.reason[:_MAX_COMMENT],
    )
    return TimedRevocation(message.id, revocation, message.until or FOR_EVER)


def read_signal(message: pb.Signal) -> Signal:
    """Read a signal. Raises `InvalidItem`."""
    what, kind = _KINDS.get(message.what), _SIGNAL_KINDS.get(message.kind)
    if what is None or kind is None or not (message.id and message.subject and message.source):
        raise InvalidItem("a signal without ID, subject or source, or of an unknown kind")
    values = _VALUES.get(kind)
    if (values is not None and message.value not in values) or not 0 < len(message.value) <= _MAX_LEVEL:
        raise InvalidItem(f"a signal of the kind `{kind}` with a value that it does not have")
    if not math.isfinite(message.observed_at):
        raise InvalidItem("a signal whose time is no number")
    return Signal(
        message.id, what, message.issuer, message.subject, kind, message.value, message.observed_at, message.source,
        message.jti,
    )  # fmt: skip


def read_source(message: pb.SignalSourceState) -> SourceState:
    """Read the state of a source of signals. Kinds that are not known are left out. Raises `InvalidItem`."""
    if not message.name or not math.isfinite(message.heard_at) or not 0 < message.max_silence < FOR_EVER:
        raise InvalidItem("a source of signals without name or times")
    return SourceState(
        message.name,
        message.heard_at,
        message.max_silence,
        frozenset(message.issuers),
        frozenset(kind for name in message.kinds if (kind := _SIGNAL_KINDS.get(name)) is not None),
        message.inventory,
        message.spiffe_ids,
    )

"""Read the items of the administrator's view. An item that can't be read is refused, and the others still count."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.access import Grant, Subject
from zta_authz.model.documents import Revocation, Revoked

if TYPE_CHECKING:
    from zta_authz._proto import administrator_pb2 as pb

FOR_EVER: Final = float("inf")
_KINDS: Final = {str(kind): kind for kind in Revoked}
_MAX_COMMENT: Final = 500


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

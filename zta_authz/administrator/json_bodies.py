"""JSON of the administrator's HTTP API: the bodies that it reads, and the results that it writes.

Times are RFC 3339 in UTC, null where absent. Durations are read as documents have them (`1h30m`) or as a number of
seconds; they are written as a number of seconds.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import msgspec

from zta_authz.administrator.problems import ApiReason, CallRefused
from zta_authz.administrator.view_items import RevocationItem, SignalItem
from zta_authz.policy.yaml.values import duration_of, time_of

if TYPE_CHECKING:
    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.signals.changes import HeldItem
    from zta_authz.administrator.view_items import GrantItem, SubjectItem

_LATEST: Final = 253_370_764_800.0
"""9999-01-01, the first time that may have no year in some time zone."""
_LONGEST: Final = 10 * 366 * 86400.0
_MAX_SHOWN: Final = 100


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /access/requests`."""

    entitlement: str
    duration: str | int | float
    reason: str = ""
    start: str = ""


class BreakGlassBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /access/break-glass`."""

    entitlement: str
    duration: str | int | float
    reason: str = ""


class ApprovalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /access/requests/ID/approve`. `duration` shortens the grant."""

    scope_sha256: str
    duration: str | int | float = 0
    comment: str = ""


class CommentBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The denial of a request, and the review of a grant."""

    comment: str = ""


class ReasonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The end of a grant or a revocation, and a decision on a held event."""

    reason: str = ""


class EmptyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body with nothing to say."""


class RevocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /revocations`."""

    what: str
    value: str
    issuer: str = ""
    before: str = ""
    until: str = ""
    reason: str = ""


Body = TypeVar("Body", bound=msgspec.Struct)


def read_body(data: bytes, kind: type[Body]) -> Body:
    """Read a JSON object; no bytes are an empty one. Raises `CallRefused`.

    A name that is written twice, numbers that JSON does not have, and text that is no Unicode are refused: others on
    the way might read them differently.
    """
    try:
        text = data.decode() or "{}"
        fields = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_number)
        json.dumps(fields, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # includes UnicodeError; json's own messages quote nothing, but say little
        raise CallRefused(ApiReason.MALFORMED, "the body is not a JSON object in UTF-8") from None
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise CallRefused(ApiReason.MALFORMED, f"the body is not valid: {str(error)[:_MAX_SHOWN]}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError
    return fields


def _no_number(_: str) -> NoReturn:
    raise ValueError


def read_duration(value: str | float) -> float:
    """The seconds of a duration; 0 for 0. Raises `CallRefused`."""
    seconds = duration_of(value) if isinstance(value, str) else value
    if seconds is None or not 0 <= seconds <= _LONGEST:  # compares exactly: also integers of any size
        raise CallRefused(ApiReason.MALFORMED, "`duration` is not a duration: write it like `1h` or `1h30m`")
    return float(seconds)


def read_time(name: str, text: str) -> float:
    """Seconds since the epoch; 0 for "". Raises `CallRefused`."""
    if not text:
        return 0.0
    time = time_of(text) if len(text) <= _MAX_SHOWN else None
    if time is None or not 0 < time < _LATEST:
        message = f"`{name}` is not a time with its offset (RFC 3339): write it like 2027-01-31T18:00:00Z"
        raise CallRefused(ApiReason.MALFORMED, message)
    return time


def request_fields(request: RequestItem) -> dict[str, Any]:
    """A request as JSON. Its requester and its approvers are those whom the log names."""
    return {
        "id": request.id,
        "entitlement": request.entitlement,
        "requester": _subject(request.subjects[0]),
        "duration_seconds": request.duration,
        "reason": request.reason,
        "state": str(request.state),
        "requested_at": _time(request.requested_at),
        "pending_until": _time(request.pending_until),
        "start": _time(request.start),
        "approvals": [
            {"approver": _subject(approval.subjects[0]), "at": _time(approval.at), "comment": approval.comment}
            for approval in request.approvals
        ],
        "approvals_needed": sum(request.needed),
        "grant_id": request.grant_id,
        "scope_sha256": request.scope_sha256,
    }


def grant_fields(grant: GrantItem) -> dict[str, Any]:
    """A grant as JSON."""
    return {
        "id": grant.id,
        "entitlement": grant.entitlement,
        "subject": _subject(grant.subject),
        "start": _time(grant.start),
        "until": _time(grant.until),
        "request_id": grant.request_id,
        "break_glass": grant.break_glass,
        "state": grant.state,
        "reason": grant.reason,
        "review_due": _time(grant.review_due),
    }


def held_fields(held: HeldItem) -> dict[str, Any]:
    """A held event as JSON, with what its release puts in force."""
    return {
        "id": held.id,
        "source": held.source,
        "issuer": held.issuer,
        "jti": held.jti,
        "event_type": held.event_type,
        "why": held.why,
        "happened_at": _time(held.happened_at),
        "held_at": _time(held.held_at),
        "revocations": [revocation_fields(item) for item in held.changes if isinstance(item, RevocationItem)],
        "signals": [_signal_fields(item) for item in held.changes if isinstance(item, SignalItem)],
    }


def _signal_fields(signal: SignalItem) -> dict[str, Any]:
    return {
        "id": signal.id,
        "what": signal.what,
        "issuer": signal.issuer,
        "subject": signal.subject,
        "kind": signal.kind,
        "value": signal.value,
        "observed_at": _time(signal.observed_at),
        "source": signal.source,
        "jti": signal.jti,
    }


def revocation_fields(revocation: RevocationItem) -> dict[str, Any]:
    """A revocation as JSON."""
    return {
        "id": revocation.id,
        "what": revocation.what,
        "value": revocation.value,
        "issuer": revocation.issuer,
        "before": _time(revocation.before),
        "until": _time(revocation.until),
        "reason": revocation.reason,
        "source": revocation.source,
        "created_at": _time(revocation.created_at),
    }


def _subject(subject: SubjectItem) -> dict[str, str]:
    return {"issuer": subject.issuer, "subject": subject.subject, "spiffe_id": subject.spiffe_id}


def _time(at: float) -> str | None:
    """RFC 3339 in UTC to the millisecond; None for 0."""
    if not at or not math.isfinite(at):
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Verify one Security Event Token (RFC 8417) as SSF 1.0 profiles it.

A SET is a JWT, so it is parsed and its signature verified by the functions for access tokens, with the one difference
that its `typ` must be `secevent+jwt`. Access tokens with this type are refused, and every other type is refused here.

This does not verify who delivered the SET, and it does not detect a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.jwt import TokenSemantics, parse_token, verifying_key
from zta_authz.authn.keys import ASYMMETRIC
from zta_authz.errors import Reason, Refused, ZtaError, quoted
from zta_authz.model.signal_documents import EVENT_KINDS, STREAM_KINDS
from zta_authz.security_events.subject_ids import Subject, parse_subject

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from zta_authz.authn.jwt import UnverifiedToken
    from zta_authz.authn.keys import KeySet
    from zta_authz.model.signal_documents import EventKind

TYPE: Final = "secevent+jwt"
MEDIA_TYPE: Final = f"application/{TYPE}"
MAX_SET_BYTES: Final = 64 * 1024
MAX_ID_CHARACTERS: Final = 256
"""The maximum length of `jti` and `txn`."""
MAX_TYPE_CHARACTERS: Final = 512
"""The maximum length of an event type's URI."""
MAX_AUDIENCES: Final = 32
AHEAD_SECONDS: Final = 60.0
"""How far the transmitter's clock may be ahead."""
MAX_AGE_SECONDS: Final = 30 * 86400.0
"""The default of the maximum age of a SET by its `iat`. A transmitter keeps SETs for a receiver that is down."""

_SEMANTICS: Final = TokenSemantics(max_bytes=MAX_SET_BYTES, leeway=AHEAD_SECONDS, lenient=False, type=TYPE)
_FORBIDDEN: Final = ("sub", "exp")
_KEY_REASONS: Final = frozenset((Reason.TOKEN_ALGORITHM, Reason.TOKEN_KEY_UNKNOWN, Reason.TOKEN_SIGNATURE))


class SetErrorCode(StrEnum):
    """The error codes of RFC 8935 section 2.4."""

    INVALID_REQUEST = "invalid_request"
    INVALID_KEY = "invalid_key"
    INVALID_ISSUER = "invalid_issuer"
    INVALID_AUDIENCE = "invalid_audience"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"


class SetError(ZtaError):
    """A SET is not accepted. `description` has no secret; it may quote short values of the SET.

    `key_unknown` is true if the SET names a key that the given set lacks: fetch the keys and verify again.
    """

    def __init__(self, code: SetErrorCode, description: str, *, key_unknown: bool = False) -> None:
        super().__init__(description)
        self.code = code
        self.description = description
        self.key_unknown = key_unknown


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """A verified event. Times are seconds since the epoch.

    `kind` is None for an event type that is not known. `happened_at` is the event's `event_timestamp`, else `toe`, else
    `iat`. `transaction` is `txn`, "" if absent. `values` is the event's own object.
    """

    issuer: str
    token_id: str
    audiences: tuple[str, ...]
    issued_at: float
    happened_at: float
    transaction: str
    type: str
    kind: EventKind | None
    subject: Subject
    values: Mapping[str, Any] = field(repr=False)


def verify_set(
    data: bytes,
    issuer: str,
    audiences: Collection[str],
    keys: KeySet,
    now: float,
    *,
    max_age: float = MAX_AGE_SECONDS,
) -> SecurityEvent:
    """Verify a SET of `issuer` for one of `audiences`.

    Args:
        data: The SET as received, in the compact form.
        issuer: The `iss` of the stream.
        audiences: The SET must name one of these. They are compared exactly.
        keys: The issuer's keys. Secrets (HMAC) are not used.
        now: Seconds since the epoch.
        max_age: The maximum age by `iat`, in seconds.

    Raises:
        SetError: The SET is malformed, of another issuer or audience, too old or from the future, or not signed by one
            of `keys`.
    """
    token = _parse(data)
    claims = token.claims
    if token.issuer != issuer:
        raise SetError(
            SetErrorCode.INVALID_ISSUER, f"`iss` is {quoted((token.issuer,))}, and the stream's is {quoted((issuer,))}"
        )
    _verify_signature(token, keys)
    named = _audiences(claims)
    if not set(named).intersection(audiences):
        raise SetError(SetErrorCode.INVALID_AUDIENCE, f"`aud` is {quoted(named)}, and that is not this receiver")
    for claim in _FORBIDDEN:
        if claim in claims:
            raise invalid_set(f"`{claim}` is present, which a SET must not have")
    issued_at = _issued_at(claims, now, max_age)
    uri, values = _event(claims)
    kind = EVENT_KINDS.get(uri)
    return SecurityEvent(
        issuer=issuer,
        token_id=_text(claims, "jti"),
        audiences=named,
        issued_at=issued_at,
        happened_at=_happened_at(claims, values, issued_at, now),
        transaction=_text(claims, "txn") if "txn" in claims else "",
        type=uri,
        kind=kind,
        subject=_subject(claims, values, needed=kind not in STREAM_KINDS),
        values=MappingProxyType(values),
    )


def invalid_set(description: str) -> SetError:
    """The error of a SET that does not conform to its specification."""
    return SetError(SetErrorCode.INVALID_REQUEST, description)


def _parse(data: bytes) -> UnverifiedToken:
    try:
        return parse_token(data.decode("ascii"), _SEMANTICS)
    except UnicodeDecodeError:
        raise invalid_set("not a SET in the compact form") from None
    except Refused as refused:
        raise _error(refused) from None


def _verify_signature(token: UnverifiedToken, keys: KeySet) -> None:
    if token.algorithm not in ASYMMETRIC:
        raise SetError(SetErrorCode.INVALID_KEY, "`alg` is not an accepted asymmetric algorithm")
    try:
        verifying_key(token, keys, _SEMANTICS)
    except Refused as refused:
        raise _error(refused) from None


def _error(refused: Refused) -> SetError:
    code = SetErrorCode.INVALID_KEY if refused.reason in _KEY_REASONS else SetErrorCode.INVALID_REQUEST
    return SetError(code, refused.detail, key_unknown=refused.reason is Reason.TOKEN_KEY_UNKNOWN)


def _audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """`aud` as a tuple; its type was checked by the parser."""
    audience = claims.get("aud", ())
    named = (audience,) if isinstance(audience, str) else tuple(audience)
    if len(named) > MAX_AUDIENCES:
        raise invalid_set(f"`aud` has {len(named)} entries, more than {MAX_AUDIENCES}")
    return named


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise invalid_set(f"`{name}` is not a string of 1 to {MAX_ID_CHARACTERS} characters")
    return value


def _issued_at(claims: Mapping[str, Any], now: float, max_age: float) -> float:
    if "iat" not in claims:
        raise invalid_set("no `iat`")
    issued_at = float(claims["iat"])  # a number: the parser checked it
    if issued_at > now + AHEAD_SECONDS:
        raise invalid_set(f"issued {issued_at - now:.0f} s from now")
    if issued_at < now - max_age:
        raise invalid_set(f"issued {now - issued_at:.0f} s ago, more than {max_age:.0f}")
    return issued_at


def _event(claims: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The only event: its type and its own object."""
    events = claims.get("events")
    if not isinstance(events, dict) or len(events) != 1:
        number = len(events) if isinstance(events, dict) else 0
        raise invalid_set(f"`events` has {number} events instead of one")
    [(uri, values)] = events.items()
    if not 0 < len(uri) <= MAX_TYPE_CHARACTERS or not isinstance(values, dict):
        raise invalid_set(f"`events` is not an object by a URI of 1 to {MAX_TYPE_CHARACTERS} characters")
    return uri, values


def _happened_at(claims: Mapping[str, Any], values: Mapping[str, Any], issued_at: float, now: float) -> float:
    """When the event happened. A time from the future would end tokens that are yet to be issued, so it is refused."""
    for name, holder in (("event_timestamp", values), ("toe", claims)):
        if name in holder:
            value = holder[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= now + AHEAD_SECONDS:
                raise invalid_set(f"`{name}` is not a time in the past, in seconds since the epoch")
            return float(value)
    return issued_at


def _subject(claims: Mapping[str, Any], values: Mapping[str, Any], *, needed: bool) -> Subject:
    """The subject: `sub_id`, or `subject` inside the event as before SSF 1.0. Events of the stream may lack it."""
    written = claims["sub_id"] if "sub_id" in claims else values.get("subject")
    if written is None and not needed:
        return Subject()
    if written is None:
        raise invalid_set("no `sub_id`")
    try:
        return parse_subject(written)
    except ValueError as error:
        raise invalid_set(str(error)) from None

"""Parse one JWT (RFC 7519, in the compact form of RFC 7515), verify its signature, and check its times.

The caller, which knows the rules, must check that the issuer is known and that the token was in an allowed location.
Header members that point to keys (`jwk`, `jku`, `x5u`, `x5c`) are never read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from zta_authz.authn.binding import read_confirmation
from zta_authz.authn.encoding import ENVOY_JSON_DEPTH, MAX_JSON_DEPTH, base64url_decode, json_object
from zta_authz.authn.jwt_limits import MAX_TIME, token_type
from zta_authz.authn.keys import ALGORITHMS
from zta_authz.authn.token import Confirmation, VerifiedToken
from zta_authz.errors import Reason, Refused, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.authn.keys import Key, KeySet

_TIMES: Final = ("iat", "nbf", "exp")
_STRINGS: Final = ("iss", "sub", "jti")
_OTHER_TYPES: Final = frozenset(
    ("dpop+jwt", "logout+jwt", "oauth-authz-req+jwt", "passport", "secevent+jwt", "token-introspection+jwt")
)
"""The `typ` of JWTs that are signed for purposes other than access (RFC 8725 section 3.11)."""


@dataclass(frozen=True, slots=True)
class TokenSemantics:
    """How to parse and check tokens. `leeway` is the allowed clock difference in seconds.

    `lenient` copies Envoy's jwt_authn, which accepts padding, empty segments, deeper nesting and tokens without `exp`,
    counts whole seconds, and tries several keys for a token without `kid`. A JWT that is not an access token has the
    `type` that its `typ` must be.
    """

    max_bytes: int
    leeway: float
    lenient: bool
    type: str = ""


STRICT: Final = TokenSemantics(max_bytes=16 * 1024, leeway=30.0, lenient=False)
ISTIO: Final = TokenSemantics(max_bytes=64 * 1024, leeway=60.0, lenient=True)


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A parsed token. Nothing in it is trusted yet; use `issuer` only to select the keys."""

    algorithm: str
    kid: str
    type: str
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    payload: str = field(repr=False)
    message: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse_token(text: str, semantics: TokenSemantics) -> UnverifiedToken:
    """Parse a token. Raises `Refused` for its size, form, header or the types of registered claims."""
    if len(text) > semantics.max_bytes:
        raise Refused(Reason.TOKEN_TOO_LARGE, f"{len(text)} characters, more than {semantics.max_bytes}")
    segments = text.split(".")
    if semantics.lenient:
        segments = [segment for segment in segments if segment]
    if len(segments) != 3:
        raise Refused(Reason.TOKEN_MALFORMED, f"{len(segments)} segments instead of 3")
    head, body, tail = segments
    header = _object(head, "header", semantics)
    algorithm, kid = _check_header(header)
    kind = _type(header, semantics)
    claims = _object(body, "payload", semantics)
    _check_claim_types(claims)
    return UnverifiedToken(
        algorithm=algorithm,
        kid=kid,
        type=kind,
        issuer=claims.get("iss", ""),
        claims=MappingProxyType(claims),
        payload=body,
        message=f"{head}.{body}".encode("ascii"),
        signature=_bytes(tail, "signature", semantics),
    )


def _bytes(segment: str, name: str, semantics: TokenSemantics) -> bytes:
    try:
        return base64url_decode(segment, canonical=not semantics.lenient)
    except ValueError:
        raise Refused(Reason.TOKEN_MALFORMED, f"the {name} is not base64url") from None


def _object(segment: str, name: str, semantics: TokenSemantics) -> dict[str, Any]:
    try:
        levels = ENVOY_JSON_DEPTH if semantics.lenient else MAX_JSON_DEPTH
        return json_object(_bytes(segment, name, semantics), max_depth=levels)
    except ValueError:
        raise Refused(Reason.TOKEN_MALFORMED, f"the {name} is not a JSON object we accept") from None


def _check_header(header: Mapping[str, Any]) -> tuple[str, str]:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        seen = quoted((algorithm,)) if algorithm is not None else "absent"
        raise Refused(Reason.TOKEN_ALGORITHM, f"`alg` is {seen}, not an algorithm we accept")
    if "crit" in header:
        raise Refused(Reason.TOKEN_HEADER, "`crit` asks for an extension, and we know none")
    if header.get("b64", True) is not True:
        raise Refused(Reason.TOKEN_HEADER, "`b64` asks for an unencoded payload")
    kid = header.get("kid", "")
    if not isinstance(kid, str):
        raise Refused(Reason.TOKEN_HEADER, "`kid` is not a string")
    return algorithm, kid


def _type(header: Mapping[str, Any], semantics: TokenSemantics) -> str:
    """The token's `typ`, "" if absent. With strict semantics, raises `Refused` for a JWT of another purpose."""
    text = header.get("typ", "")
    kind = token_type(text) if isinstance(text, str) else ""
    if semantics.type:
        if kind != semantics.type:
            raise Refused(Reason.TOKEN_HEADER, f"`typ` is {quoted((text,))}, not `{semantics.type}`")
    elif not semantics.lenient and (not isinstance(text, str) or kind in _OTHER_TYPES):
        raise Refused(Reason.TOKEN_HEADER, f"`typ` is {quoted((text,))}, not that of an access token")
    return kind


def _check_claim_types(claims: Mapping[str, Any]) -> None:
    for name in _STRINGS:
        if not isinstance(claims.get(name, ""), str):
            raise Refused(Reason.TOKEN_CLAIM_INVALID, f"`{name}` is not a string")
    for name in _TIMES:
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= float(value) < MAX_TIME:
            raise Refused(Reason.TOKEN_CLAIM_INVALID, f"`{name}` is not a time")
    audience = claims.get("aud", "")
    if not isinstance(audience, str) and not _is_strings(audience):
        raise Refused(Reason.TOKEN_CLAIM_INVALID, "`aud` is neither a string nor a list of strings")


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def verify_signature(token: UnverifiedToken, keys: KeySet, semantics: TokenSemantics) -> VerifiedToken:
    """Verify the signature with `keys`. Raises `Refused`. Does not check times and audience."""
    return _verified(token, keys, verifying_key(token, keys, semantics), semantics)


def verifying_key(token: UnverifiedToken, keys: KeySet, semantics: TokenSemantics) -> Key:
    """The key of `keys` that verifies the signature. Raises `Refused` if none does."""
    if semantics.lenient:
        candidates = keys.choose_as_envoy(token.algorithm, token.kid, len(token.signature))
    else:
        candidates = keys.choose_strictly(token.algorithm, token.kid)
    for key in candidates:
        if key.verifies(token.algorithm, token.message, token.signature):
            return key
    raise Refused(Reason.TOKEN_SIGNATURE, "the signature does not fit the issuer's key")


def _verified(token: UnverifiedToken, keys: KeySet, key: Key, semantics: TokenSemantics) -> VerifiedToken:
    claims = token.claims
    audience = claims.get("aud", [])
    expires, issued_at = claims.get("exp"), claims.get("iat")
    not_before = claims.get("nbf", 0)
    if semantics.lenient:  # whole seconds, and 0 means absent
        expires = int(expires or 0) or None
        not_before = int(not_before)
    return VerifiedToken(
        keys=keys,
        key=key,
        algorithm=token.algorithm,
        kid=token.kid,
        type=token.type,
        issuer=token.issuer,
        subject=claims.get("sub", ""),
        audiences=normal_audiences([audience] if isinstance(audience, str) else audience),
        not_before=float(not_before),
        expires=None if expires is None else float(expires),
        issued_at=None if issued_at is None else float(issued_at),
        token_id=claims.get("jti", ""),
        confirmation=_confirmation(claims, semantics),
        claims=claims,
        payload=token.payload,
    )


def _confirmation(claims: Mapping[str, Any], semantics: TokenSemantics) -> Confirmation | None:
    try:
        return read_confirmation(claims)
    except Refused:
        if semantics.lenient:  # jwt_authn ignores `cnf`
            return Confirmation()
        raise


def check_times(token: VerifiedToken, semantics: TokenSemantics, now: float, *, needs_expiry: bool = True) -> None:
    """Check that the token is valid at `now`, within the leeway (bounds included). Raises `Refused`.

    With `needs_expiry` False, the issuer's tokens may lack `exp` with strict semantics too.
    """
    if semantics.lenient:
        now = now // 1
    if token.expires is None:
        if needs_expiry and not semantics.lenient:
            raise Refused(Reason.TOKEN_EXPIRY_MISSING, "no `exp`")
    elif now > token.expires + semantics.leeway:
        raise Refused(Reason.TOKEN_EXPIRED, f"expired {now - token.expires:.0f} s ago")
    if now + semantics.leeway < token.not_before:
        raise Refused(Reason.TOKEN_NOT_YET_VALID, f"not valid for another {token.not_before - now:.0f} s")
    if token.issued_at is not None and now + semantics.leeway < token.issued_at and not semantics.lenient:
        raise Refused(Reason.TOKEN_NOT_YET_VALID, f"issued {token.issued_at - now:.0f} s from now")


def normal_audience(audience: str) -> str:
    """Strip `http://` or `https://`, and one trailing `/`: Istio compares audiences so."""
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience[len(scheme) :]
            break
    return audience.removesuffix("/")


def normal_audiences(audiences: Iterable[str]) -> frozenset[str]:
    """Apply `normal_audience` to each audience."""
    return frozenset(normal_audience(audience) for audience in audiences)

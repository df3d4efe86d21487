"""DPoP (RFC 9449): a proof, made for one request, that the presenter of a token holds the key it is bound to.

Section 4.3 defines the checks. A proof is valid for a short time and only once. Used proofs are remembered in bounded
memory, but only valid ones, so that nobody can fill it without a token and its key. When the memory is full, requests
are refused, because a proof might be a replay.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from zta_authz.authn.dpop_shares import BUCKET_SECONDS, SHARES_BYTES, KeyShares
from zta_authz.authn.encoding import base64url_decode, base64url_encode, json_object
from zta_authz.authn.jwt_limits import MAX_TIME, token_type
from zta_authz.authn.keys import ASYMMETRIC, key_thumbprint, read_jwks
from zta_authz.errors import Reason, Refused, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.keys import Key
    from zta_authz.model.request import RequestAttributes

HEADER: Final = "dpop"
TYPE: Final = "dpop+jwt"
MAX_PROOF_BYTES: Final = 8 * 1024
MAX_ID_CHARACTERS: Final = 256
WINDOW_SECONDS: Final = 60.0
"""The maximum age of a proof."""
AHEAD_SECONDS: Final = 30.0
"""How far the client's clock may be ahead of the server's."""
MAX_REMEMBERED: Final = 262_144
"""The maximum number of remembered proofs, of about 100 bytes each: 90 seconds at 2,900 a second."""
NAME_BYTES: Final = 16
"""The length of a proof's name. A collision takes 2^64 proofs, and only causes a refusal."""

_PRIVATE_MEMBERS: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_TARGET: Final = re.compile(r"(https?)://([^/?#@\s\\]+)(/[^?#\s\\]*)?(?:[?#].*)?", re.IGNORECASE)
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that is valid for the request, not yet checked for replay. `thumbprint` is that of its key (RFC 7638)."""

    thumbprint: str
    identifier: str
    issued_at: float


class Replays(Protocol):
    """Remembers used proofs."""

    def remember(self, proof: Proof, now: float) -> None:
        """Record the use of `proof` at `now`. Raises `Refused` if it was used before or the memory is full."""
        ...


def proof_name(proof: Proof) -> bytes:
    """The digest that identifies a proof: of its key and `jti`, which are unique only together."""
    return hashlib.sha256(f"{proof.thumbprint}.{proof.identifier}".encode()).digest()[:NAME_BYTES]


class ReplayMemory:
    """Used proofs of one process. Expired ones are dropped; `capacity` limits the others, shared among keys."""

    __slots__ = ("_buckets", "_shares")

    def __init__(self, capacity: int = MAX_REMEMBERED) -> None:
        self._shares = KeyShares(memoryview(bytearray(SHARES_BYTES)), capacity, hash)
        self._buckets: dict[int, set[bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def remember(self, proof: Proof, now: float) -> None:
        """Record the use of `proof` at `now`. Raises `Refused` if it was used before or the memory is full."""
        self._drop_expired(now)
        name = proof_name(proof)
        if any(name in bucket for bucket in self._buckets.values()):
            raise Refused(Reason.DPOP_REPLAYED, "the proof was used before")
        self._shares.count(proof.thumbprint, proof.issued_at, WINDOW_SECONDS, now)
        self._buckets.setdefault(int(proof.issued_at // BUCKET_SECONDS), set()).add(name)

    def _drop_expired(self, now: float) -> None:
        oldest = int((now - WINDOW_SECONDS) // BUCKET_SECONDS)
        for bucket in [number for number in self._buckets if number < oldest]:
            del self._buckets[bucket]


def verify_proof(request: RequestAttributes, token: str, bound_to: str, now: float) -> Proof:
    """Verify the request's proof for the access token `token`. The caller must check for replay.

    Args:
        request: The request, with the proof in its `DPoP` header.
        token: The access token as presented.
        bound_to: The thumbprint of the key that the token is bound to.
        now: Seconds since the epoch.

    Raises:
        Refused: The proof is missing, invalid, expired, for another request, or by another key. The signature is
            checked last, because it costs the most and the client chooses the key.
    """
    head, body, tail = _segments(request)
    try:
        header, claims = json_object(base64url_decode(head)), json_object(base64url_decode(body))
        signature = base64url_decode(tail)
    except ValueError:
        raise Refused(Reason.DPOP_INVALID, "not a JWT") from None
    algorithm, jwk = _read_header(header)
    identifier, issued_at = _read_claims(claims)
    if not now - WINDOW_SECONDS <= issued_at <= now + AHEAD_SECONDS:
        raise Refused(Reason.DPOP_EXPIRED, f"made {now - issued_at:.0f} s ago")
    _check_purpose(claims, request, token)
    thumbprint = _thumbprint(jwk)
    if not hmac.compare_digest(thumbprint, bound_to):
        bound, proved = quoted((bound_to,)), quoted((thumbprint,))
        raise Refused(Reason.TOKEN_BINDING, f"the token is bound to the key {bound}, and the DPoP proof is by {proved}")
    if not _key(jwk, algorithm).verifies(algorithm, f"{head}.{body}".encode("ascii"), signature):
        raise Refused(Reason.DPOP_INVALID, "the signature does not fit the proof's key")
    return Proof(thumbprint, identifier, issued_at)


def _segments(request: RequestAttributes) -> tuple[str, str, str]:
    """Split the only proof into its three parts. Raises `Refused`."""
    values = request.headers.all(HEADER)
    if not values:
        raise Refused(Reason.DPOP_MISSING, "the scheme is DPoP, and there is no proof")
    if len(values) > 1:
        raise Refused(Reason.DPOP_INVALID, f"{len(values)} proofs")
    if len(values[0]) > MAX_PROOF_BYTES:
        raise Refused(Reason.DPOP_INVALID, f"{len(values[0])} characters, more than {MAX_PROOF_BYTES}")
    segments = values[0].strip(" ").split(".")
    if len(segments) != 3:
        raise Refused(Reason.DPOP_INVALID, "not a JWT")
    head, body, tail = segments
    return head, body, tail


def _read_header(header: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the algorithm and the JWK, which is only known to have no private member."""
    kind, algorithm, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
    if not isinstance(kind, str) or token_type(kind) != TYPE:
        raise Refused(Reason.DPOP_INVALID, f"`typ` is not `{TYPE}`")
    if not isinstance(algorithm, str) or algorithm not in ASYMMETRIC:
        raise Refused(Reason.DPOP_INVALID, "`alg` is not an accepted asymmetric algorithm")
    if "crit" in header or header.get("b64", True) is not True:
        raise Refused(Reason.DPOP_INVALID, "the header requires an extension, and none is supported")
    if not isinstance(jwk, dict) or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise Refused(Reason.DPOP_INVALID, "`jwk` is absent or not a public key")
    return algorithm, jwk


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    try:
        return key_thumbprint(jwk)
    except ValueError:
        raise Refused(Reason.DPOP_INVALID, "`jwk` is not an accepted public key") from None


def _key(jwk: Mapping[str, Any], algorithm: str) -> Key:
    keys = read_jwks({"keys": [jwk]})[0].keys
    if not keys or algorithm not in keys[0].algorithms:
        raise Refused(Reason.DPOP_INVALID, "`jwk` is not an accepted key for `alg`")
    return keys[0]


def _read_claims(claims: Mapping[str, Any]) -> tuple[str, float]:
    """Return `jti` and `iat`."""
    identifier, issued_at = claims.get("jti"), claims.get("iat")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_ID_CHARACTERS:
        raise Refused(Reason.DPOP_INVALID, f"`jti` is not a string of 1 to {MAX_ID_CHARACTERS} characters")
    if isinstance(issued_at, bool) or not isinstance(issued_at, (int, float)) or not 0 <= issued_at < MAX_TIME:
        raise Refused(Reason.DPOP_INVALID, "`iat` is not a time")
    return identifier, float(issued_at)


def _check_purpose(claims: Mapping[str, Any], request: RequestAttributes, token: str) -> None:
    """Check that the proof is for this method, address and token. Raises `Refused`."""
    if claims.get("htm") != request.method:
        seen = quoted((claims.get("htm"),))
        raise Refused(Reason.DPOP_MISMATCH, f"`htm` is {seen}, and the request's method is {quoted((request.method,))}")
    target = claims.get("htu")
    if not isinstance(target, str) or len(request.path.partition("?")[0]) > 3 * len(target):
        # Spellings of one address differ in length by a factor of three at most, and a long one is costly to normalise.
        raise Refused(Reason.DPOP_MISMATCH, "`htu` is not the request's address")
    address = normal_target(f"{request.scheme}://{request.host}{request.path or '/'}")
    if address is None or normal_target(target) != address:
        seen = quoted((target.partition("?")[0],))  # a query may hold tokens
        raise Refused(Reason.DPOP_MISMATCH, f"`htu` is {seen}, and the request's address is {quoted((address,))}")
    if claims.get("ath") != base64url_encode(hashlib.sha256(token.encode("ascii")).digest()):
        raise Refused(Reason.DPOP_MISMATCH, "`ath` is not the token's digest")


def normal_target(text: str) -> str | None:
    """Normalise an address, without query and fragment (RFC 3986 section 6.2); None if it is not an HTTP address.

    Scheme and host become lower case, the default port goes, an empty path becomes `/`, and `%7e` becomes `~`. Dot
    segments stay, because not every server removes them.
    """
    match = _TARGET.fullmatch(text)
    if match is None or not text.isascii():
        return None
    scheme, host, path = match[1].lower(), match[2].lower(), match[3] or "/"
    host = host.removesuffix(_DEFAULT_PORTS[scheme]).removesuffix(":")
    return f"{scheme}://{host}{_ENCODED.sub(_normal_octet, path)}"


def _normal_octet(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()

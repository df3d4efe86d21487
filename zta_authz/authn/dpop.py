"""DPoP (RFC 9449): a proof, made for one request, that whoever presents a token holds the key it is bound to.

What a proof must be is section 4.3. The time for which it counts is short, and within it each proof counts once. What
was seen is kept in memory, bounded, and only for proofs that held: nobody without a token and its key can fill it, and
when it is full requests are refused rather than proofs believed that might be used a second time.
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
"""How old a proof may be."""
AHEAD_SECONDS: Final = 30.0
"""How far ahead of ours its maker's clock may be."""
MAX_REMEMBERED: Final = 262_144
"""Proofs remembered at once, about 100 bytes each: for 90 seconds at 2,900 a second."""
NAME_BYTES: Final = 16
"""Of a proof's name; who looks for two proofs of one name has 2^64 to make, and gains a refusal."""

_PRIVATE_MEMBERS: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_TARGET: Final = re.compile(r"(https?)://([^/?#@\s\\]+)(/[^?#\s\\]*)?(?:[?#].*)?", re.IGNORECASE)
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds for the request, not yet looked up among those seen. `thumbprint` is its key's (RFC 7638)."""

    thumbprint: str
    identifier: str
    issued_at: float


class Replays(Protocol):
    """Remembers which proofs were used."""

    def remember(self, proof: Proof, now: float) -> None:
        """Note that `proof` was used at `now`. Raises `Refused` where it was before, or where there is no room left."""
        ...


def proof_name(proof: Proof) -> bytes:
    """What a proof is remembered by: its key and its `jti`, which need to be unique together only."""
    return hashlib.sha256(f"{proof.thumbprint}.{proof.identifier}".encode()).digest()[:NAME_BYTES]


class ReplayMemory:
    """Which proofs were seen. Proofs whose time is over are forgotten; `capacity` bounds the rest, and shares them."""

    __slots__ = ("_buckets", "_shares")

    def __init__(self, capacity: int = MAX_REMEMBERED) -> None:
        self._shares = KeyShares(memoryview(bytearray(SHARES_BYTES)), capacity, hash)
        self._buckets: dict[int, set[bytes]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def remember(self, proof: Proof, now: float) -> None:
        """Note that `proof` was used at `now`. Raises `Refused` where it was before, or where there is no room left."""
        self._forget(now)
        name = proof_name(proof)
        if any(name in bucket for bucket in self._buckets.values()):
            raise Refused(Reason.DPOP_REPLAYED, "the proof was used before")
        self._shares.take(proof.thumbprint, proof.issued_at, WINDOW_SECONDS, now)
        self._buckets.setdefault(int(proof.issued_at // BUCKET_SECONDS), set()).add(name)

    def _forget(self, now: float) -> None:
        oldest = int((now - WINDOW_SECONDS) // BUCKET_SECONDS)
        for bucket in [number for number in self._buckets if number < oldest]:
            del self._buckets[bucket]


def verify_proof(request: RequestAttributes, token: str, bound_to: str, now: float) -> Proof:
    """The request's proof for the access token `token`, by the key that the token is bound to. Raises `Refused`.

    `bound_to` is that key's thumbprint. The signature comes last, because it costs more than all the rest and whoever
    sends the proof chooses its key. Not verified here: that the proof was not used before.
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
    """The three parts of the one proof. Raises `Refused`."""
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
    """Algorithm and JWK, of which nothing is known but that it shows no private member."""
    kind, algorithm, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
    if not isinstance(kind, str) or token_type(kind) != TYPE:
        raise Refused(Reason.DPOP_INVALID, f"`typ` is not `{TYPE}`")
    if not isinstance(algorithm, str) or algorithm not in ASYMMETRIC:
        raise Refused(Reason.DPOP_INVALID, "`alg` is not an asymmetric algorithm that we accept")
    if "crit" in header or header.get("b64", True) is not True:
        raise Refused(Reason.DPOP_INVALID, "the header asks for an extension, and we know none")
    if not isinstance(jwk, dict) or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise Refused(Reason.DPOP_INVALID, "`jwk` is absent or not a public key")
    return algorithm, jwk


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    try:
        return key_thumbprint(jwk)
    except ValueError:
        raise Refused(Reason.DPOP_INVALID, "`jwk` is not a public key that we accept") from None


def _key(jwk: Mapping[str, Any], algorithm: str) -> Key:
    keys = read_jwks({"keys": [jwk]})[0].keys
    if not keys or algorithm not in keys[0].algorithms:
        raise Refused(Reason.DPOP_INVALID, "`jwk` is not a key for `alg` that we accept")
    return keys[0]


def _read_claims(claims: Mapping[str, Any]) -> tuple[str, float]:
    """`jti` and `iat`."""
    identifier, issued_at = claims.get("jti"), claims.get("iat")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= MAX_ID_CHARACTERS:
        raise Refused(Reason.DPOP_INVALID, f"`jti` is not a text of 1 to {MAX_ID_CHARACTERS} characters")
    if isinstance(issued_at, bool) or not isinstance(issued_at, (int, float)) or not 0 <= issued_at < MAX_TIME:
        raise Refused(Reason.DPOP_INVALID, "`iat` is not a time")
    return identifier, float(issued_at)


def _check_purpose(claims: Mapping[str, Any], request: RequestAttributes, token: str) -> None:
    """Raises `Refused` unless the proof was made for this method, this address and this token."""
    if claims.get("htm") != request.method:
        seen = quoted((claims.get("htm"),))
        raise Refused(Reason.DPOP_MISMATCH, f"`htm` is {seen}, and the request's method is {quoted((request.method,))}")
    target = claims.get("htu")
    if not isinstance(target, str) or len(request.path.partition("?")[0]) > 3 * len(target):
        # No spelling of one address is more than three times as long as another, and a long one takes long to read.
        raise Refused(Reason.DPOP_MISMATCH, "`htu` is not the request's address")
    asked = normal_target(f"{request.scheme}://{request.host}{request.path or '/'}")
    if asked is None or normal_target(target) != asked:
        seen = quoted((target.partition("?")[0],))  # a query may hold tokens
        raise Refused(Reason.DPOP_MISMATCH, f"`htu` is {seen}, and the request's address is {quoted((asked,))}")
    if claims.get("ath") != base64url_encode(hashlib.sha256(token.encode("ascii")).digest()):
        raise Refused(Reason.DPOP_MISMATCH, "`ath` is not the token's digest")


def normal_target(text: str) -> str | None:
    """An address without query and fragment, in one spelling (RFC 3986 section 6.2); None for what is none.

    Scheme and host in lower case, no default port, an empty path as `/`, `%7e` as `~`. Dot segments are left as they
    are, because not every server removes them.
    """
    found = _TARGET.fullmatch(text)
    if found is None or not text.isascii():
        return None
    scheme, host, path = found[1].lower(), found[2].lower(), found[3] or "/"
    host = host.removesuffix(_DEFAULT_PORTS[scheme]).removesuffix(":")
    return f"{scheme}://{host}{_ENCODED.sub(_normal_octet, path)}"


def _normal_octet(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()

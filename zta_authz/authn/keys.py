"""Parse a JWKS to an immutable key set, and choose the keys for a token (RFC 7517, RFC 7518, RFC 8037).

The token alone never chooses the algorithm. A key's type, curve, size and `alg` determine its algorithms, and it is
only tried for a token whose `alg` is one of them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from zta_authz.authn.encoding import base64url_decode, base64url_encode, json_object
from zta_authz.authn.rsa_bounds import rsa_weakness
from zta_authz.errors import Reason, Refused, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jwt.algorithms import Algorithm

MAX_JWKS_BYTES: Final = 1024 * 1024
SIGNING: Final = frozenset(("sig",))
MAX_KEYS: Final = 100
"""The maximum number of keys in a set. With Istio semantics, a token without `kid` may be tried with all of them."""
MIN_SECRET_BYTES: Final = 32

_RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_EC_ALGORITHMS: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_ED25519: Final = "EdDSA"
_ED25519_SIGNATURE_BYTES: Final = 64
_HMAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
ALGORITHMS: Final = frozenset((*_RSA_ALGORITHMS, *_EC_ALGORITHMS.values(), *_HMAC_BYTES, _ED25519))
"""All accepted values of `alg`, the same as Envoy's. `none` is never accepted."""

ASYMMETRIC: Final = ALGORITHMS - _HMAC_BYTES.keys()
_THUMBPRINT_MEMBERS: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}

_VERIFIERS: Final[Mapping[str, Algorithm]] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in ALGORITHMS
}
_NUMBERS: Final = ("n", "e", "x", "y")
_JWK_EXPONENTS: Final = (3, 65537)
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+\n-----END CERTIFICATE-----\n")
_PUBLIC_MEMBERS: Final = ("kty", "crv", *_NUMBERS)
_SINGLE_VALUES: Final = ("kid", "alg", "use")


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One verification key and its algorithms; `kid` is "" if it has none.

    `names_algorithm` is true if its JWK has an `alg`.
    """

    kid: str
    algorithms: frozenset[str]
    material: Any = field(repr=False)
    names_algorithm: bool = False

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether this key verifies `signature` over `message`; False if `algorithm` is not one of its `algorithms`."""
        if algorithm not in self.algorithms:
            return False
        return _VERIFIERS[algorithm].verify(message, self.material, signature)


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """The keys of one issuer. Compared by identity, because cached results of one set are not valid for another."""

    keys: tuple[Key, ...] = ()

    def _no_such_kid(self, kid: str) -> str:
        return f"`kid` is {quoted((kid,))}, and the issuer's keys have {quoted(key.kid for key in self.keys)}"

    def choose_strictly(self, algorithm: str, kid: str) -> tuple[Key, ...]:
        """Choose the keys named by `kid` or, without one, the only key that fits `algorithm`.

        Raises `Refused` if no key fits, or several fit without a `kid`.
        """
        if not self.keys:
            raise Refused(Reason.TOKEN_KEY_UNKNOWN, "there are no keys for the issuer yet")
        named = tuple(key for key in self.keys if key.kid == kid) if kid else self.keys
        if not named:
            raise Refused(Reason.TOKEN_KEY_UNKNOWN, self._no_such_kid(kid))
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if not fitting:
            raise Refused(Reason.TOKEN_ALGORITHM, _does_not_fit(algorithm, named))
        if not kid and len(fitting) > 1:
            raise Refused(Reason.TOKEN_KEY_UNKNOWN, f"no `kid`, and {len(fitting)} keys fit")
        return fitting

    def choose_as_envoy(self, algorithm: str, kid: str, signature_bytes: int) -> tuple[Key, ...]:
        """Choose the keys that jwt_authn tries: a `kid` excludes only keys with another `kid`.

        jwt_authn tries an Ed25519 key without `alg` for any algorithm, and stops there if the signature's length is not
        that of Ed25519 (measured with Envoy 1.40).
        """
        named = tuple(key for key in self.keys if not kid or not key.kid or key.kid == kid)
        if not named:
            raise Refused(Reason.TOKEN_KEY_UNKNOWN, self._no_such_kid(kid))
        if signature_bytes != _ED25519_SIGNATURE_BYTES:
            named = tuple(takewhile(lambda key: key.names_algorithm or _ED25519 not in key.algorithms, named))
        fitting = tuple(key for key in named if algorithm in key.algorithms)
        if not fitting:
            raise Refused(Reason.TOKEN_ALGORITHM, _does_not_fit(algorithm, named))
        return fitting


def _does_not_fit(algorithm: str, keys: tuple[Key, ...]) -> str:
    fitting = sorted({name for key in keys for name in key.algorithms})
    return f"`alg` is {quoted((algorithm,))}, and the issuer's key is for {quoted(fitting)}"


NO_KEYS: Final = KeySet()


def _ignore_unknown_key() -> None:
    """The default of `KeySlot.key_unknown`, for keys that are not fetched."""


class KeySlot:
    """Holds a rule's key set. The set is immutable; a fetch replaces the reference `current`.

    `fetched` keys come from `jwks_uri` or, if that is None, from the URI in the issuer's metadata; a fetch may take
    `timeout_seconds`. `key_unknown` is called on the request path when `current` lacks a token's key. The fetcher
    replaces it with a function that returns at once, never raises, and may be called from any thread.
    """

    __slots__ = ("current", "fetched", "issuer", "jwks_uri", "key_unknown", "timeout_seconds")

    def __init__(
        self,
        issuer: str,
        jwks_uri: str | None,
        current: KeySet = NO_KEYS,
        *,
        fetched: bool = False,
        timeout_seconds: float = 0.0,
    ) -> None:
        """Create the slot of `issuer` with `current` as its first keys."""
        self.issuer = issuer
        self.jwks_uri = jwks_uri
        self.current = current
        self.fetched = fetched
        self.timeout_seconds = timeout_seconds
        self.key_unknown: Callable[[], None] = _ignore_unknown_key


class _BadKey(Exception):
    pass


def parse_jwks(text: str, *, allow_private: bool = False) -> tuple[KeySet, tuple[str, ...]]:
    """Parse a JWKS document; return the usable keys and a description of each error.

    As in Envoy, an object without `keys` may map key IDs to certificates (PEM) of RSA keys. Only the key is used, even
    if the certificate has expired.
    Keys of a type, curve, use or algorithm that can't verify tokens here are ignored (RFC 7517 section 5). A key of a
    known type that is malformed, too short or (unless `allow_private`) private is an error.
    """
    if len(text) > MAX_JWKS_BYTES:
        return NO_KEYS, (f"the key set has more than {MAX_JWKS_BYTES // 1024} KiB",)
    try:
        document = json_object(text.encode("utf-8"))
    except ValueError as error:
        return NO_KEYS, (f"the key set is not a JWKS document: {error}",)
    if document and "keys" not in document and all(document) and all(map(_is_certificate, document.values())):
        return _read_certificates(document)
    keys, errors = read_jwks(document, allow_private=allow_private)
    if not keys.keys and not errors:
        errors = ("the key set has no key that can verify tokens",)
    return keys, errors


def _is_certificate(value: Any) -> bool:
    return isinstance(value, str) and _CERTIFICATE.fullmatch(value) is not None


def _read_certificates(document: Mapping[str, str]) -> tuple[KeySet, tuple[str, ...]]:
    """Read all certificates, or none if one is invalid, as Envoy does."""
    if len(document) > MAX_KEYS:
        return NO_KEYS, (f"the key set has {len(document)} certificates, more than {MAX_KEYS}",)
    keys: list[Key] = []
    errors: list[str] = []
    for number, (kid, pem) in enumerate(document.items(), 1):
        try:
            keys.append(Key(kid, _RSA_ALGORITHMS, _certified_key(pem)))
        except _BadKey as error:
            errors.append(f"certificate {number} of the key set {error}")
    return (NO_KEYS if errors else KeySet(tuple(keys))), tuple(errors)


def _certified_key(pem: str) -> RSAPublicKey:
    try:
        key = load_pem_x509_certificate(pem.encode("ascii")).public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise _BadKey("is not a valid certificate") from None
    if not isinstance(key, RSAPublicKey):
        raise _BadKey("is not of an RSA key, and Envoy accepts no other in a certificate")
    weakness = rsa_weakness(key.key_size, key.public_numbers().e)
    if weakness:
        raise _BadKey(f"is of {weakness}")
    return key


def read_jwks(
    document: Mapping[str, Any], *, allow_private: bool = False, uses: frozenset[str] = SIGNING
) -> tuple[KeySet, tuple[str, ...]]:
    """As `parse_jwks`, for parsed JSON, which may contain no usable key. `uses` are the accepted values of `use`."""
    entries = document.get("keys")
    if not isinstance(entries, (list, tuple)):
        return NO_KEYS, ("the key set has no list `keys`",)
    if len(entries) > MAX_KEYS:
        return NO_KEYS, (f"the key set has {len(entries)} keys, more than {MAX_KEYS}",)
    keys: list[Key] = []
    errors: list[str] = []
    for number, entry in enumerate(entries, 1):
        try:
            key = _read_key(entry, allow_private, uses)
        except _BadKey as error:
            errors.append(f"key {number} of the key set {error}")
        else:
            if key is not None:
                keys.append(key)
    return KeySet(tuple(keys)), tuple(errors)


def _read_key(entry: Any, allow_private: bool, uses: frozenset[str]) -> Key | None:
    if not isinstance(entry, Mapping):
        raise _BadKey("is not an object")
    for name in _SINGLE_VALUES:
        if not isinstance(entry.get(name, ""), str):
            raise _BadKey(f"has a `{name}` that is not a string")
    kty = entry.get("kty")
    if not isinstance(kty, str):
        raise _BadKey("has no `kty`")
    if entry.get("use", "sig") not in uses or not _may_verify(entry.get("key_ops")):
        return None
    if kty in ("RSA", "EC", "OKP") and "d" in entry and not allow_private:
        raise _BadKey("is a private key, which does not belong in a policy")
    fitting = _fitting_algorithms(kty, entry)
    algorithm = entry.get("alg", "")
    algorithms = fitting & {algorithm} if algorithm else fitting
    if not algorithms:
        return None
    return Key(entry.get("kid", ""), algorithms, _material(kty, entry), bool(algorithm))


def key_thumbprint(jwk: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint of a public key in base64url (RFC 7638; for OKP RFC 8037 section 2).

    Does not check that the members form a valid key. Raises ValueError unless all are present as strings.
    """
    kty = jwk.get("kty")
    members = {name: jwk.get(name) for name in _THUMBPRINT_MEMBERS.get(kty if isinstance(kty, str) else "", ())}
    if not members or not all(isinstance(value, str) for value in members.values()):
        raise ValueError("not a public key")
    canonical = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    return base64url_encode(hashlib.sha256(canonical.encode()).digest())


def _may_verify(operations: Any) -> bool:
    if operations is None:
        return True
    if not isinstance(operations, (list, tuple)):
        raise _BadKey("has `key_ops` that is not a list")
    return "verify" in operations


def _fitting_algorithms(kty: str, entry: Mapping[str, Any]) -> frozenset[str]:
    if kty == "RSA":
        return _RSA_ALGORITHMS
    if kty == "EC":
        algorithm = _EC_ALGORITHMS.get(str(entry.get("crv")))
        return frozenset((algorithm,)) if algorithm else frozenset()
    if kty == "OKP":
        return frozenset((_ED25519,)) if entry.get("crv") == "Ed25519" else frozenset()
    if kty == "oct":
        size = len(_secret(entry))
        if size < MIN_SECRET_BYTES:
            raise _BadKey(f"is a secret of {size} bytes, fewer than {MIN_SECRET_BYTES} (RFC 7518 section 3.2)")
        return frozenset(name for name, least in _HMAC_BYTES.items() if size >= least)
    return frozenset()


def _secret(entry: Mapping[str, Any]) -> bytes:
    value = entry.get("k")
    try:
        return base64url_decode(value if isinstance(value, str) else "?", canonical=False)
    except ValueError:
        raise _BadKey("has a `k` that is not base64url") from None


def _material(kty: str, entry: Mapping[str, Any]) -> Any:
    if kty == "oct":
        return _secret(entry)
    public = {name: entry[name] for name in _PUBLIC_MEMBERS if name in entry}
    try:
        # the library ignores invalid characters
        numbers = {name: base64url_decode(public.get(name, ""), canonical=False) for name in _NUMBERS}
        if kty == "RSA":
            _check_rsa(numbers)  # first, because building a key from an unlimited number may take long
            return RSAAlgorithm.from_jwk(public)
        return ECAlgorithm.from_jwk(public) if kty == "EC" else OKPAlgorithm.from_jwk(public)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        raise _BadKey(f"is not a valid {kty} key") from None


def _check_rsa(numbers: Mapping[str, bytes]) -> None:
    if not numbers["n"] or not numbers["e"]:
        raise ValueError("a number is missing")
    modulus, exponent = (int.from_bytes(numbers[name], "big") for name in ("n", "e"))
    weakness = rsa_weakness(modulus.bit_length(), exponent)
    if weakness:
        raise _BadKey(f"is {weakness}")
    if exponent not in _JWK_EXPONENTS:
        raise _BadKey("is an RSA key whose exponent is neither 3 nor 65537, and Envoy accepts no other")

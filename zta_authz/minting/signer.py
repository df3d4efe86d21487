"""Signing keys, and the signature of a JWT in the compact form (RFC 7515, RFC 7518 section 3.4, RFC 8037).

PyJWT would need twice as long as the signature itself, so `cryptography` is used directly.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from zta_authz.authn.keys import key_thumbprint

if TYPE_CHECKING:
    from collections.abc import Mapping

_ECDSA: Final = ECDSA(SHA256())
_COORDINATE_BYTES: Final = 32
_PUBLIC: Final = ("kty", "crv", "x", "y")
_WRONG_KIND: Final = "is neither a P-256 nor an Ed25519 key"


class SigningKey:
    """A private key with its algorithm, `ES256` or `EdDSA`. Its ID is the thumbprint of RFC 7638.

    `jwk` is the public key with `kid`, `alg` and `use`.
    """

    __slots__ = ("_curve_key", "_edwards_key", "_heads", "algorithm", "jwk", "key_id")

    def __init__(self, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
        """Prepare `key`. Raises ValueError for another curve than P-256."""
        self._curve_key: EllipticCurvePrivateKey | None = None
        self._edwards_key: Ed25519PrivateKey | None = None
        public: dict[str, Any]
        if isinstance(key, Ed25519PrivateKey):
            self._edwards_key, self.algorithm = key, "EdDSA"
            public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        elif isinstance(key.curve, SECP256R1):
            self._curve_key, self.algorithm = key, "ES256"
            public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        else:
            raise ValueError(_WRONG_KIND)
        public = {name: public[name] for name in _PUBLIC if name in public}
        self.key_id: Final = key_thumbprint(public)
        self.jwk: Final[Mapping[str, str]] = {**public, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}
        self._heads: dict[str, bytes] = {}

    def sign(self, token_type: str, claims: Mapping[str, Any]) -> str:
        """Return a signed JWT. Raises ValueError for claims that can't be JSON."""
        head = self._heads.get(token_type)
        if head is None:
            header = {"alg": self.algorithm, "kid": self.key_id, "typ": token_type}
            head = self._heads[token_type] = _base64url(msgspec.json.encode(header))
        try:
            payload = msgspec.json.encode(claims)
        except (UnicodeEncodeError, TypeError) as error:
            raise ValueError("the claims can't be written as JSON") from error
        message = head + b"." + _base64url(payload)
        return (message + b"." + _base64url(self._signature(message))).decode("ascii")

    def _signature(self, message: bytes) -> bytes:
        if self._edwards_key is not None:
            return self._edwards_key.sign(message)
        if self._curve_key is None:
            raise ValueError("no key")
        r, s = decode_dss_signature(self._curve_key.sign(message, _ECDSA))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")


def read_signing_key(pem: bytes) -> SigningKey:
    """Read an unencrypted private key in PEM (PKCS #8 or SEC 1).

    Raises ValueError with what is wrong; the text contains nothing of the key.
    """
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise ValueError("is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is not a private key in PEM") from None
    if not isinstance(key, (EllipticCurvePrivateKey, Ed25519PrivateKey)):
        raise ValueError(_WRONG_KIND)
    return SigningKey(key)


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")

"""Any JWKS text gives keys that can be used, or words that say what is wrong, and never an exception or a weak key.

A key that is taken says which algorithms it may be used with, none of them `none`, and answers to any signature; in
strict reading no private key is taken.
"""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.fuzz import material
from tests.fuzz.target import Target, text_of
from tests.support.pki import b64
from zta_authz.authn.bundle_formats import read_spiffe_text
from zta_authz.authn.keys import ALGORITHMS, Key, KeySet, parse_jwks
from zta_authz.model.spiffe import TrustDomain

INVARIANT = "any text gives usable keys of sufficient strength, or says what is wrong with it"
_FAMILIES = {
    "RS": rsa.RSAPublicKey,
    "PS": rsa.RSAPublicKey,
    "ES": ec.EllipticCurvePublicKey,
    "Ed": ed25519.Ed25519PublicKey,
}
_SIGNATURES = (b"", b"\x00" * 64, b"\xff" * 256)


def check(data: bytes) -> None:
    """Read the text as a JWKS in both readings, and as a SPIFFE bundle."""
    text = text_of(data)
    strict, wrong = parse_jwks(text)
    assert strict.keys or wrong
    assert all(wrong)
    lenient, _ = parse_jwks(text, allow_private=True)
    bundle, faults = read_spiffe_text(TrustDomain("cluster.local"), data)
    assert all(fault.message for fault in faults)
    for keys in (strict, lenient, bundle.authorities.jwt_keys):
        _assert_usable(keys)
    if strict.keys and not wrong:
        entries = json.loads(text)["keys"]
        assert all(entry.get("kty") == "oct" or "d" not in entry for entry in entries if _is_ours(entry))


def _is_ours(entry: dict[str, object]) -> bool:
    """Whether a key was looked at: those for other uses are passed over."""
    return entry.get("kty") in ("RSA", "EC", "OKP") and entry.get("use", "sig") == "sig" and "key_ops" not in entry


def _assert_usable(keys: KeySet) -> None:
    for key in keys.keys:
        assert key.algorithms
        assert key.algorithms <= ALGORITHMS
        for algorithm in key.algorithms:
            _assert_strong(key, algorithm)
            for signature in _SIGNATURES:
                assert not key.verifies(algorithm, b"message", signature)


def _assert_strong(key: Key, algorithm: str) -> None:
    if algorithm.startswith("HS"):
        assert len(key.material) * 8 >= int(algorithm[2:])
        return
    assert isinstance(key.material, _FAMILIES[algorithm[:2]])
    if isinstance(key.material, rsa.RSAPublicKey):
        assert 2048 <= key.material.key_size <= 8192
    if isinstance(key.material, ec.EllipticCurvePublicKey):
        assert {"ES256": 256, "ES384": 384, "ES512": 521}[algorithm] == key.material.curve.key_size


def seeds() -> dict[str, bytes]:
    """Keys of every type, sound and not. The RSA modulus is no product of two primes that anybody knows."""
    modulus = b64(b"\xc5" + b"\x5a" * 254 + b"\x0b")
    point = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()
    curve = {"kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
    documents: dict[str, object] = {
        "ed25519": [material.public_jwk("issuer", kid="k1", use="sig", alg="EdDSA")],
        "rsa": [{"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "r"}],
        "rsa-even-exponent": [{"kty": "RSA", "n": modulus, "e": "AA"}],
        "rsa-huge": [{"kty": "RSA", "n": b64(b"\xff" * 6000), "e": "AQAB"}],
        "rsa-exponent": [{"kty": "RSA", "n": modulus, "e": modulus}],
        "ec": [curve | {"kid": "e", "key_ops": ["verify"]}],
        "ec-off-curve": [curve | {"y": _number(point.y ^ 1, 32)}],
        "ec-wrong-curve": [curve | {"crv": "P-384"}],
        "ec-private": [curve | {"d": "AAAA"}],
        "oct": [{"kty": "oct", "k": b64(b"k" * 64)}],
        "oct-short": [{"kty": "oct", "k": "AAAA"}],
        "other": [{"kty": "OKP", "crv": "X25519", "x": "AAAA"}, {"kty": "x"}, 7, None, [], {"kty": ["RSA"]}],
        "svid": [material.public_jwk("issuer", kid="k1", use="jwt-svid")],
        "many": [material.public_jwk("issuer", kid=str(n)) for n in range(101)],
    }
    texts = {name: json.dumps({"keys": keys}).encode() for name, keys in documents.items()}
    return texts | {
        "empty": b"",
        "array": b"[]",
        "deep": b'{"keys":' + b"[" * 3000,
        "digits": b'{"keys":' + b"9" * 5000 + b"}",
    }


def _number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


WORDS = (
    b'"keys"', b'"kty"', b'"RSA"', b'"EC"', b'"OKP"', b'"oct"', b'"crv"', b'"P-256"', b'"P-384"', b'"P-521"', b'"Ed25519"',
    b'"Ed448"', b'"secp256k1"', b'"n"', b'"e"', b'"x"', b'"y"', b'"k"', b'"d"', b'"kid"', b'"use"', b'"sig"', b'"enc"', b'"alg"',
    b'"RS256"', b'"ES256"', b'"HS256"', b'"EdDSA"', b'"none"', b'"key_ops"', b'["verify"]', b'"x5c"', b'"x509-svid"',
    b'"jwt-svid"', b'"spiffe_sequence"', b"AQAB", b"AAAA", b"null", b"[]", b"{}", b"=", b"-", b"\\ud800", b"1e400",
)  # fmt: skip

TARGET = Target("jwks", INVARIANT, check, seeds, WORDS)

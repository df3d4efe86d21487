"""Signatures of minted tokens, verified by another library; and keys that are refused."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from tests.support.minting import key_pem, signing_key
from tests.support.pki import private_key
from zta_authz.authn.keys import key_thumbprint, parse_jwks
from zta_authz.minting.signer import SigningKey, read_signing_key

CLAIMS = {"iss": "https://zta.example", "sub": "Zo\u00eb", "aud": "orders", "exp": 4_000_000_000}


@pytest.mark.parametrize(("kind", "algorithm"), [("P-256", "ES256"), ("Ed25519", "EdDSA")])
def test_other_libraries_verify_the_signature(kind: str, algorithm: str) -> None:
    key = signing_key(kind)
    for _ in range(20):  # r and s are padded to 32 bytes each
        token = key.sign("JWT", CLAIMS)
        assert jwt.decode(token, jwt.PyJWK(dict(key.jwk)), [algorithm], audience="orders") == CLAIMS
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": key.key_id, "typ": "JWT"}


@pytest.mark.parametrize("kind", ["P-256", "Ed25519"])
def test_the_published_key_is_public_and_named_by_its_thumbprint(kind: str) -> None:
    key = signing_key(kind)
    assert "d" not in key.jwk
    assert key.key_id == key_thumbprint(key.jwk)
    keys, errors = parse_jwks(json.dumps({"keys": [dict(key.jwk)]}))
    assert (errors, [known.kid for known in keys.keys]) == ((), [key.key_id])


@pytest.mark.parametrize(
    ("pem", "fault"),
    [
        (key_pem("RSA-2048"), "is neither a P-256 nor an Ed25519 key"),
        (key_pem("P-384"), "is neither a P-256 nor an Ed25519 key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
        (b"", "is not a private key in PEM"),
    ],
)
def test_other_keys_are_refused(pem: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_signing_key(pem)


def test_an_encrypted_key_is_refused() -> None:
    encrypted = private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(ValueError, match="is encrypted"):
        read_signing_key(encrypted)


@pytest.mark.parametrize("claims", [{"s": "\ud800"}, {"o": object()}])
def test_claims_that_are_not_json_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        signing_key().sign("JWT", claims)


def test_a_signing_key_does_not_show_its_secret() -> None:
    key = signing_key()
    assert isinstance(key, SigningKey)
    assert "private" not in f"{key!r} {key.jwk}".lower()

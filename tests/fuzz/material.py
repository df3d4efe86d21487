"""Keys, tokens and certificates to spoil, the same bytes in every process: a kept input means the same tomorrow.

The keys are made from the words below and protect nothing; Ed25519 signatures have no random part.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support.pki import BOTH_SIDES, CERTIFIES, FRONTEND, SIGNS, b64, name, pem

ISSUER = "https://issuer.example"
AUDIENCE = "hatshop"
BEGIN = 1_577_836_800  # 2020-01-01
END = 4_102_444_800  # 2100-01-01: what was made here is in force whenever it is played
HEADER = {"alg": "EdDSA", "typ": "JWT", "kid": "k1"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "iat": BEGIN, "exp": END, "groups": ["read", "admin"], "scope": "a b",
}  # fmt: skip
ORDERS = "spiffe://cluster.local/ns/default/sa/orders"


@functools.cache
def key(word: str) -> ed25519.Ed25519PrivateKey:
    """The key that `word` stands for."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"fuzz {word}".encode()).digest())


def public_jwk(word: str, **members: str) -> dict[str, str]:
    """The public half of `key(word)`."""
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key(word).public_key().public_bytes_raw()), **members}


def thumbprint(word: str) -> str:
    """The SHA-256 thumbprint of `key(word)` (RFC 7638)."""
    jwk = public_jwk(word)
    members = json.dumps({member: jwk[member] for member in ("crv", "kty", "x")}, separators=(",", ":"))
    return b64(hashlib.sha256(members.encode()).digest())


def jwks() -> str:
    """The issuer's key set."""
    return json.dumps({"keys": [public_jwk("issuer", kid="k1", use="sig")]})


def signed(header: bytes, payload: bytes, word: str = "issuer") -> str:
    """The token of these very bytes."""
    message = f"{b64(header)}.{b64(payload)}"
    return f"{message}.{b64(key(word).sign(message.encode()))}"


def token(**changed: Any) -> str:
    """A sound token, or one with the claims in `changed` (None takes one away)."""
    claims = {claim: value for claim, value in (CLAIMS | changed).items() if value is not None}
    return signed(json.dumps(HEADER).encode(), json.dumps(claims).encode())


def bound_token() -> str:
    """A sound token of whoever holds the key `holder`."""
    return token(cnf={"jkt": thumbprint("holder")})


def _certificate(number: int, subject: str, above: str, uri: str = "") -> x509.Certificate:
    """An SVID where there is a `uri`, else a CA; keys are named as their owners are."""
    owner = key(subject or uri)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(above))
        .public_key(owner.public_key())
        .serial_number(number)
        .not_valid_before(datetime.datetime.fromtimestamp(BEGIN, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(END, datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=not uri, path_length=None), critical=True)
        .add_extension(SIGNS if uri else CERTIFIES, critical=True)
    )
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=True).add_extension(BOTH_SIDES, critical=False)
    return builder.sign(key(above), None)


@functools.cache
def authority() -> x509.Certificate:
    """The root of trust domain `cluster.local`."""
    return _certificate(1, "root", "root")


@functools.cache
def intermediate() -> x509.Certificate:
    """A CA under `authority`, in no bundle."""
    return _certificate(2, "intermediate", "root")


@functools.cache
def frontend() -> x509.Certificate:
    """The frontend's SVID, of the root."""
    return _certificate(3, "", "root", FRONTEND)


@functools.cache
def orders() -> x509.Certificate:
    """The SVID of orders, of the intermediate."""
    return _certificate(4, "", "intermediate", ORDERS)


@functools.cache
def stranger() -> x509.Certificate:
    """A certificate of the frontend's name from a CA that nobody trusts."""
    return _certificate(5, "", "stranger", FRONTEND)


def trust_bundle() -> str:
    """The authorities of `cluster.local`, in PEM."""
    return pem(authority())

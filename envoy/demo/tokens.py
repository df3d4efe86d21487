"""JSON Web Tokens for the demo and the tests: valid ones, and each kind of invalid one."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://login.hatshop.example"
AUDIENCE = "hatshop"
SUBJECT = "alice"
LIFE_SECONDS = 24 * 3600
DEVELOPERS = ("dana", "dora", "drew", "dylan")
_STAFF: dict[str, Any] = {"sub": "bob", "acr": "phr", "amr": ["hwk", "pin"]}
"""A login with a security key that resists phishing."""


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Issuer:
    """An ES256 signing key that stays in memory."""

    key_id: str = "demo-1"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=_new_key, repr=False)

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
        key = algorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self.key_id, "use": "sig", "alg": "ES256"}]}

    def token(self, **changes: Any) -> str:
        """Return a token that is valid for a day. `changes` replace or add claims."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + LIFE_SECONDS, **changes}
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.key_id})


def _segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def unsigned_token(key_id: str) -> str:
    """Return a token with `alg: none` and an empty signature."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + LIFE_SECONDS}
    return f"{_segment({'alg': 'none', 'typ': 'JWT', 'kid': key_id})}.{_segment(claims)}."


def demo_tokens(issuer: Issuer) -> dict[str, str]:
    """Return all tokens of the demo by name. `forged` has the right key id but is signed with another key."""
    forger = Issuer(key_id=issuer.key_id)
    now = int(time.time())
    return {
        "valid": issuer.token(),
        "expired": issuer.token(iat=now - 7200, exp=now - 3600),
        "forged": forger.token(),
        "wrong-audience": issuer.token(aud="another-shop"),
        "unsigned": unsigned_token(issuer.key_id),
        "old-login": issuer.token(**_STAFF, auth_time=now - 3600),
        "fresh-login": issuer.token(**_STAFF, auth_time=now),
        **{name: issuer.token(sub=name, groups=["developers"]) for name in DEVELOPERS},
        "manager": issuer.token(sub="maria", groups=["managers"]),
    }

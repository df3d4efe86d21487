"""Signing keys, rules that order tokens, and allowed requests, for tests of minted tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.pki import NOW, private_key
from zta_authz.errors import Reason
from zta_authz.minting.key_states import KeyRing, ScheduledKey
from zta_authz.minting.signer import SigningKey, read_signing_key
from zta_authz.model.decision import Decision, Response, Verdict
from zta_authz.model.identity import CertificateNames, Identity, Peer, PeerTrust, Token
from zta_authz.model.minting import MintTerms, TokenKind
from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.decision import AccessBasis, DecisionFacts

ISSUER = "https://zta.example"
FRONTEND = "spiffe://cluster.local/ns/shop/sa/frontend"
DECISION_ID = "0123456789abcdef0123456789abcdef"


def key_pem(kind: str = "P-256", number: int = 0) -> bytes:
    """A private key in PEM."""
    return private_key(kind, number).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signing_key(kind: str = "P-256", number: int = 0) -> SigningKey:
    """A signing key; another `number` is another key."""
    return read_signing_key(key_pem(kind, number))


KEY = signing_key()


def ring(key: SigningKey = KEY) -> KeyRing:
    """A ring whose only key always signs."""
    return KeyRing([ScheduledKey(key)])


def user(subject: str = "ann", **claims: Any) -> Token:
    """A verified token that expires in an hour."""
    whole = {"iss": "https://idp.example", "sub": subject, "exp": NOW + 3600} | claims
    return Token("https://idp.example", subject, whole)


def workload(spiffe_id: str = FRONTEND) -> Peer:
    """A verified peer."""
    certificate = CertificateNames((spiffe_id,), "CN=root", 1)
    return Peer((spiffe_id,), SpiffeId.parse(spiffe_id), PeerTrust.CERTIFICATE, b"x", certificate)


def terms(kind: TokenKind = TokenKind.SESSION, **changed: Any) -> MintTerms:
    """What a rule orders."""
    values: dict[str, Any] = {"audience": "orders", "header": "x-zta-token", "kind": kind}
    return MintTerms(**(values | changed))


def allowed(
    identity: Identity,
    order: MintTerms,
    *,
    facts: DecisionFacts | None = None,
    access: AccessBasis | None = None,
) -> Decision:
    """An allow whose rule orders a token."""
    response = Response((), (order.header,), 0, "", order)
    return Decision(
        Verdict.ALLOW, Reason.ALLOW_POLICY, "shop/orders", 0, identity, response=response, facts=facts, access=access
    )


def verified(token: str, key: SigningKey = KEY, audience: str = "orders", now: float = NOW) -> Mapping[str, Any]:
    """The claims of `token`, verified with the published key by another library at `now`."""
    header = jwt.get_unverified_header(token)
    assert header["kid"] == key.key_id
    algorithms = [key.algorithm]
    options = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = jwt.decode(token, jwt.PyJWK(dict(key.jwk)), algorithms, options, audience=audience)  # type: ignore[arg-type]
    assert claims["iat"] <= now < claims["exp"]
    return claims

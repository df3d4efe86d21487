"""Whatever callers, tokens and orders there are: a minted token verifies, is for its audience only, and ends in time."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings, strategies as st

from tests.support.check_requests import DECISION_ID, attributes
from tests.support.minting import ISSUER, KEY, allowed, ring, verified, workload
from tests.support.pki import NOW
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import Reason
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.minting.minter import MAX_TOKEN_CHARACTERS, Minter
from zta_authz.model.identity import ApiClient, Identity, Token
from zta_authz.model.minting import MAX_LIFETIME, RESERVED_CLAIMS, ClaimSource, MintTerms, TokenKind

TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["groups", "tenant", "act", "sid", "sub", "iss", "aud", "exp", "\ud800"])
CLAIMS = st.dictionaries(NAMES, JSON, max_size=6)
SOURCES = st.lists(
    st.builds(ClaimSource, st.sampled_from(["a", "b"]), st.none() | TEXTS, st.lists(NAMES, max_size=2).map(tuple)),
    max_size=3,
).map(tuple)
ORDERS = st.builds(
    MintTerms,
    st.sampled_from(["orders", "https://payments/", "\u00e9"]),
    st.just("x-zta-token"),
    st.sampled_from(TokenKind),
    st.floats(5, MAX_LIFETIME),
    st.sampled_from(["", "a b"]),
    SOURCES,
)


@st.composite
def callers(draw: st.DrawFn) -> Identity:
    """A caller with or without a token, a certificate and an API key."""
    token = None
    if draw(st.booleans()):
        subject, issuer = draw(TEXTS), draw(TEXTS)
        end = {"exp": draw(st.floats(NOW - 30, NOW + 1000))} if draw(st.booleans()) else {}
        claims: dict[str, Any] = draw(CLAIMS) | {"iss": issuer, "sub": subject} | end
        if not end:
            claims.pop("exp", None)
        token = Token(issuer, subject, claims)
    peer = workload() if draw(st.booleans()) else None
    client = ApiClient(draw(TEXTS)) if draw(st.booleans()) else None
    return Identity(peer, token, () if token is None else (token,), api_client=client)


@settings(max_examples=150, deadline=None)
@given(callers(), ORDERS, st.floats(NOW, NOW + 0.999))
def test_a_minted_token_verifies_and_says_only_what_it_may(caller: Identity, order: MintTerms, now: float) -> None:
    allow = allowed(caller, order)
    decision = Minter(ISSUER, ring()).mint(allow, DECISION_ID, now)
    if decision.minted is None:
        assert decision is allow or decision.reason is Reason.MINTING_UNAVAILABLE
        return
    token = decision.minted.token
    assert len(token) <= MAX_TOKEN_CHARACTERS
    claims = verified(token, KEY, order.audience, now)
    assert (claims["iss"], claims["aud"], claims["jti"]) == (ISSUER, order.audience, DECISION_ID)
    until = math.inf if caller.token is None else caller.token.claims.get("exp", math.inf)
    assert claims["exp"] <= max(min(now + order.lifetime, until), int(now) + 1)
    assert claims["sub"] == (
        caller.token.subject if caller.token else caller.principal or (caller.api_client and caller.api_client.name)
    )
    assert claims.keys() <= RESERVED_CLAIMS | {source.name for source in order.claims}
    message = CheckResponse.FromString(ResponseEncoder().encode(decision, DECISION_ID, attributes()))
    sent = [option.header.value for option in message.ok_response.headers if option.header.key == "x-zta-token"]
    assert sent == [token]
    assert "x-zta-token" not in message.ok_response.headers_to_remove

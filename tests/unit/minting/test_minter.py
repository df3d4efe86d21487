"""Minting: which token an allow carries, when one is reused, and when the allow becomes a denial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from tests.support.minting import DECISION_ID, ISSUER, KEY, allowed, ring, signing_key, terms, user, verified, workload
from tests.support.pki import NOW
from zta_authz.errors import Reason
from zta_authz.minting.key_states import KeyRing, ScheduledKey
from zta_authz.minting.minter import MAX_TOKEN_CHARACTERS, REUSE_SECONDS, Minter
from zta_authz.model.decision import NO_RESPONSE, DecisionFacts, Verdict
from zta_authz.model.identity import ANONYMOUS, ApiClient, Identity
from zta_authz.model.minting import ClaimSource, TokenKind

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision

ANN = Identity(workload(), user())
ORDER = terms()


def minter(keys: KeyRing | None = None) -> Minter:
    return Minter(ISSUER, ring() if keys is None else keys)


def token_of(decision: Decision) -> str:
    assert decision.allowed
    assert decision.minted is not None
    assert decision.minted.header == "x-zta-token"
    assert decision.minted.token not in repr(decision)
    return decision.minted.token


def test_an_allow_carries_a_token_for_the_audience_and_is_described_without_it() -> None:
    allow = allowed(ANN, ORDER)
    decision = minter().mint(allow, DECISION_ID, NOW)
    claims = verified(token_of(decision))
    assert (claims["iss"], claims["sub"], claims["aud"], claims["jti"]) == (ISSUER, "ann", "orders", DECISION_ID)
    assert decision.response is allow.response
    assert decision.minted is not None
    assert (decision.minted.token_id, decision.minted.key_id) == (DECISION_ID, KEY.key_id)
    assert (decision.minted.audience, decision.minted.expires) == ("orders", claims["exp"])


def test_a_session_token_is_reused_for_half_of_its_life_but_a_transaction_token_never() -> None:
    subject = minter()
    first = subject.mint(allowed(ANN, ORDER), DECISION_ID, NOW)
    again = subject.mint(allowed(ANN, ORDER), "f" * 32, NOW + REUSE_SECONDS - 1)
    assert again.minted is first.minted
    assert token_of(subject.mint(allowed(ANN, ORDER), "f" * 32, NOW + REUSE_SECONDS)) != token_of(first)
    brief = terms(lifetime=10.0)
    held = subject.mint(allowed(ANN, brief), DECISION_ID, NOW)
    assert subject.mint(allowed(ANN, brief), "f" * 32, NOW + 4).minted is held.minted
    assert subject.mint(allowed(ANN, brief), "f" * 32, NOW + 6).minted is not held.minted
    once = terms(TokenKind.TRANSACTION, scope="orders.read")
    assert (
        subject.mint(allowed(ANN, once), "a" * 32, NOW).minted != subject.mint(allowed(ANN, once), "b" * 32, NOW).minted
    )


@pytest.mark.parametrize(
    ("other", "order", "more"),
    [
        (Identity(workload(), user("bob")), ORDER, {}),
        (Identity(workload("spiffe://cluster.local/ns/shop/sa/other"), ANN.token), ORDER, {}),
        (Identity(workload(), user()), ORDER, {}),  # an equal token, verified again
        (Identity(ANN.peer, ANN.token, api_client=ApiClient("batch")), ORDER, {}),
        (Identity(ANN.peer), ORDER, {}),
        (ANN, terms(audience="payments"), {}),
        (ANN, ORDER, {"facts": DecisionFacts(session_expires=int(NOW + 20))}),
    ],
)
def test_a_token_is_never_reused_for_another_caller_rule_or_end(
    other: Identity, order: Any, more: dict[str, Any]
) -> None:
    subject = minter()
    first = subject.mint(allowed(ANN, ORDER), DECISION_ID, NOW)
    second = subject.mint(allowed(other, order, **more), "f" * 32, NOW + 1)
    assert second.minted is not None
    assert second.minted.token_id == "f" * 32
    assert token_of(first) != token_of(second)


def test_a_new_key_signs_at_once_and_a_removed_one_never_again() -> None:
    subject = minter()
    subject.mint(allowed(ANN, ORDER), DECISION_ID, NOW)
    other = signing_key("Ed25519")
    subject.ring = ring(other)
    assert verified(token_of(subject.mint(allowed(ANN, ORDER), "f" * 32, NOW + 1)), other, now=NOW + 1)["sub"] == "ann"
    subject.ring = KeyRing()
    assert subject.mint(allowed(ANN, ORDER), "f" * 32, NOW + 2).reason is Reason.MINTING_UNAVAILABLE


@pytest.mark.parametrize(
    ("identity", "order", "keys"),
    [
        (ANN, ORDER, KeyRing()),
        (ANN, ORDER, KeyRing([ScheduledKey(KEY, NOW + 1)])),
        (ANN, ORDER, KeyRing([ScheduledKey(KEY, sign_until=NOW)])),
        (Identity(None, user("a" * MAX_TOKEN_CHARACTERS)), ORDER, ring()),
        (Identity(None, user(n="\ud800")), terms(claims=(ClaimSource("n", None, ("n",)),)), ring()),
        (ANONYMOUS, ORDER, KeyRing()),
    ],
)
def test_an_allow_that_can_not_carry_its_token_is_a_denial(identity: Identity, order: Any, keys: KeyRing) -> None:
    decision = minter(keys).mint(allowed(identity, order), DECISION_ID, NOW)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.MINTING_UNAVAILABLE)
    assert decision.detail
    assert (decision.response, decision.minted, decision.identity) == (NO_RESPONSE, None, identity)


def test_an_anonymous_caller_gets_no_token_and_the_header_stays_to_be_removed() -> None:
    allow = allowed(ANONYMOUS, ORDER)
    assert minter().mint(allow, DECISION_ID, NOW) is allow
    assert allow.response.remove_headers == ("x-zta-token",)


def test_an_allow_without_an_order_is_left_alone() -> None:
    allow = structs.replace(allowed(ANN, ORDER), response=NO_RESPONSE)
    assert minter().mint(allow, DECISION_ID, NOW) is allow


def test_a_clock_that_goes_back_gets_no_token_from_the_future() -> None:
    subject = minter()
    subject.mint(allowed(ANN, ORDER), DECISION_ID, NOW)
    assert verified(token_of(subject.mint(allowed(ANN, ORDER), "f" * 32, NOW - 100)), now=NOW - 100)["iat"] == int(
        NOW - 100
    )

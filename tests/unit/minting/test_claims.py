"""The claims of minted tokens: who called, through whom, and until when."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from tests.support.minting import DECISION_ID, FRONTEND, ISSUER, allowed, terms, user, workload
from tests.support.pki import NOW
from zta_authz.minting.claims import claims_of, ends_at, terms_in_force
from zta_authz.model.access import Grant, Subject
from zta_authz.model.decision import AccessBasis, DecisionFacts
from zta_authz.model.identity import ANONYMOUS, ApiClient, Identity, Peer, PeerTrust, Token
from zta_authz.model.minting import ClaimSource, TokenKind

ANN = user()
DNS_PEER = Peer(("frontend.example",), None, PeerTrust.PROXY)


def minted(identity: Identity, until: float = inf, now: float = NOW, **changed: Any) -> dict[str, Any]:
    claims = claims_of(terms(**changed), identity, ISSUER, DECISION_ID, now, until)
    assert claims is not None
    return claims


def test_the_claims_of_an_end_user_name_the_workload_that_acts_for_them() -> None:
    assert minted(Identity(workload(), ANN, (ANN,)), now=NOW + 0.7) == {
        "iss": ISSUER,
        "sub": "ann",
        "sub_id": {"format": "iss_sub", "iss": "https://idp.example", "sub": "ann"},
        "act": {"sub": FRONTEND},
        "aud": "orders",
        "iat": int(NOW),
        "exp": int(NOW + 60.7),
        "jti": DECISION_ID,
    }


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (Identity(workload()), {"sub": FRONTEND, "sub_id": {"format": "uri", "uri": FRONTEND}}),
        (Identity(DNS_PEER), {"sub": "frontend.example", "sub_id": {"format": "opaque", "id": "frontend.example"}}),
        (Identity(api_client=ApiClient("batch")), {"sub": "batch", "sub_id": {"format": "opaque", "id": "batch"}}),
        (Identity(workload(), api_client=ApiClient("batch")), {"sub": FRONTEND, "client_id": "batch"}),
        (Identity(None, user(sid="s1")), {"sub": "ann", "sid": "s1"}),
        (Identity(workload(), user(FRONTEND)), {"sub": FRONTEND}),  # a JWT-SVID of the peer: nobody acts for it
    ],
)
def test_each_kind_of_caller_has_a_subject(identity: Identity, expected: dict[str, Any]) -> None:
    claims = minted(identity)
    assert expected.items() <= claims.items()
    assert ("act" in claims) is False


def test_equal_subjects_of_two_issuers_are_told_apart() -> None:
    other = Token("https://other.example", "ann", {"iss": "https://other.example", "sub": "ann"})
    assert minted(Identity(None, ANN))["sub_id"] != minted(Identity(None, other))["sub_id"]


@pytest.mark.parametrize("sid", [7, "", "s" * 257, ["s"]])
def test_a_session_id_that_is_none_is_left_out(sid: object) -> None:
    assert "sid" not in minted(Identity(None, user(sid=sid)))


@pytest.mark.parametrize("identity", [ANONYMOUS, Identity(workload(), Token("https://idp.example", "", {}))])
def test_a_caller_without_a_name_gets_no_token(identity: Identity) -> None:
    assert claims_of(terms(), identity, ISSUER, DECISION_ID, NOW) is None
    assert terms_in_force(allowed(identity, terms())) is None


def test_a_transaction_names_its_decision_and_the_workload() -> None:
    claims = minted(Identity(workload(), ANN), kind=TokenKind.TRANSACTION, scope="orders.refund")
    assert (claims["txn"], claims["req_wl"], claims["scope"]) == (DECISION_ID, FRONTEND, "orders.refund")
    assert "txn" not in minted(Identity(workload(), ANN))


def test_claims_are_copied_with_their_type_and_left_out_if_absent() -> None:
    sources = (
        ClaimSource("tenant", None, ("org", "tenant")),
        ClaimSource("groups", None, ("groups",)),
        ClaimSource("plan", "gold"),
        ClaimSource("none", None, ("nowhere", "deep")),
    )
    claims = minted(Identity(None, user(org={"tenant": 7}, groups=["a", "b"])), claims=sources)
    assert (claims["tenant"], claims["groups"], claims["plan"]) == (7, ["a", "b"], "gold")
    assert "none" not in claims
    assert "tenant" not in minted(Identity(workload()), claims=sources)


@pytest.mark.parametrize(
    ("until", "expected"),
    [(inf, NOW + 60), (NOW + 20.9, NOW + 20), (NOW, NOW + 1), (NOW - 25, NOW + 1)],
)
def test_a_token_never_outlives_what_it_rests_on_and_lives_a_second(until: float, expected: float) -> None:
    assert minted(Identity(None, ANN), until)["exp"] == int(expected)


def test_the_first_end_of_token_grant_and_trusted_session_counts() -> None:
    grant = Grant("g", "shop/refunds", Subject(), 0.0, NOW + 40)
    facts, access = DecisionFacts(session_expires=int(NOW + 30)), AccessBasis(grant)
    for identity, kept, basis, expected in (
        (Identity(None, user(exp=NOW + 50)), None, None, NOW + 50),
        (Identity(None, user(exp=NOW + 50)), None, access, NOW + 40),
        (Identity(None, user(exp=NOW + 50)), facts, access, NOW + 30),
        (Identity(None, user(exp=NOW + 10)), facts, access, NOW + 10),
        (Identity(workload()), None, AccessBasis(revocation="r"), inf),
    ):
        assert ends_at(allowed(identity, terms(), facts=kept, access=basis)) == expected


@pytest.mark.parametrize(
    ("peer", "before", "expected"),
    [
        (workload(), {"sub": "gateway"}, {"sub": FRONTEND, "act": {"sub": "gateway"}}),
        (None, {"sub": "gateway"}, {"sub": "gateway"}),
        (workload(), "gateway", {"sub": FRONTEND}),
        (None, None, None),
    ],
)
def test_those_who_acted_before_stay_in_the_chain(peer: Peer | None, before: object, expected: object) -> None:
    assert minted(Identity(peer, user(act=before))).get("act") == expected

"""Chains of exchanges: the application that a minted token is for gets one for the next application, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.minting import ISSUER, KEY, ring, signing_key, user, verified, workload
from tests.support.pki import NOW
from tests.support.stores import SqlitePlace
from tests.unit.administrator.minting.test_token_exchange import IDP, ORDERS, Desk, subject
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.errors import Reason
from zta_authz.minting.claims import claims_of
from zta_authz.minting.key_states import KeyRing, ScheduledKey
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.identity import Identity
from zta_authz.model.minting import MintTerms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.minting.signer import SigningKey

PAYMENTS = "spiffe://cluster.local/ns/shop/sa/payments"
GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"
RULES = f"""
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: chain, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-token}}}}
  rules:
  - from: [{{source: {{principals: ["{ORDERS.removeprefix("spiffe://")}"], requestPrincipals: ["{IDP}/ann"]}}}}]
    when: [{{key: "request.headers[zta-audience]", values: ["{PAYMENTS}"]}}]
    response: {{mint: {{audience: "{PAYMENTS}", lifetime: 5m}}}}
  - from: [{{source: {{principals: ["{PAYMENTS.removeprefix("spiffe://")}"], requestPrincipals: ["{IDP}/ann"]}}}}]
    when: [{{key: "request.headers[zta-audience]", values: [ledger.shop]}}]
    response: {{mint: {{audience: ledger.shop, lifetime: 5m}}}}
"""


def minted(key: SigningKey = KEY, audience: str = ORDERS, now: float = NOW, **changed: Any) -> str:
    """What a decision point gives the application `audience` with a request of ann."""
    ann = Identity(workload(GATEWAY), user("ann", iss=IDP, sid="s1"))
    claims = claims_of(MintTerms(audience, "x-zta-token"), ann, ISSUER, "d" * 32, now)
    assert claims is not None
    return key.sign("JWT", {name: value for name, value in (claims | changed).items() if value is not None})


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A desk at which two applications get tokens for the next one."""
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    yield Desk(store, RULES)
    await store.close()


async def test_a_chain_names_the_user_and_everybody_who_acted_and_ends_with_its_first_token(desk: Desk) -> None:
    first = await desk.ask(subject_token=minted(), audience=PAYMENTS)
    assert (first.status, first.fields["expires_in"]) == (200, 60), first.fields
    second = await desk.ask(PAYMENTS, subject_token=first.fields["access_token"], audience="ledger.shop")
    claims = verified(second.fields["access_token"], audience="ledger.shop")
    assert (claims["sub"], claims["sub_id"]["iss"], claims["sid"]) == ("ann", IDP, "s1")
    assert claims["act"] == {"sub": PAYMENTS, "act": {"sub": ORDERS, "act": {"sub": GATEWAY}}}
    assert claims["exp"] == int(NOW + 60)
    assert desk.sink.records[-1][1].identity.token is not None
    assert desk.sink.records[-1][1].identity.token.issuer == IDP


async def test_policies_decide_as_for_the_users_own_token(desk: Desk) -> None:
    assert (await desk.ask(subject_token=subject("ann"), audience=PAYMENTS)).status == 200
    for token in (subject("bob"), minted(sub="bob", sub_id={"format": "iss_sub", "iss": IDP, "sub": "bob"})):
        assert (await desk.ask(subject_token=token, audience=PAYMENTS)).fields["error"] == "invalid_target"


@pytest.mark.parametrize(
    ("token", "principal", "reason"),
    [
        (minted(audience=PAYMENTS), ORDERS, Reason.TOKEN_AUDIENCE),
        (minted(), "spiffe://cluster.local/ns/shop/sa/other", Reason.TOKEN_AUDIENCE),
        (minted(aud=[ORDERS, PAYMENTS]), ORDERS, Reason.TOKEN_AUDIENCE),
        (minted(now=NOW - 60), ORDERS, Reason.TOKEN_EXPIRED),
        (minted(exp=None), ORDERS, Reason.TOKEN_EXPIRED),
        (minted(now=NOW + 31), ORDERS, Reason.TOKEN_NOT_YET_VALID),
        (minted(iat=None), ORDERS, Reason.TOKEN_NOT_YET_VALID),
        (minted(signing_key("P-256", 7)), ORDERS, Reason.TOKEN_KEY_UNKNOWN),
        (f"{minted()[:-8]}AAAAAAAA", ORDERS, Reason.TOKEN_SIGNATURE),
        (minted(sub_id=None), ORDERS, Reason.TOKEN_CLAIM_INVALID),
        (minted(sub_id={"format": "uri", "uri": GATEWAY}), ORDERS, Reason.TOKEN_CLAIM_INVALID),
        (minted(sub_id={"format": "iss_sub", "iss": IDP, "sub": "root"}), ORDERS, Reason.TOKEN_CLAIM_INVALID),
        (minted(sub_id={"format": "iss_sub", "iss": "", "sub": "ann"}), ORDERS, Reason.TOKEN_CLAIM_INVALID),
    ],
)
async def test_every_other_minted_token_is_refused(desk: Desk, token: str, principal: str, reason: Reason) -> None:
    reply = await desk.ask(principal, subject_token=token, audience=PAYMENTS)
    assert (reply.status, reply.fields["error"]) == (400, "invalid_request")
    [(_, decision, _)] = desk.sink.records
    assert decision.reason is reason
    assert await desk.events() == []


async def test_a_key_that_was_removed_or_retired_ends_its_chains(desk: Desk) -> None:
    for keys in (
        ring(signing_key("Ed25519")),
        KeyRing([ScheduledKey(KEY, sign_until=NOW - 1000), ScheduledKey(signing_key("Ed25519"), NOW - 1000)]),
    ):
        desk.exchange._minter.ring = keys
        assert (await desk.ask(subject_token=minted(), audience=PAYMENTS)).fields["error"] == "invalid_request"
        assert desk.sink.records[-1][1].reason is Reason.TOKEN_KEY_UNKNOWN


@pytest.mark.parametrize(
    "revocation",
    [
        Revocation(Revoked.SUBJECT, "ann", IDP),
        Revocation(Revoked.SUBJECT, "ann", IDP, before=NOW + 1),
        Revocation(Revoked.SESSION, "s1", IDP),
        Revocation(Revoked.ISSUER, IDP),
        Revocation(Revoked.SPIFFE_ID, ORDERS),
    ],
)
async def test_a_revoked_user_session_or_application_gets_no_further_token(desk: Desk, revocation: Revocation) -> None:
    assert (await desk.ask(subject_token=minted(), audience=PAYMENTS)).status == 200
    dynamic = DynamicRevocations()
    dynamic.put("r1", revocation)
    snapshot = desk.exchange._authorization._snapshots.snapshot
    assert snapshot is not None
    snapshot.verifier.use_revocations(dynamic)
    reply = await desk.ask(subject_token=minted(), audience=PAYMENTS)
    assert reply.status == 400
    assert desk.sink.records[-1][1].reason in (Reason.TOKEN_REVOKED, Reason.PEER_REVOKED)

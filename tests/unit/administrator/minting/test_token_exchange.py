"""Token exchange: who gets which token for whom, every refusal, and what is recorded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.check import RecordingSink
from tests.fakes.snapshots import FixedSnapshot
from tests.support.minting import ISSUER, KEY, ring, verified
from tests.support.pki import NOW, Signer, jwks
from tests.support.policies import snapshot
from tests.support.stores import SqlitePlace
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import EventKind, read_event
from zta_authz.administrator.minting.exchange_form import ACCESS_TOKEN, GRANT_TYPE, JWT, TRANSACTION_TOKEN
from zta_authz.administrator.minting.token_exchange import LABELS, TokenExchange
from zta_authz.administrator.operations import Origin
from zta_authz.administrator.operator_authorization import OperatorAuthorization, operator_options
from zta_authz.errors import Reason
from zta_authz.minting.key_states import KeyRing
from zta_authz.minting.minter import Minter
from zta_authz.model.options import Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.rest_api import TokenReply
    from zta_authz.administrator.store.port import Committed
    from zta_authz.administrator.store.sqlite import SqliteStore

IDP = "https://idp.example"
IDP_KEY = Signer(kid="idp", number=3001)
ORDERS = "spiffe://cluster.local/ns/shop/sa/orders"
USERS = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-token}}}}
  jwtRules:
  - {{issuer: "{IDP}", audiences: [orders.shop], jwks: '{jwks([IDP_KEY])}'}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: operators, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-admin}}}}
  jwtRules:
  - {{issuer: "https://login.example", audiences: [zta-admin], jwks: '{jwks([IDP_KEY])}'}}
"""
RULES = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: orders-calls-others, namespace: istio-system}
spec:
  selector: {matchLabels: {app: zta-token}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/orders"], requestPrincipals: ["https://idp.example/*"]}}]
    to: [{operation: {methods: [POST], paths: [/token]}}]
    when: [{key: "request.headers[zta-audience]", values: [payments.shop]}]
    response: {mint: {audience: payments.shop, scope: payments.read payments.charge, lifetime: 30s}}
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/orders"]}}]
    when: [{key: "request.headers[zta-audience]", values: [ledger.shop]}]
    response: {mint: {audience: ledger.shop, kind: transaction, scope: ledger.write}}
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/broad"]}}]
    response: {mint: {audience: payments.shop}}
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/plain"]}}]
"""


def subject(sub: str | None = "ann", **changed: Any) -> str:
    claims = {"iss": IDP, "sub": sub, "aud": "orders.shop", "iat": NOW - 60, "exp": NOW + 600} | changed
    return IDP_KEY.token(**claims)


def form(**changed: Any) -> dict[str, str]:
    fields = {
        "grant_type": GRANT_TYPE,
        "subject_token": subject(),
        "subject_token_type": ACCESS_TOKEN,
        "audience": "payments.shop",
    } | changed
    return {name: value for name, value in fields.items() if value is not None}


class Desk:
    """A token endpoint with its policies, store and decision log."""

    def __init__(self, store: SqliteStore, rules: str = RULES, keys: KeyRing | None = None) -> None:
        options = operator_options(Options(token_issuer=ISSUER), LABELS)
        self.sink = RecordingSink()
        self.settled: list[int] = []
        self.log_failure = ""
        self.store = store
        authorization = OperatorAuthorization(
            FixedSnapshot(snapshot(USERS, rules, options=options)), self.sink, lambda: NOW
        )
        minter = Minter(ISSUER, ring() if keys is None else keys)
        self.exchange = TokenExchange(authorization, minter, store, self._settle, lambda: self.log_failure)

    async def _settle(self, committed: Committed) -> None:
        self.settled.append(committed.revision)

    async def ask(self, principal: str = ORDERS, authorization: str = "", **changed: Any) -> TokenReply:
        return await self.exchange.exchange(Origin(principal, authorization), form(**changed))

    async def events(self) -> list[Any]:
        commits = await self.store.read_since(0, 100)
        events = [read_event(data) for commit in commits for data in commit.events]
        return [event for event in events if event.kind is EventKind.TOKEN_ISSUED]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    yield store
    await store.close()


@pytest.fixture
def desk(store: SqliteStore) -> Desk:
    """A desk with the rules above."""
    return Desk(store)


async def test_a_workload_gets_a_token_for_the_subject_of_the_token_that_it_holds(desk: Desk) -> None:
    reply = await desk.ask()
    assert reply.status == 200
    assert {name: value for name, value in reply.fields.items() if name != "access_token"} == {
        "issued_token_type": JWT,
        "token_type": "Bearer",
        "expires_in": 30,
        "scope": "payments.read payments.charge",
    }
    claims = verified(reply.fields["access_token"], audience="payments.shop")
    assert (claims["iss"], claims["sub"], claims["act"]) == (ISSUER, "ann", {"sub": ORDERS})
    assert claims["sub_id"] == {"format": "iss_sub", "iss": IDP, "sub": "ann"}


async def test_the_token_is_recorded_in_both_logs_before_it_leaves(desk: Desk) -> None:
    token = (await desk.ask()).fields["access_token"]
    [event] = await desk.events()
    [(_, decision, decision_id)] = desk.sink.records
    assert (event.object.type, event.object.id) == ("token", decision_id)
    assert event.object.fields["audience"] == "payments.shop"
    assert event.object.fields["key_id"] == KEY.key_id
    assert (event.actor.principal, event.actor.issuer, event.actor.subject) == (ORDERS, IDP, "ann")
    assert event.actor.decision_id == decision_id
    assert decision.minted is not None
    assert decision.minted.token_id == decision_id
    assert len(desk.settled) == 1
    assert token.rpartition(".")[2] not in repr((event, decision))


async def test_each_exchange_gives_a_new_token(desk: Desk) -> None:
    tokens = {(await desk.ask()).fields["access_token"] for _ in range(3)}
    assert len(tokens) == 3
    assert len(await desk.events()) == 3


async def test_a_narrower_scope_can_be_asked_for_and_a_wider_one_not(desk: Desk) -> None:
    reply = await desk.ask(scope="payments.read")
    assert reply.fields["scope"] == "payments.read"
    assert verified(reply.fields["access_token"], audience="payments.shop")["scope"] == "payments.read"
    for scope in ("payments.admin", "payments.read payments.admin", "Payments.read"):
        reply = await desk.ask(scope=scope)
        assert (reply.status, reply.fields["error"]) == (400, "invalid_scope")


async def test_a_transaction_token_has_its_type(desk: Desk) -> None:
    reply = await desk.ask(audience="ledger.shop", requested_token_type=TRANSACTION_TOKEN)
    assert (reply.fields["issued_token_type"], reply.fields["token_type"]) == (TRANSACTION_TOKEN, "N_A")
    assert verified(reply.fields["access_token"], audience="ledger.shop")["txn"]
    assert (await desk.ask(audience="ledger.shop", requested_token_type=JWT)).fields["error"] == "invalid_target"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"principal": ""}, (401, "invalid_client")),
        ({"authorization": f"Bearer {subject('root')}"}, (400, "invalid_request")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        ({"audience": "admin.shop"}, (400, "invalid_target")),
        ({"principal": "spiffe://cluster.local/ns/shop/sa/other"}, (400, "invalid_target")),
        ({"principal": "spiffe://cluster.local/ns/shop/sa/broad", "audience": "ledger.shop"}, (400, "invalid_target")),
        ({"principal": "spiffe://cluster.local/ns/shop/sa/plain"}, (400, "invalid_target")),
        ({"subject_token": subject(exp=NOW - 100)}, (400, "invalid_request")),
        ({"subject_token": subject(aud="other")}, (400, "invalid_request")),
        ({"subject_token": subject(iss="https://evil.example")}, (400, "invalid_request")),
        ({"subject_token": subject(iss="https://login.example", aud="zta-admin")}, (400, "invalid_request")),
        ({"subject_token": subject(cnf={"x5t#S256": "A" * 43})}, (400, "invalid_request")),
        ({"subject_token": subject(None), "audience": "ledger.shop"}, (400, "invalid_target")),
        ({"subject_token": subject(may_act={"sub": "spiffe://cluster.local/ns/x/sa/y"})}, (400, "invalid_target")),
        ({"subject_token": subject(may_act={"sub": ORDERS, "iss": "https://x"})}, (400, "invalid_target")),
        ({"subject_token": subject(may_act=ORDERS)}, (400, "invalid_target")),
    ],
)
async def test_every_other_exchange_is_refused_and_gives_no_token(
    desk: Desk, changed: dict[str, Any], error: tuple[int, str]
) -> None:
    reply = await desk.ask(**changed)
    assert (reply.status, reply.fields["error"]) == error
    assert set(reply.fields) == {"error", "error_description"}
    assert await desk.events() == []
    assert all(decision.minted is None and not decision.allowed for _, decision, _ in desk.sink.records)
    json.dumps(reply.fields).encode("ascii")


async def test_may_act_that_names_the_caller_permits_the_exchange(desk: Desk) -> None:
    assert (await desk.ask(subject_token=subject(may_act={"sub": ORDERS}))).status == 200


async def test_a_minted_token_is_exchanged_only_by_the_application_that_it_is_for(desk: Desk) -> None:
    """Whoever got hold of it could otherwise act for the user elsewhere."""
    minted = (await desk.ask()).fields["access_token"]  # for payments.shop, which is no SPIFFE ID
    reply = await desk.ask(subject_token=minted, audience="ledger.shop")
    assert (reply.status, reply.fields["error"]) == (400, "invalid_request")
    assert desk.sink.records[-1][1].reason is Reason.TOKEN_AUDIENCE


async def test_an_exchanged_token_never_outlives_the_subjects(desk: Desk) -> None:
    reply = await desk.ask(subject_token=subject(exp=NOW + 10))
    assert reply.fields["expires_in"] == 10


async def test_a_subject_that_no_rule_verifies_is_not_the_callers_own(store: SqliteStore) -> None:
    """Without a RequestAuthentication the token would be ignored, and the workload itself be the subject."""
    elsewhere = USERS.replace("app: zta-token", "app: other")
    options = operator_options(Options(), LABELS)
    desk = Desk(store)
    compiled = snapshot(elsewhere, RULES, options=options)
    desk.exchange._authorization = OperatorAuthorization(FixedSnapshot(compiled), desk.sink, lambda: NOW)
    reply = await desk.ask(audience="ledger.shop")
    assert (reply.status, reply.fields["error"]) == (400, "invalid_target")
    assert desk.sink.records[-1][1].detail == "no rule verifies the subject's token"


async def test_without_a_key_or_a_writable_log_the_exchange_is_unavailable(store: SqliteStore) -> None:
    desk = Desk(store, keys=KeyRing())
    assert ((await desk.ask()).status, (await desk.ask()).fields["error"]) == (503, "temporarily_unavailable")
    desk = Desk(store)
    desk.log_failure = "the disk is full"
    assert ((await desk.ask()).status, (await desk.ask()).fields["error"]) == (503, "temporarily_unavailable")
    assert desk.sink.records == []
    assert await desk.events() == []


async def test_a_record_that_does_not_reach_the_log_in_time_keeps_the_token_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(committed: Committed) -> None:
        del committed
        raise OperationRefused(Refusal.UNAVAILABLE, "its record is not on the disk yet")

    monkeypatch.setattr(desk.exchange, "_settle", late)
    reply = await desk.ask()
    assert (reply.status, set(reply.fields)) == (503, {"error", "error_description"})

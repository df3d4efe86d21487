"""The data path: no decision without a snapshot, no allow without a record, and the record matches the response."""

from __future__ import annotations

import json

import pytest

from tests.fakes.check import RecordingObserver, RecordingSink, ScriptedDecision
from tests.fakes.snapshots import FixedSnapshot
from tests.support.check_requests import DECISION_ID, allow, check_request, deny
from tests.support.minting import ISSUER, ring, verified
from tests.support.pki import ISSUER as LOGIN, NOW, Signer, jwks
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.authorizer import Authorizer, finalize
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.minting.minter import Minter
from zta_authz.model.decision import UNDECIDED, Decision, Verdict
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.options import Options
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.ports import CheckEvent

OPEN = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {rules: [{}]}}"
SETTING = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: a}
spec: {response: {headers: {set: [{name: x-team, value: hats}]}}, rules: [{}]}
"""
RULES = compile_snapshot([SourceText("a.yaml", OPEN)], Options(trust_proxy=True))


class DataPath:
    """An `Authorizer` with a source of snapshots, a decision log and an observer, and what these recorded."""

    def __init__(self, outcome: Decision | None = None, *, keeps: bool = True, minter: Minter | None = None) -> None:
        self.snapshots = FixedSnapshot(RULES)
        self.sink = RecordingSink(keeps)
        self.observer = RecordingObserver()
        scripted = None if outcome is None else ScriptedDecision(outcome)
        self.authorizer = Authorizer(
            parse_check_request,
            ResponseEncoder().encode,
            self.snapshots,
            self.sink,
            self.observer,
            scripted,
            minter=minter,
        )

    def check(self, payload: bytes | None = None) -> CheckResponse:
        call = CheckEvent((), None, UNDECIDED, DECISION_ID, 1_000_000_000)
        payload = check_request().SerializeToString() if payload is None else payload
        return CheckResponse.FromString(self.authorizer.check(call, payload))

    @property
    def observed(self) -> Decision:
        [event] = self.observer.events
        return event.decision

    @property
    def recorded(self) -> Decision:
        [(_, decision, _)] = self.sink.records
        return decision


def test_without_a_snapshot_everything_is_denied() -> None:
    path = DataPath()
    path.snapshots.snapshot = None
    assert path.check().denied_response.status.code == 503
    assert (path.recorded.verdict, path.recorded.reason) == (Verdict.DENY, Reason.NOT_READY)


def test_the_snapshot_in_force_decides_and_is_named_in_the_record() -> None:
    path = DataPath()
    assert path.check().HasField("ok_response")
    path.snapshots.snapshot = compile_snapshot([], Options())
    assert path.check().denied_response.status.code == 403
    assert path.sink.digests == [RULES.digest, path.snapshots.snapshot.digest]


def test_the_snapshot_determines_the_headers_that_no_client_may_send() -> None:
    path = DataPath()
    path.snapshots.snapshot = compile_snapshot([SourceText("a.yaml", SETTING)], Options(trust_proxy=True))
    message = path.check(check_request([("x_team", b"forged")]).SerializeToString())
    assert "x_team" in message.ok_response.headers_to_remove


@pytest.mark.parametrize(
    ("decision", "keeps", "answered"),
    [
        (allow(), True, Reason.ALLOW_POLICY),
        (allow(), False, Reason.AUDIT_UNAVAILABLE),
        (deny(), True, Reason.DENY_POLICY),
        (deny(), False, Reason.DENY_POLICY),
    ],
)
def test_only_an_allow_requires_its_record(decision: Decision, keeps: bool, answered: Reason) -> None:
    path = DataPath(decision, keeps=keeps)
    message = path.check()
    assert path.observed.reason is answered
    assert message.HasField("ok_response") is path.observed.allowed is (answered is Reason.ALLOW_POLICY)
    assert path.recorded == decision
    if answered is Reason.AUDIT_UNAVAILABLE:
        assert (message.denied_response.status.code, path.observed.identity) == (503, decision.identity)


def test_malformed_bytes_are_denied_and_recorded() -> None:
    path = DataPath()
    assert path.check(b"\xff").denied_response.status.code == 400
    assert path.observed.reason is path.recorded.reason is Reason.REQUEST_MALFORMED
    assert path.sink.digests == [RULES.digest]


def test_an_allow_is_final_only_with_an_allowing_reason_and_a_caller_name_that_a_header_can_carry() -> None:
    for decision in (allow(), deny()):
        assert finalize(decision) is decision
    for reason in DENIAL_RESPONSES:
        assert finalize(Decision(Verdict.ALLOW, reason)) == Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
    unnamed = finalize(allow(principal="a\nb"))
    assert (unnamed.verdict, unnamed.reason) == (Verdict.DENY, Reason.PEER_CERTIFICATE_MALFORMED)


def test_the_record_contains_the_final_decision() -> None:
    path = DataPath(Decision(Verdict.ALLOW, Reason.DENY_POLICY))
    assert path.check().denied_response.status.code == 500
    assert path.recorded == path.observed == Decision(Verdict.DENY, Reason.INTERNAL_ERROR)


MINTING = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: a}
spec: {response: {mint: {audience: orders}}, rules: [{from: [{source: {principals: ["*"]}}]}]}
"""


def minting_path(minter: Minter | None, *, keeps: bool = True) -> DataPath:
    path = DataPath(minter=minter, keeps=keeps)
    path.snapshots.snapshot = compile_snapshot([SourceText("a.yaml", MINTING)], Options(trust_proxy=True))
    return path


def test_an_allowed_request_carries_the_token_that_its_rule_orders_and_the_record_names_it() -> None:
    path = minting_path(Minter(ISSUER, ring()))
    headers = {option.header.key: option.header.value for option in path.check().ok_response.headers}
    claims = verified(headers["x-zta-token"], now=1.0)
    assert (claims["aud"], claims["jti"]) == ("orders", DECISION_ID)
    assert path.recorded.minted is not None
    assert path.recorded.minted.token_id == DECISION_ID


@pytest.mark.parametrize("minter", [None, Minter(ISSUER)])
def test_a_request_whose_token_can_not_be_minted_is_denied_as_unavailable(minter: Minter | None) -> None:
    path = minting_path(minter)
    message = path.check()
    assert message.denied_response.status.code == 503
    assert path.recorded.reason is path.observed.reason is Reason.MINTING_UNAVAILABLE


def test_no_token_leaves_if_the_decision_can_not_be_recorded() -> None:
    path = minting_path(Minter(ISSUER, ring()), keeps=False)
    message = path.check()
    assert (message.denied_response.status.code, path.observed.reason) == (503, Reason.AUDIT_UNAVAILABLE)
    assert "eyJ" not in str(message)


def test_a_session_that_is_revoked_gets_no_token_that_was_minted_before() -> None:
    users = json.dumps({"jwtRules": [{"issuer": LOGIN, "jwks": jwks()}]})
    head = "{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: a}, spec: "
    rules = MINTING.replace('principals: ["*"]', 'requestPrincipals: ["*"]')
    path = DataPath(minter=Minter(ISSUER, ring()))
    snapshot = compile_snapshot([SourceText("a.yaml", f"{head}{users}}}\n---{rules}")], Options(trust_proxy=True))
    path.snapshots.snapshot = snapshot
    token = Signer().token(sid="s1")
    payload = check_request([("authorization", f"Bearer {token}".encode())]).SerializeToString()

    def check() -> CheckResponse:
        call = CheckEvent((), None, UNDECIDED, DECISION_ID, int(NOW * 1e9))
        return CheckResponse.FromString(path.authorizer.check(call, payload))

    first = check()
    assert any(option.header.key == "x-zta-token" for option in first.ok_response.headers)
    assert check().ok_response.headers == first.ok_response.headers  # reused
    dynamic = DynamicRevocations()
    snapshot.verifier.use_revocations(dynamic)
    dynamic.put("r1", Revocation(Revoked.SESSION, "s1", LOGIN))
    assert check().status.message == Reason.TOKEN_REVOKED

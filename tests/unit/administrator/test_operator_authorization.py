"""Whoever calls the administrator is verified and decided as the caller of any workload, and the decision is recorded."""

from __future__ import annotations

import pytest

from tests.fakes.check import RecordingSink
from tests.fakes.snapshots import FixedSnapshot
from tests.support.administrator import ENTITLEMENT, LOGIN, OPERATORS, PAGE, administrator_snapshot, bearer
from tests.support.pki import NOW, Signer
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.operator_authorization import (
    HOST,
    AuthorizedCaller,
    Call,
    OperatorAuthorization,
    operator_options,
)
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.model.access import Subject
from zta_authz.model.documents import Revocation, Revoked
from zta_authz.model.options import CertificateCheck, Gateway, NamedWorkload, Options, Workload

UID = "spiffe://cluster.local/zta-admin/uid/1000"
REQUESTS = "/access/requests"


def desk(*texts: str, sink: RecordingSink | None = None, now: float = NOW) -> OperatorAuthorization:
    snapshots = FixedSnapshot(administrator_snapshot(*texts))
    return OperatorAuthorization(snapshots, sink or RecordingSink(), lambda: now)


def policy(rule: str, name: str = "p", action: str = "ALLOW", selector: str = "{matchLabels: {app: zta-admin}}") -> str:
    head = f"apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {{name: {name}, namespace: istio-system}}\n"
    return f"{head}spec: {{action: {action}, selector: {selector}, rules: [{rule}]}}\n"


def authorized(authorization: OperatorAuthorization, call: Call) -> AuthorizedCaller | Refusal:
    try:
        return authorization.authorize(call)
    except OperationRefused as error:
        return error.refusal


def by(subject: str, method: str = "POST", path: str = REQUESTS, principal: str = "", **claims: object) -> Call:
    return Call(method, path, principal, bearer(subject, **claims))


def test_without_a_policy_nobody_may_do_anything() -> None:
    assert authorized(desk(), by("ann")) is Refusal.NOT_ALLOWED
    assert authorized(desk(), Call("POST", REQUESTS, UID)) is Refusal.NOT_ALLOWED
    assert authorized(desk(), Call("POST", REQUESTS)) is Refusal.NOT_ALLOWED


def test_a_caller_is_known_by_the_token_first_and_by_the_certificate() -> None:
    caller = authorized(desk(OPERATORS), by("ann", principal=PAGE))
    assert isinstance(caller, AuthorizedCaller)
    assert caller.subjects == (Subject(LOGIN, "ann"), Subject(spiffe_id=PAGE))
    assert (caller.actor.issuer, caller.actor.subject, caller.actor.principal) == (LOGIN, "ann", PAGE)
    local = authorized(desk(OPERATORS), Call("POST", REQUESTS, UID))
    assert isinstance(local, AuthorizedCaller)
    assert local.subjects == (Subject(spiffe_id=UID),)


def test_a_policy_sees_the_method_the_path_and_the_host_of_the_operation() -> None:
    rule = f'{{to: [{{operation: {{hosts: [{HOST}], methods: [POST], paths: ["/access/requests/{{*}}/approve"]}}}}]}}'
    authorization = desk(policy(rule))
    assert isinstance(authorized(authorization, by("ann", path="/access/requests/1/approve")), AuthorizedCaller)
    for method, path in (("GET", "/access/requests/1/approve"), ("POST", "/access/requests/1/deny"), ("POST", "/")):
        assert authorized(authorization, by("ann", method, path)) is Refusal.NOT_ALLOWED


def test_a_path_that_could_be_read_in_two_ways_is_refused_whatever_the_settings_say() -> None:
    options = operator_options(Options(accept_ambiguous_paths=True))
    assert not options.accept_ambiguous_paths
    for path in ("/access/requests/../grants", "/access/requests/%2e%2e/x", "/access//requests"):
        assert authorized(desk(OPERATORS), by("ann", path=path)) is Refusal.NOT_ALLOWED


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer not-a-token",
        bearer("ann")[:-4],
        f"Bearer {Signer(kid='login', number=666).token(iss=LOGIN, sub='ann', aud='zta-admin')}",
        bearer("ann", exp=NOW - 3600),
        bearer("ann", aud="another-service"),
        bearer("ann", iss="https://elsewhere.example"),
    ],
)
def test_a_token_that_is_not_valid_is_refused_also_with_a_good_certificate(authorization: str) -> None:
    assert authorized(desk(OPERATORS), Call("POST", REQUESTS, PAGE, authorization)) is Refusal.UNAUTHENTICATED


def test_a_refusal_repeats_no_token() -> None:
    for call in (by("ann", aud="another-service"), by("ann", path="/elsewhere")):
        with pytest.raises(OperationRefused) as refused:
            desk(OPERATORS).authorize(call)
        assert "eyJ" not in str(refused.value)
        assert "decision" in str(refused.value), "the decision log says more"
        assert "eyJ" not in repr(call)


def test_a_revoked_subject_session_or_workload_may_do_nothing() -> None:
    revoked = """
apiVersion: zta.dev/v1
kind: RevocationList
metadata: {name: stolen, namespace: istio-system}
spec:
  tokens: [{id: t-1}]
  subjects: [{subject: bob, issuer: "https://login.example"}]
  spiffeIds: [{id: "spiffe://cluster.local/ns/tools/sa/page"}]
"""
    authorization = desk(OPERATORS, revoked)
    assert authorized(authorization, by("bob")) is Refusal.UNAUTHENTICATED
    assert authorized(authorization, by("ann", jti="t-1")) is Refusal.UNAUTHENTICATED
    assert not isinstance(authorized(authorization, by("ann", principal=PAGE)), AuthorizedCaller)
    assert isinstance(authorized(authorization, by("ann", jti="t-2")), AuthorizedCaller)


def test_a_session_that_was_revoked_a_moment_ago_may_do_nothing() -> None:
    revocations = DynamicRevocations()
    snapshot = administrator_snapshot(OPERATORS)
    snapshot.verifier.use_revocations(revocations)
    authorization = OperatorAuthorization(FixedSnapshot(snapshot), RecordingSink(), lambda: NOW)
    call = by("ann", sid="s-1")
    assert isinstance(authorized(authorization, call), AuthorizedCaller)
    revocations.put("r1", Revocation(Revoked.SESSION, "s-1", LOGIN))
    assert authorized(authorization, call) is Refusal.UNAUTHENTICATED


def test_a_login_that_is_too_old_or_too_weak_is_not_enough_where_a_policy_says_so() -> None:
    authorization = desk(policy("{require: {authentication: {acr: [phr], maxAge: 5m}}}"))
    assert isinstance(authorized(authorization, by("ann", acr="phr", auth_time=int(NOW) - 60)), AuthorizedCaller)
    assert authorized(authorization, by("ann", acr="phr", auth_time=int(NOW) - 3600)) is Refusal.UNAUTHENTICATED
    assert authorized(authorization, by("ann", acr="pwd", auth_time=int(NOW) - 60)) is Refusal.UNAUTHENTICATED
    assert authorized(authorization, by("ann")) is Refusal.UNAUTHENTICATED


@pytest.mark.parametrize("subject", ["a" * 3000, "ann\n", "ann\u202e", "\x1b[2J"])
def test_a_name_that_could_deceive_or_is_too_long_is_no_name(subject: str) -> None:
    assert authorized(desk(OPERATORS), by(subject)) is Refusal.UNAUTHENTICATED


def test_a_token_without_a_subject_does_not_act_as_the_workload_that_sent_it() -> None:
    call = Call("POST", REQUESTS, PAGE, bearer(None))
    assert authorized(desk(OPERATORS), call) is Refusal.UNAUTHENTICATED


def test_a_caller_without_a_name_can_do_nothing_even_where_a_policy_allows_everybody() -> None:
    assert authorized(desk(policy("{}")), Call("POST", REQUESTS)) is Refusal.UNAUTHENTICATED


def test_a_policy_for_all_workloads_can_deny_and_never_allow() -> None:
    everybody = policy("{}", selector="{}")
    assert authorized(desk(everybody), by("ann")) is Refusal.NOT_ALLOWED
    assert isinstance(authorized(desk(everybody, OPERATORS.replace("everybody", "e")), by("ann")), AuthorizedCaller)
    nobody = policy("{}", action="DENY", selector="{}")
    assert authorized(desk(OPERATORS, nobody), by("ann")) is Refusal.NOT_ALLOWED


def test_documents_without_a_namespace_are_where_decision_points_have_them() -> None:
    unplaced = policy("{}").replace(", namespace: istio-system", "")
    assert authorized(desk(unplaced), by("ann")) is Refusal.NOT_ALLOWED, "it is not in the root namespace"
    named = administrator_snapshot(ENTITLEMENT.replace(", namespace: payments", ""))
    assert list(named.entitlements) == ["default/db"]


def test_a_note_says_that_no_policy_lets_anybody_call() -> None:
    (note,) = administrator_snapshot(policy("{}", selector="{}"), ENTITLEMENT).notes
    assert "app=zta-admin), so nobody may call it" in str(note)
    assert administrator_snapshot(OPERATORS, ENTITLEMENT).notes == ()


def test_every_call_is_recorded_and_none_is_allowed_without_a_record() -> None:
    sink = RecordingSink()
    authorization = desk(OPERATORS, sink=sink)
    caller = authorized(authorization, by("ann"))
    assert isinstance(caller, AuthorizedCaller)
    assert authorized(authorization, by("ann", path="/elsewhere")) is Refusal.NOT_ALLOWED
    (_, allowed, decision_id), (_, denied, _) = sink.records
    assert (allowed.allowed, denied.allowed) == (True, False)
    assert caller.actor.decision_id == decision_id
    assert sink.digests == [caller.policy_digest] * 2
    assert authorized(desk(OPERATORS, sink=RecordingSink(keeps=False)), by("ann")) is Refusal.UNAVAILABLE


def test_nobody_may_do_anything_before_the_policies_are_loaded() -> None:
    authorization = OperatorAuthorization(FixedSnapshot(None), RecordingSink(), lambda: NOW)
    assert authorized(authorization, by("ann")) is Refusal.UNAVAILABLE


def test_the_settings_of_a_decision_point_do_not_weaken_those_of_the_administrator() -> None:
    shop = Workload("shop", {"app": "shop"}, "corp.example", ("old.example",))
    options = operator_options(
        Options(
            default_allow=True,
            workload=shop,
            workloads=(NamedWorkload("spiffe://corp.example/shop", shop),),
            gateways=(Gateway("unix", ("*",)),),
            root_namespace="root",
            verify_certificate=CertificateCheck.REQUIRED,
        )
    )
    assert (options.default_allow, options.shared, options.root_namespace) == (False, False, "root")
    assert options.workload == Workload("root", {"app": "zta-admin"}, "corp.example", ("old.example",))
    assert options.document_namespace == "shop"
    assert operator_options(options).document_namespace == "shop"

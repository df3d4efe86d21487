"""DENY, then ALLOW, then the default, for the policies that select the workload."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.policies import (
    FRONTEND,
    ISTIO,
    STRICT,
    decided,
    identity,
    operation,
    policy,
    request,
    snapshot,
    source,
    when,
)
from zta_authz.errors import Reason, Refused
from zta_authz.model.decision import AccessBasis, Shadow, Verdict
from zta_authz.model.identity import ANONYMOUS, RefusedCaller
from zta_authz.model.options import Options, Workload
from zta_authz.model.request import NO_EVIDENCE, Evidence
from zta_authz.pdp.decide import Caller, decide, evaluate
from zta_authz.policy.rules.fact_reader import FactReader
from zta_authz.policy.rules.inputs import Inputs

both = pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
ALL: dict[str, Any] = {}
NOW = 1_800_000_000.0
POST = operation(methods=["POST"])
GET = operation(methods=["GET"])


@both
def test_a_deny_decides_before_any_allow(options: Options) -> None:
    policies = [policy("a", ALL), policy("z", POST, GET, action="DENY")]
    decision = decided(policies, options=options)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.DENY_POLICY)
    assert (decision.policy, decision.rule) == ("default/z", 1)


@both
def test_an_allow_decides_if_no_deny_matches(options: Options) -> None:
    decision = decided([policy("z", POST, action="DENY"), policy("a", POST, GET)], options=options)
    assert (decision.reason, decision.policy, decision.rule) == (Reason.ALLOW_POLICY, "default/a", 1)


@both
def test_the_first_rule_in_order_of_namespace_and_name_decides(options: Options) -> None:
    policies = [
        policy("b", ALL),
        policy("c", ALL, namespace="istio-system"),
        policy("a", POST, GET, ALL, namespace="default"),
    ]
    decision = decided(policies, options=options)
    assert (decision.policy, decision.rule) == ("default/a", 1)
    assert decided(policies[1:2], options=options).policy == "istio-system/c"


def test_without_any_allow_policy_strict_denies_and_istio_allows() -> None:
    for policies in ([], [policy("d", POST, action="DENY")], [policy("x", POST, action="AUDIT")]):
        assert decided(policies, options=STRICT).reason is Reason.NO_MATCHING_POLICY
        assert decided(policies, options=ISTIO).reason is Reason.ALLOW_DEFAULT


@both
def test_with_an_allow_policy_unmatched_requests_are_denied(options: Options) -> None:
    assert decided([policy("a", POST)], options=options).reason is Reason.NO_MATCHING_POLICY


@both
def test_an_empty_spec_allows_nothing_and_one_empty_rule_everything(options: Options) -> None:
    nothing = policy("n") | {"spec": {}}
    assert decided([nothing], options=options).reason is Reason.NO_MATCHING_POLICY
    assert decided([policy("n")], options=options).reason is Reason.NO_MATCHING_POLICY
    assert decided([nothing, policy("a", ALL)], options=options).reason is Reason.ALLOW_POLICY
    assert decided([policy("d", ALL, action="DENY")], options=options).reason is Reason.DENY_POLICY


def test_an_allow_policy_for_another_workload_does_not_close_this_one() -> None:
    other = policy("a", ALL, namespace="other")
    labelled = policy("b", ALL)
    labelled["spec"]["selector"] = {"matchLabels": {"app": "x"}}
    assert decided([other, labelled], options=ISTIO).reason is Reason.ALLOW_DEFAULT
    assert decided([other, labelled], options=STRICT).reason is Reason.NO_MATCHING_POLICY


@both
@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        ({}, False),
        ({"app": "web"}, False),
        ({"app": "web", "v": "1"}, True),
        ({"app": "web", "v": "1", "x": "y"}, True),
    ],
)
def test_a_selector_requires_all_of_its_labels(labels: dict[str, str], selected: bool, options: Options) -> None:
    chosen = policy("a", ALL)
    chosen["spec"]["selector"] = {"matchLabels": {"app": "web", "v": "1"}}
    settings = replace(options, workload=Workload(labels=labels))
    assert (decided([chosen], options=settings).reason is Reason.ALLOW_POLICY) is selected


@both
def test_policies_of_the_root_namespace_apply_to_every_workload(options: Options) -> None:
    root = policy("r", ALL, action="DENY", namespace="istio-system")
    assert decided([root, policy("a", ALL)], options=options).policy == "istio-system/r"
    elsewhere = replace(options, root_namespace="mesh")
    assert decided([root, policy("a", ALL)], options=elsewhere).policy == "default/a"


@both
def test_audit_and_dry_run_matches_are_recorded_but_never_decide(options: Options) -> None:
    dry = {"annotations": {"istio.io/dry-run": "true"}}
    policies = [
        policy("audit", POST, GET, action="AUDIT"),
        policy("dry-deny", ALL, action="DENY", **dry),
        policy("dry-allow", ALL, **dry),
    ]
    decision = decided(policies, options=options)
    assert decision.reason is (Reason.NO_MATCHING_POLICY if options.strict else Reason.ALLOW_DEFAULT)
    assert decision.shadows == (
        Shadow("AUDIT", "default/audit", 1, False),
        Shadow("DENY", "default/dry-deny", 0, True),
        Shadow("ALLOW", "default/dry-allow", 0, True),
    )
    assert decided([*policies, policy("a", ALL)], options=options).policy == "default/a"


@both
def test_a_dry_run_that_is_false_decides(options: Options) -> None:
    wet = policy("d", ALL, action="DENY", annotations={"istio.io/dry-run": "false"})
    assert decided([wet], options=options).policy == "default/d"


@both
def test_any_source_any_operation_and_every_condition_of_a_rule_must_hold(options: Options) -> None:
    rule = {
        "from": [
            {"source": {"principals": ["td/a"]}},
            {"source": {"principals": ["td/b"], "ipBlocks": ["10.0.0.0/8"]}},
        ],
        "to": [{"operation": {"methods": ["GET"]}}, {"operation": {"methods": ["POST"], "paths": ["/x"]}}],
        **when("request.headers[x-a]", "1"),
    }
    for name, ip, method, path, header, expected in (
        ("a", "1.1.1.1", "GET", "/", "1", True),
        ("b", "10.0.0.1", "POST", "/x", "1", True),
        ("b", "1.1.1.1", "GET", "/", "1", False),
        ("a", "10.0.0.1", "POST", "/", "1", False),
        ("a", "10.0.0.1", "GET", "/", "2", False),
        ("c", "10.0.0.1", "GET", "/", "1", False),
    ):
        asked = request(method, path, headers={"x-a": header}, source_ip=ip)
        assert decided([policy("p", rule)], asked, identity(f"spiffe://td/{name}"), options).allowed is (expected), name


def test_rules_see_the_verified_peer_and_the_decision_names_it() -> None:
    text = json.dumps(policy("p", source(principals=["cluster.local/ns/default/sa/frontend"])))
    trusting = snapshot(text, options=replace(STRICT, trust_proxy=True))
    decision = evaluate(trusting, request(), Evidence(FRONTEND), 0.0)
    assert (decision.allowed, decision.identity.principal) == (True, FRONTEND)
    assert evaluate(trusting, request(), Evidence(f"{FRONTEND}x"), 0.0).reason is Reason.NO_MATCHING_POLICY
    assert evaluate(trusting, request(), NO_EVIDENCE, 0.0).reason is Reason.NO_MATCHING_POLICY


def test_strict_accepts_only_a_spiffe_id_as_peer_and_istio_any_name() -> None:
    text = json.dumps(policy("p", source(principals=["*"])))
    for name in ("client.example", "CN=client", "https://client.example/"):
        assert not evaluate(
            snapshot(text, options=replace(STRICT, trust_proxy=True)), request(), Evidence(name), 0.0
        ).allowed
        assert evaluate(snapshot(text, options=ISTIO), request(), Evidence(name), 0.0).allowed


def test_a_cors_preflight_needs_an_explicit_allow_in_strict() -> None:
    headers = {"origin": "https://a.example", "access-control-request-method": "GET"}
    preflight = request("OPTIONS", headers=headers)
    for text in (json.dumps(policy("d", POST, action="DENY")), json.dumps(policy("a", GET))):
        assert not evaluate(snapshot(text), preflight, NO_EVIDENCE, 0.0).allowed
    allowed = snapshot(json.dumps(policy("a", operation(methods=["OPTIONS"]))))
    assert evaluate(allowed, preflight, NO_EVIDENCE, 0.0).allowed


def test_invalid_evidence_is_denied_before_any_rule_is_evaluated() -> None:
    text = json.dumps(policy("p", ALL))
    decision = evaluate(snapshot(text), request(), Evidence("", "not a certificate"), 0.0)
    assert (decision.allowed, decision.policy) == (False, "")
    assert decision.reason.startswith("peer_certificate")


def test_a_policy_that_allows_everything_never_shadows_a_deny_by_name() -> None:
    policies = [policy("0", ALL), policy("9", operation(paths=["/admin*"]), action="DENY")]
    assert decided(policies, request(path="/admin/x")).reason is Reason.DENY_POLICY
    assert decided(policies, request(path="/")).reason is Reason.ALLOW_POLICY


POLICY = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: all, namespace: default}
spec: {rules: [{}]}
"""


@pytest.mark.parametrize("revocation", ["r1", ""])
def test_a_denial_names_the_revocation_that_it_rests_on(revocation: str) -> None:
    refused = Refused(Reason.TOKEN_REVOKED, "revoked", revocation)
    for caller in (
        Caller(ANONYMOUS, refused=refused),
        Caller(ANONYMOUS, refused=RefusedCaller(RefusedCaller(refused))),
    ):
        denial = decide(snapshot(POLICY), request(), caller, 0.0)
        assert denial.reason is Reason.TOKEN_REVOKED
        assert denial.access == (AccessBasis(revocation=revocation) if revocation else None)


def test_what_was_read_of_a_caller_is_released_with_the_request() -> None:
    model = "apiVersion: zta.dev/v1\nkind: TrustModel\nmetadata: {name: m, namespace: default}\nspec: {}\n"
    compiled = snapshot(model, json.dumps(policy("a", ALL)))
    gc.collect()
    gc.disable()
    try:
        before = _alive()
        decision = decide(compiled, request(), Caller(identity(), None), NOW)
        after = _alive()
    finally:
        gc.enable()
    assert decision.facts is not None
    assert after == before


def _alive() -> int:
    """How many readers of facts and inputs of requests there are, with those that wait for the garbage collector."""
    return sum(isinstance(found, (FactReader, Inputs)) for found in gc.get_objects())

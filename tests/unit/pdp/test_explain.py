"""Explanations of denials: the nearest ALLOW rules, and the clauses that did not match."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import FRONTEND, ISTIO, STRICT, operation, policy, request, snapshot, source, when
from zta_authz.errors import Reason
from zta_authz.model.request import NO_EVIDENCE, Evidence, RequestAttributes
from zta_authz.pdp.explain import Explanation, explain

if TYPE_CHECKING:
    from zta_authz.model.options import Options

TRUSTING = replace(STRICT, trust_proxy=True)


def explained(
    *rules: dict[str, Any],
    asked: RequestAttributes | None = None,
    evidence: Evidence = NO_EVIDENCE,
    options: Options = TRUSTING,
) -> Explanation:
    return explain(snapshot(json.dumps(policy("p", *rules)), options=options), asked or request(), evidence, 0.0)


def failed(rule: dict[str, Any], **given: Any) -> tuple[str, ...]:
    (miss,) = explained(rule, **given).nearest
    return miss.failed


def test_an_allow_and_a_deny_by_a_policy_explain_themselves() -> None:
    assert explained({}).nearest == ()
    denied = explain(snapshot(json.dumps(policy("p", {}, action="DENY"))), request(), NO_EVIDENCE, 0.0)
    assert (denied.decision.reason, denied.nearest) == (Reason.DENY_POLICY, ())


def test_without_allow_rules_no_rule_is_nearest() -> None:
    assert explained().nearest == ()


def test_the_three_nearest_rules_come_nearest_first() -> None:
    far = {**source(principals=["a"]), **operation(methods=["POST"]), **when("request.headers[x]", "1")}
    near = operation(methods=["POST"])
    nearer = explained(far, far, {**far, "when": [{"key": "source.ip", "values": ["10.0.0.1"]}]}, near)
    assert [miss.rule for miss in nearer.nearest] == [3, 2, 0]
    assert nearer.decision.reason is Reason.NO_MATCHING_POLICY


def test_a_miss_names_policy_rule_and_line() -> None:
    text = f"{json.dumps(policy('a'))}\n---\n"
    text += "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: b}\nspec:\n  rules:\n"
    text += "  - to: [{operation: {methods: [POST]}}]\n  - to: [{operation: {ports: ['1']}}]\n"
    nearest = explain(snapshot(text), request(), NO_EVIDENCE, 0.0).nearest
    assert [(miss.policy, miss.rule, miss.line) for miss in nearest] == [("default/b", 0, 8), ("default/b", 1, 9)]


def test_a_miss_names_the_actual_and_the_required_value() -> None:
    caller = Evidence(FRONTEND)
    assert failed(operation(methods=["POST", "P*"])) == ("methods: saw `GET`, rule has `POST`, `P*`",)
    assert failed(operation(notMethods=["*"])) == ("notMethods: saw `GET`, rule has `*`",)
    assert failed(operation(ports=["443", "80"])) == ("ports: saw `8080`, rule has `80`, `443`",)
    assert failed(operation(hosts=["a*"])) == ("hosts: saw `example.com`, rule has `a*`",)
    assert failed(source(ipBlocks=["192.0.2.7/24"])) == ("ipBlocks: saw `10.0.0.1`, rule has `192.0.2.0/24`",)
    assert failed(source(principals=["td/a"])) == ("principals: saw nothing, rule has `spiffe://td/a`",)
    assert failed(source(namespaces=["x"]), evidence=caller) == (f"namespaces: saw `{FRONTEND}`, rule has `x`",)
    assert failed(source(requestPrincipals=["i/s"])) == ("requestPrincipals: saw no verified token, rule has `i/s`",)
    assert failed(when("connection.sni", "a")) == ("connection.sni: saw nothing, rule has `a`",)
    assert failed(when("request.headers[x]", negated=["1"]), asked=request(headers={"x": ["1", "2"]})) == (
        "request.headers[x] notValues: saw `1`, `2`, rule has `1`",
    )


def test_a_miss_reports_values_that_are_unknown() -> None:
    joined = request(headers={"x": "1,2"}, exact=False)
    assert failed(when("request.headers[x]", "1"), asked=joined) == (
        "request.headers[x]: saw repeated values joined into one, rule has `1`",
    )
    mapped = request(source_ip="::ffff:10.0.0.1")
    assert failed(source(ipBlocks=["10.0.0.0/8"]), asked=mapped) == (
        "ipBlocks: saw `::ffff:a00:1`, which stands for `10.0.0.1`, rule has `10.0.0.0/8`",
    )
    unix = request(source_ip="")
    assert failed(source(ipBlocks=["10.0.0.0/8"]), asked=unix) == ("ipBlocks: saw no address, rule has `10.0.0.0/8`",)


def test_long_lists_of_values_are_cut() -> None:
    values = [f"V{number}" for number in range(9)]
    assert failed(operation(methods=values)) == (
        "methods: saw `GET`, rule has `V0`, `V1`, `V2`, `V3`, `V4` and 4 more",
    )


def test_of_several_sources_the_nearest_is_reported() -> None:
    rule = {
        "from": [
            {"source": {"principals": ["td/a"], "ipBlocks": ["192.0.2.0/24"]}},
            {"source": {"principals": ["td/b"], "ipBlocks": ["10.0.0.0/8"]}},
        ]
    }
    assert failed(rule) == ("principals: saw nothing, rule has `spiffe://td/b`",)


def test_a_request_refused_before_the_rules_has_no_nearest_rule() -> None:
    refused = explained(operation(methods=["POST"]), asked=request(path="//"))
    assert (refused.decision.reason, refused.nearest) == (Reason.PATH_AMBIGUOUS, ())


def test_a_decision_with_istio_semantics_is_explained_with_them() -> None:
    joined = request(headers={"x": "1,2"}, exact=False)
    assert failed(when("request.headers[x]", "1"), asked=joined, options=ISTIO) == (
        "request.headers[x]: saw `1,2`, rule has `1`",
    )


def access(action: str, condition: str, **beside: str) -> str:
    head = (
        f"apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {{name: {action.lower()}}}\nspec:\n  action: {action}\n"
    )
    rest = "".join(f"    {name}: {value}\n" for name, value in beside.items())
    return f"{head}  rules:\n  - condition: {json.dumps(condition)}\n{rest}"


def conditioned(action: str, condition: str, asked: RequestAttributes | None = None, **beside: str) -> Explanation:
    texts = [access(action, condition, **beside)]
    if action == "DENY":
        texts.append(access("ALLOW", "true"))
    return explain(snapshot(*texts, options=TRUSTING), asked or request(), NO_EVIDENCE, 0.0)


def test_a_denial_by_an_unknown_condition_reports_the_error_and_the_value() -> None:
    explanation = conditioned("DENY", "request.method == 'GET' && int(request.headers['x-level']) < 3",
                        request(headers={"x-level": "high"}))  # fmt: skip
    (line,) = explanation.matched
    assert explanation.decision.reason is Reason.DENY_POLICY
    assert line == (
        "condition: saw Unknown: `request.method == 'GET'` is true (`request.method` is `\"GET\"`); "
        "`int(request.headers['x-level']) < 3` is Unknown (cannot convert string to int, "
        "`request.headers['x-level']` is `\"high\"`), "
        "rule has `request.method == 'GET' && int(request.headers['x-level']) < 3`; "
        "this is uncertain, and a DENY treats it as a match"
    )
    assert explanation.decision.detail == "its condition is Unknown: it could not be evaluated on this request"


def test_a_denial_by_a_true_condition_reports_its_clauses() -> None:
    explanation = conditioned("DENY", "request.method in ['GET', 'HEAD'] && !(request.path == '/x')")
    (line,) = explanation.matched
    assert line.startswith(
        "condition: saw true: `request.method in ['GET', 'HEAD']` is true (`request.method` is `\"GET\"`); "
        "`request.path == '/x'` is false (`request.path` is `\"/\"`), rule has"
    )
    assert "certain" not in line
    assert explanation.decision.detail == ""


def test_a_condition_that_was_not_evaluated_is_reported_with_the_cause() -> None:
    repeated = request(headers={"x-a": ["1", "2"]})
    assert (
        "header `x-a` has several values" in conditioned("DENY", "request.headers['x-a'] == '1'", repeated).matched[0]
    )
    long = request(headers={"x-a": "a" * 60_000})
    explanation = conditioned("DENY", "request.headers['x-a'].matches('(a|b)*a[ab]{30}')", long)
    assert "it would cost too much" in explanation.matched[0]
    assert explanation.decision.reason is Reason.DENY_POLICY


def test_absent_values_and_secrets_are_not_quoted() -> None:
    asked = request(headers={"cookie": "session=1234", "x-a": "v"})
    (miss,) = conditioned("ALLOW", "request.headers['cookie'] == 'a' || claims.level > 3", asked).nearest
    assert "1234" not in miss.failed[0]
    assert "`request.headers['cookie']` is not shown" in miss.failed[0]
    assert '`claims.level > 3` is Unknown (Key not found in map : "level", `claims.level` is absent)' in miss.failed[0]


@pytest.mark.parametrize("text", ["request.headers['x-a'] == 'b'", "request.headers['x-a'].matches('b')"])
def test_a_value_that_no_condition_can_hold_is_explained(text: str) -> None:
    """A recorded request with bytes that are not UTF-8 made the CEL runtime raise."""
    asked = request(headers={"x-a": "\udcff"})
    (line,) = conditioned("DENY", text, asked).matched
    assert f"`{text}` is Unknown (a value that CEL can't represent" in line


def test_long_values_are_cut_and_whole_maps_are_counted() -> None:
    asked = request(path="/" + "a" * 5000, headers={"x-a": "v" * 50_000})
    (miss,) = conditioned("ALLOW", "request.path == '/' || request.headers.exists(h, h == 'x-b')", asked).nearest
    assert "`request.headers` is 1 entries" in miss.failed[0]
    assert len(miss.failed[0]) < 800


def test_an_allow_reports_its_condition_and_its_times() -> None:
    explanation = conditioned("ALLOW", "request.method == 'GET'", expiresAt="2030-01-01T00:00:00Z")
    assert [line.partition(":")[0] for line in explanation.matched] == ["time", "condition"]


def test_a_denial_for_an_ambiguous_header_reports_the_ambiguity() -> None:
    rules = json.dumps(policy("p", when("request.headers[x]", "a"), action="DENY"))
    explanation = explain(snapshot(rules), request(headers={"x": "b,c"}, exact=False), NO_EVIDENCE, 0.0)
    assert explanation.matched == (
        (
            "request.headers[x]: saw repeated values joined into one, rule has `a`; "
            "this is uncertain, and a DENY treats it as a match"
        ),
    )


def test_the_nearest_rules_are_found_even_if_all_conditions_together_are_costly() -> None:
    rule = access("ALLOW", "request.path.matches('^/[a-z]{20}x')")
    text = rule + "".join(f"  - condition: request.path.matches('^/[a-z]{{20}}{n}')\n" for n in range(50))
    explanation = explain(snapshot(text, options=TRUSTING), request(path="/" + "a" * 3000), NO_EVIDENCE, 0.0)
    assert all("saw false" in miss.failed[0] for miss in explanation.nearest)

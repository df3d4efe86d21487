from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import ISTIO, STRICT, operation, policy, snapshot, source, table, when
from zta_authz.pdp.paths import path_ambiguity
from zta_authz.policy.lint.linter import MAX_COMPARED, Finding, Kind, Level, lint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.options import Options

Rule = dict[str, Any]
WEB = {"principals": ["cluster.local/ns/default/sa/web"]}


def findings_of(*documents: Mapping[str, Any], options: Options = STRICT, kind: Kind | None = None) -> list[Finding]:
    """The findings of these policies: of one kind, or all but those on missing identities."""
    findings = lint(table(documents, options), now=1000.0, refused_path=lambda path: path_ambiguity(path, "GET"))
    return [f for f in findings if (f.kind is kind if kind else f.level is Level.WARNING)]


def kinds(*documents: Mapping[str, Any], options: Options = STRICT) -> list[str]:
    return [f.kind.value for f in findings_of(*documents, options=options)]


def both(*rules: Mapping[str, Any]) -> Rule:
    """One rule with the sections of all these rules."""
    merged: Rule = {}
    for rule in rules:
        for section, entries in rule.items():
            merged[section] = [*merged.get(section, []), *entries]
    return merged


def never(rule: Rule, options: Options = STRICT, action: str = "ALLOW") -> str:
    """The reason why the rule never matches, "" without a finding."""
    findings = findings_of(policy("p", rule, action=action), options=options, kind=Kind.NEVER_MATCHES)
    return findings[0].message if findings else ""


CONTRADICTIONS: dict[str, Rule] = {
    "values that are all excluded": when("request.headers[x]", "a", "b", negated=["a", "b", "c"]),
    "values covered by an excluded prefix": operation(paths=["/a/b", "/a/c*"], notPaths=["/a*"]),
    "values covered by an excluded suffix": operation(hosts=["a.example.com", "*.b.example.com"], notHosts=["*.com"]),
    "a template under an excluded prefix": operation(paths=["/a/{*}"], notPaths=["/a/*"]),
    "ports that are all excluded": operation(ports=["80", "443"], notPorts=["80", "443", "22"]),
    "ports of two places": both(operation(ports=["80"]), when("destination.port", "443")),
    "blocks within excluded blocks": source(ipBlocks=["10.1.0.0/16"], notIpBlocks=["10.0.0.0/8"]),
    "blocks that do not meet": both(source(ipBlocks=["10.0.0.0/8"]), when("source.ip", "192.0.2.0/24", "::/0")),
    "a principal of another trust domain": source(**WEB, trustDomains=["td2"]),
    "a principal that is excluded by its namespace": source(**WEB, notNamespaces=["default"]),
    "tokens of two issuers": both(source(requestPrincipals=["a/*"]), when("request.auth.principal", "b/x")),
    "an excluded token": source(requestPrincipals=["a/b"], notRequestPrincipals=["a/*"]),
    "a claim that is excluded": when("request.auth.claims[role]", "x", negated=["*"]),
    "all alternatives of a section": both(
        {"to": [*operation(methods=["GET"])["to"], *operation(methods=["GET"])["to"]]},
        when("request.headers[x]", "a", negated=["*"]),
    ),
    "a section of which each alternative is contradicted elsewhere": both(
        {"from": [*source(ipBlocks=["10.0.0.1"])["from"], *source(ipBlocks=["10.0.0.2"])["from"]]},
        when("source.ip", "192.0.2.1"),
    ),
}


@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradicting_clauses_are_found(what: str, options: Options) -> None:
    one_name_only = options is ISTIO and what == "a principal of another trust domain"  # there a peer may have several
    assert bool(never(CONTRADICTIONS[what], options)) is not one_name_only


POSSIBLE: dict[str, Rule] = {
    "some values are left": when("request.headers[x]", "a", "b", negated=["a"]),
    "a prefix is wider than what is excluded": operation(paths=["/a*"], notPaths=["/a/b"]),
    "a repeated header may have both": both(when("request.headers[x]", "a"), when("request.headers[x]", "b")),
    "a claim may be a list": both(when("request.auth.claims[x]", "a"), when("request.auth.claims[x]", "b")),
    "different headers": both(when("request.headers[x]", "a"), when("request.headers[y]", negated=["a"])),
    "one alternative is left": {
        "to": [*operation(paths=["/a"], notPaths=["/a"])["to"], *operation(paths=["/b"])["to"]]
    },
    "a prefix and a suffix may overlap": both(operation(paths=["/a*"]), operation(notPaths=["*a"])),
    "one prefix within another": both(source(principals=["td/ns/*"]), when("source.principal", "td/*")),
    "one prefix around another": both(source(principals=["td/*"]), when("source.principal", "td/ns/*")),
    "a namespace within another path": source(namespaces=["a"], notPrincipals=["*/ns/a/sa/b"]),
    "blocks of which one contains the other": both(source(ipBlocks=["10.0.0.0/8"]), when("source.ip", "10.1.0.0/16")),
    "presence and one value": when("request.headers[x]", "*", negated=["a"]),
}


@pytest.mark.parametrize("what", POSSIBLE)
def test_rules_that_can_match_are_not_reported(what: str) -> None:
    assert never(POSSIBLE[what]) == ""


def test_a_joined_header_satisfies_a_deny_rule_that_contradicts_itself() -> None:
    rule = when("request.headers[x]", "a", negated=["a"])
    assert never(rule, action="ALLOW")
    assert never(rule, action="DENY") == ""
    assert never(rule, ISTIO, action="DENY")


@pytest.mark.parametrize(("path", "dead"), [("/admin/*", True), ("/a:delete", False), ("/caf\u00e9", False)])
def test_an_encoded_path_satisfies_a_deny_rule_that_contradicts_itself(path: str, dead: bool) -> None:
    """A DENY compares the decoded path with `paths`, and the received path with `notPaths`."""
    rule = operation(paths=[path], notPaths=[path])
    assert bool(never(rule, action="DENY")) is dead
    assert never(rule)
    assert never(rule, ISTIO, action="DENY")


def test_a_claim_that_is_not_a_string_satisfies_a_deny_rule_that_contradicts_itself() -> None:
    rule = when("request.auth.claims[blocked]", "true", negated=["true"])
    assert (never(rule, action="DENY"), bool(never(rule))) == ("", True)


def test_a_condition_on_a_path_with_a_query_is_always_false_only_if_encoded_paths_are_refused() -> None:
    rule = {"condition": "request.path == '/a?b'"}
    document = {**policy("p", rule, action="DENY"), "apiVersion": "zta.dev/v1", "kind": "AccessPolicy"}
    assert kinds(document) == ["never_matches"]
    assert lint(table([document], STRICT)) == []


def test_a_host_with_a_port_satisfies_a_deny_rule_that_contradicts_itself() -> None:
    rule = operation(hosts=["a"], notHosts=["a"])
    assert (bool(never(rule)), never(rule, action="DENY")) == (True, "")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (operation(paths=["/a?x=1", "/b#top"]), "`/a?x=1`: paths are compared without query and fragment"),
        (operation(paths=["/a?*"]), "without query and fragment"),
        (operation(paths=["admin"]), "refused before any rule is evaluated: it does not start with `/`"),
        (operation(paths=["/a//b"]), "an empty segment"),
        (when("connection.sni", "API.example.com"), "`API.example.com`: server names are compared in lower case"),
        (source(principals=["cluster.local/ns/default/sa/web x"]), "not a valid SPIFFE ID"),
        (source(principals=["spiffe://td/x"]), "not a valid SPIFFE ID"),
    ],
)
def test_values_that_no_request_has_are_found(rule: Rule, message: str) -> None:
    assert message in never(rule)


@pytest.mark.parametrize(
    "rule",
    [
        operation(paths=["/a?x=1", "/b"]),
        source(principals=["spiffe*"]),
        when("connection.sni", "api.example.com"),
        operation(notPaths=["/a?x=1"]),
    ],
)
def test_one_possible_value_is_enough(rule: Rule) -> None:
    assert never(rule) == ""


def test_names_that_are_not_spiffe_ids_match_in_istio_semantics() -> None:
    assert never(source(principals=["cluster.local/ns/default/sa/web x"]), ISTIO) == ""


ACCESS = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p}
spec:
  expiresAt: %s
  rules:
  - from: [{source: {principals: ["*"]}}]
    effectiveFrom: %s
"""


@pytest.mark.parametrize(
    ("until", "since", "message"),
    [
        ("1970-01-01T00:16:40Z", "1970-01-01T00:00:00Z", "it has expired"),
        ("1970-01-01T00:20:00Z", "1970-01-01T00:20:00Z", "`time` and `time` contradict each other"),
        ("1970-01-01T00:16:41Z", "1970-01-01T00:00:00Z", ""),
    ],
)
def test_rules_that_are_expired_or_never_in_force_are_found(until: str, since: str, message: str) -> None:
    findings = lint(snapshot(ACCESS % (until, since)).table, now=1000.0)
    assert message in "".join(f.message for f in findings)
    assert bool(message) == bool(findings)


TIMED = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: %s}
spec: {action: %s, effectiveFrom: %s, expiresAt: %s, rules: [{from: [{source: {principals: ["*"]}}], condition: now != now}]}
"""


@pytest.mark.parametrize(
    ("since", "until", "shadowed"),
    [("2030-01-01", "2031-01-01", True), ("2029-01-01", "2032-01-01", True), ("2030-01-02", "2031-01-01", False)],
)
def test_a_deny_rule_must_be_in_force_whenever_the_allow_rule_is(since: str, until: str, shadowed: bool) -> None:
    allow = TIMED % ("a", "ALLOW", "2030-01-01T00:00:00Z", "2031-01-01T00:00:00Z")
    deny = TIMED % ("d", "DENY", f"{since}T00:00:00Z", f"{until}T00:00:00Z")
    findings = lint(snapshot(allow, deny).table)
    assert [f.kind for f in findings] == ([Kind.SHADOWED] if shadowed else [])


def test_lists_too_long_to_compare_prove_nothing() -> None:
    many = [f"/a/{number}*" for number in range(200)]
    names = [f"a{number}*" for number in range(200)]
    assert never(operation(paths=many, notPaths=[f"/a*{number}" for number in range(200)])) == ""
    assert never(operation(paths=many, notPaths=many))
    assert never(both(source(principals=names), when("source.principal", *(f"b{text}" for text in names)))) == ""


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        (source(**WEB), {}),
        (source(**WEB), source(principals=["cluster.local/*"])),
        (source(**WEB), source(namespaces=["default"])),
        (source(serviceAccounts=["default/web"]), source(namespaces=["default"])),
        (both(source(**WEB), operation(paths=["/admin/x", "/admin/y*"])), operation(paths=["/admin*"])),
        (operation(paths=["/admin/{*}"], methods=["GET"]), operation(paths=["/admin*"])),
        (operation(paths=["/admin/{*}"]), operation(paths=["/admin/{*}"])),
        (operation(methods=["GET"]), operation(notMethods=["POST", "P*"])),
        (operation(notPaths=["/public*", "/x"]), operation(notPaths=["/public/a"])),
        (operation(ports=["22"]), operation(ports=["22", "23"])),
        (operation(hosts=["API.example.com"]), operation(hosts=["*.example.com"])),
        (source(ipBlocks=["10.1.2.3"]), source(ipBlocks=["10.0.0.0/8", "::/0"])),
        (source(requestPrincipals=["iss/a"]), source(requestPrincipals=["iss/*"])),
        (when("request.headers[x]", "a"), when("request.headers[X]", "*")),
        (operation(paths=["/a"]), {"to": [*operation(paths=["/b"])["to"], *operation(paths=["/a*"])["to"]]}),
        (
            {"to": [*operation(paths=["/b/1"])["to"], *operation(paths=["/a/1"])["to"]]},
            {"to": [*operation(paths=["/b*"])["to"], *operation(paths=["/a*"])["to"]]},
        ),
    ],
)
def test_an_allow_rule_that_a_deny_rule_shadows_is_found(allow: Rule, deny: Rule) -> None:
    for options in (STRICT, ISTIO):
        findings = findings_of(
            policy("a", allow), policy("d", deny, action="DENY"), options=options, kind=Kind.SHADOWED
        )
        assert [(f.policy, f.rule, f.source) for f in findings] == [("default/a", 0, "a.yaml")]
        assert "rule 0 of DENY policy `default/d` (b.yaml:" in findings[0].message


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        (source(principals=["cluster.local/*"]), source(**WEB)),
        (operation(paths=["/admin/x", "/b"]), operation(paths=["/admin*"])),
        (source(**WEB), both(source(**WEB), operation(methods=["GET"]))),
        (source(**WEB), both(source(**WEB), when("request.headers[x]", "a"))),
        (operation(methods=["GET"]), operation(notMethods=["GET"])),
        (operation(notPaths=["/a"]), operation(notPaths=["/a", "/b"])),
        (operation(paths=["*"]), operation(paths=["/*"])),
        (source(ipBlocks=["10.0.0.0/7"]), source(ipBlocks=["10.0.0.0/8"])),
        (when("request.headers[x]", "a"), when("request.headers[x]", negated=["b"])),
        (
            {"to": [*operation(paths=["/b/1"])["to"], *operation(paths=["/c"])["to"]]},
            {"to": [*operation(paths=["/b*"])["to"], *operation(paths=["/a*"])["to"]]},
        ),
    ],
)
def test_an_allow_rule_that_may_decide_is_not_reported_as_shadowed(allow: Rule, deny: Rule) -> None:
    assert findings_of(policy("a", allow), policy("d", deny, action="DENY"), kind=Kind.SHADOWED) == []


def selecting(document: dict[str, Any], **labels: str) -> dict[str, Any]:
    document["spec"]["selector"] = {"matchLabels": labels}
    return document


@pytest.mark.parametrize(
    ("allow", "deny", "shadowed"),
    [
        ({}, {"namespace": "other"}, False),
        ({}, {"namespace": "istio-system"}, True),
        ({"namespace": "istio-system"}, {}, False),
        ({"namespace": "other"}, {"namespace": "other"}, True),
        ({}, {"annotations": {"istio.io/dry-run": "true"}}, False),
        ({"annotations": {"istio.io/dry-run": "true"}}, {}, False),
    ],
)
def test_a_rule_is_shadowed_only_for_the_workloads_of_the_deny_rule(
    allow: dict[str, Any], deny: dict[str, Any], shadowed: bool
) -> None:
    documents = [policy("a", source(**WEB), **allow), policy("d", {}, action="DENY", **deny)]
    assert bool(findings_of(*documents, kind=Kind.SHADOWED)) is shadowed


def test_labels_of_the_deny_policy_must_follow_from_those_of_the_allow_policy() -> None:
    rule = source(**WEB)

    def shadowed(allow: dict[str, str], deny: dict[str, str]) -> bool:
        documents = [selecting(policy("a", rule), **allow), selecting(policy("d", {}, action="DENY"), **deny)]
        return bool(findings_of(*documents, kind=Kind.SHADOWED))

    assert shadowed({"app": "web", "v": "1"}, {"app": "web"})
    assert not shadowed({"app": "web"}, {"app": "web", "v": "1"})
    assert not shadowed({"app": "web"}, {"app": "api"})


def test_rules_that_match_the_same_requests_are_found_however_they_are_written() -> None:
    one = both(source(principals=["a/b", "c/d"]), when("request.headers[X-A]", "1"))
    other = both(when("source.principal", "c/d", "a/b"), when("request.headers[x-a]", "1"))
    (finding,) = findings_of(policy("p", one), policy("q", other))
    assert (finding.kind, finding.policy, finding.rule) == (Kind.DUPLICATE, "default/q", 0)
    assert "rule 0 of ALLOW policy `default/p` (a.yaml:1)" in finding.message


def test_every_copy_of_a_rule_but_the_first_is_found() -> None:
    rules = [source(principals=["a/b"])] * (MAX_COMPARED * 2)
    assert [f.rule for f in findings_of(policy("p", *rules))] == list(range(1, len(rules)))


@pytest.mark.parametrize(
    "documents",
    [
        [policy("p", source(**WEB)), policy("q", operation(methods=["GET"]))],
        [policy("p", source(**WEB)), policy("q", source(**WEB), namespace="other")],
        [policy("p", source(**WEB)), policy("q", source(**WEB), action="AUDIT")],
        [policy("p", source(**WEB)), policy("q", source(**WEB), annotations={"istio.io/dry-run": "true"})],
        [policy("p", source(serviceAccounts=["web"])), policy("q", source(serviceAccounts=["web"]), namespace="o")],
        [selecting(policy("p", source(**WEB)), app="a"), policy("q", source(**WEB))],
    ],
)
def test_rules_that_differ_are_not_duplicates(documents: list[dict[str, Any]]) -> None:
    assert kinds(*documents) == []


def unauthenticated(*documents: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(f.policy, f.level.value) for f in findings_of(*documents, kind=Kind.UNAUTHENTICATED)]


@pytest.mark.parametrize(
    ("rule", "level"),
    [
        ({}, "info"),
        (operation(paths=["/healthz"]), "info"),
        (source(ipBlocks=["10.0.0.0/8"]), "info"),
        ({"from": [*source(**WEB)["from"], *source(ipBlocks=["10.0.0.0/8"])["from"]]}, "info"),
        (when("request.auth.claims[role]", negated=["guest"]), "warning"),
        (when("source.principal", negated=["a/b"]), "warning"),
        (source(**WEB), None),
        (source(requestPrincipals=["*"]), None),
        (when("request.auth.audiences", "api"), None),
        (both(operation(paths=["/a"]), when("request.auth.claims[role]", "x", negated=["y"])), None),
        (source(notPrincipals=["a/b"]), None),  # the compiler warns of it
        (when("experimental.envoy.filters.jwt[iss]", "x"), None),  # may stand for an identity
    ],
)
def test_allow_rules_that_require_no_identity_are_reported(rule: Rule, level: str | None) -> None:
    assert unauthenticated(policy("p", rule)) == ([("default/p", level)] if level else [])


@pytest.mark.parametrize(
    ("guard", "named"),
    [
        (source(notPrincipals=["*"]), False),
        (source(notRequestPrincipals=["*"], notPrincipals=["*"]), False),
        ({}, False),
        (both(source(notPrincipals=["*"]), operation(methods=["POST"])), True),
    ],
)
def test_a_deny_rule_for_all_callers_without_identity_removes_the_finding(guard: Rule, named: bool) -> None:
    documents = [policy("p", operation(paths=["/a"])), policy("d", guard, action="DENY")]
    assert bool(unauthenticated(*documents)) is named


def test_deny_and_audit_rules_need_not_require_an_identity() -> None:
    documents = [policy("d", operation(paths=["/x"]), action="DENY"), policy("a", {}, action="AUDIT")]
    assert unauthenticated(*documents) == []


CONDITION = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: p}
spec: {rules: [{condition: '%s'}]}
"""
ENTITLEMENT = """
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {name: db}
spec:
  who: [{source: {requestPrincipals: ["*"]}}]
  maxDuration: 1h
  approvers: [{from: [{source: {requestPrincipals: ["*"]}}]}]
"""
ASKING = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p}\nspec: {rules: [%s]}\n"


@pytest.mark.parametrize(
    "rule",
    [
        "{require: {token: {bound: true}}}",
        "{require: {token: {maxAge: 5m}}}",
        "{when: [{key: zta.apiClient, values: [acme]}]}",
        "{when: [{key: zta.apiScopes, values: ['orders:*']}]}",
    ],
)
def test_a_required_token_or_api_key_counts_as_an_identity(rule: str) -> None:
    assert lint(snapshot(ASKING % rule).table) == []


@pytest.mark.parametrize(
    ("requirement", "named"),
    [
        ("{grant: db}", False),
        ("{device: {managed: true}}", False),
        ("{device: {seenWithin: 24h}}", False),
        ('{device: {osAtLeast: {macOS: "26.1"}}}', False),
        ("{device: {jailbroken: false}}", True),
        ("{network: {corporate: true}}", True),
    ],
)
def test_a_required_grant_or_good_device_counts_as_an_identity(requirement: str, named: bool) -> None:
    entitlement = "\n---\n".join((ASKING % f"{{require: {requirement}}}", ENTITLEMENT))
    findings = lint(snapshot(entitlement).table)
    assert [finding.kind for finding in findings] == [Kind.UNAUTHENTICATED] * named


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        ('request.path == "/a"', True),
        ('claims.role == "x"', False),
        ('source.namespace == "a"', False),
        ('token.subject == ""', True),
        ('token.subject != ""', False),
        ('!(token.subject == "")', False),
        ('request.path == "/a" || token.subject != ""', True),
        ('request.path == "/a" && token.subject != ""', False),
        ('source.principal != "spiffe://td/evil"', True),
        ('request.path == "/a" ? true : token.subject != ""', True),
        ('token.subject != "" ? request.path == "/a" : false', False),
        ("has(claims.role)", False),
        ("!has(claims.role)", True),
        ('claims.role == request.headers["x"]', False),
        ('token.subject == request.headers["x"]', True),
        ("apiClient.scopes.exists(s, s == request.path)", True),
        ('apiClient.name == "acme"', False),
        ('"claims.role" == request.path', True),
    ],
)
def test_a_condition_counts_as_requiring_identity_only_if_no_caller_without_identity_satisfies_it(
    condition: str, named: bool
) -> None:
    findings = lint(snapshot(CONDITION % condition).table)
    assert [f.kind for f in findings] == ([Kind.UNAUTHENTICATED] if named else [])


def test_findings_are_ordered_by_position() -> None:
    documents = [policy(name, {}, {}) for name in ("b", "a")]
    places = [(f.source, f.line) for f in lint(table(documents))]
    assert places == sorted(places)


def test_paths_that_are_accepted_although_ambiguous_may_match() -> None:
    findings = lint(table([policy("p", operation(paths=["/a//b"]))], replace(STRICT, accept_ambiguous_paths=True)))
    assert [f.kind for f in findings] == [Kind.UNAUTHENTICATED]


def test_the_cost_is_linear_in_the_number_of_rules() -> None:
    def seconds(count: int) -> float:
        rules = [[operation(notPaths=[f"/{n}/{i}*"]) for i in range(50)] for n in range(count // 50)]
        documents = [policy(f"p{n}", *r, action="DENY" if n % 2 else "ALLOW") for n, r in enumerate(rules)]
        made = table(documents)
        started = time.perf_counter()
        lint(made)
        return time.perf_counter() - started

    seconds(200)
    assert seconds(4000) < 40 * max(seconds(400), 0.01)  # ten times the rules; a hundred times if it were the square


def test_messages_name_no_internal_types() -> None:
    documents = [policy("p", *CONTRADICTIONS.values()), policy("d", {}, action="DENY")]
    assert [f.message for f in lint(table(documents)) if re.search(r"Clause|Matcher|object at", f.message)] == []


@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        (operation(methods=["GET", "delete"]), "write `DELETE` for `delete`"),
        (operation(notMethods=["Post"]), "write `POST` for `Post`"),
        (operation(methods=["p*"]), "write `P*` for `p*`"),
        (operation(methods=["*ete"]), "write `*ETE` for `*ete`"),
        (both(operation(methods=["GET"]), operation(methods=["get"])), "write `GET` for `get`"),
        (when("request.headers[:method]", "delete"), "write `DELETE` for `delete`"),
    ],
)
def test_a_method_in_lower_case_gives_a_warning(rule: Rule, meant: str, action: str, options: Options) -> None:
    warned = findings_of(policy("p", rule, action=action), options=options, kind=Kind.METHOD_CASE)
    assert [(finding.level, finding.hint) for finding in warned] == [(Level.WARNING, meant)]


@pytest.mark.parametrize("methods", [["GET", "*"], ["M-SEARCH", "P*"]])
def test_methods_in_upper_case_give_no_warning(methods: list[str]) -> None:
    assert findings_of(policy("p", operation(methods=methods)), kind=Kind.METHOD_CASE) == []


def test_a_denial_by_method_that_an_override_header_bypasses_is_reported_once() -> None:
    denied = policy("d", operation(methods=["DELETE"]), operation(methods=["PUT"]), action="DENY")
    assert [f.level for f in findings_of(denied, kind=Kind.METHOD_OVERRIDE)] == [Level.INFO]
    for other in (
        policy("a", operation(methods=["DELETE"])),
        policy("d", operation(methods=["DELETE", "POST"]), action="DENY"),
        policy("d", operation(methods=["*"]), action="DENY"),
        policy("d", operation(notMethods=["GET"]), action="DENY"),
        policy("d", operation(paths=["/x"]), action="DENY"),
    ):
        assert findings_of(other, kind=Kind.METHOD_OVERRIDE) == []
    overrides = policy("o", when("request.headers[x-http-method-override]", "*"), action="DENY")
    assert findings_of(denied, overrides, kind=Kind.METHOD_OVERRIDE) == []

"""The shape of AuthorizationPolicy: whatever Istio would silently weaken is a fault with position and hint."""

from __future__ import annotations

import pytest

from tests.support.policies import STRICT, faults, request, snapshot, warnings
from zta_authz.model.identity import Identity
from zta_authz.pdp.decide import combine
from zta_authz.policy.rules.inputs import Inputs

TOP = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
HEAD = f"{TOP}metadata: {{name: p}}\n"
_SOURCE_FIELDS = (
    "ipBlocks, namespaces, notIpBlocks, notNamespaces, notPrincipals, notRemoteIpBlocks, notRequestPrincipals, "
    "notServiceAccounts, notTrustDomains, principals, remoteIpBlocks, requestPrincipals, serviceAccounts, trustDomains"
)


def spec(text: str) -> str:
    return f"{HEAD}spec: {text}\n"


def rule(text: str) -> str:
    """A rule whose text starts at line 5, column 3."""
    return f"{HEAD}spec: {{action: DENY, rules: [\n  {text}]}}\n"


def source(text: str) -> str:
    """A source whose fields start at line 5, column 21."""
    return rule(f"{{from: [{{source: {{{text}}}}}]}}")


def operation(text: str) -> str:
    """An operation whose fields start at line 5, column 22."""
    return rule(f"{{to: [{{operation: {{{text}}}}}]}}")


def when(text: str) -> str:
    """A condition whose fields start at line 5, column 12."""
    return rule(f"{{when: [{{{text}}}]}}")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (spec("{ruels: []}"), "4:8: unknown field `ruels` in AuthorizationPolicy.spec; did you mean `rules`?"),
        (spec("{action: BLOCK}"), "4:16: unknown action `BLOCK`; one of ALLOW, DENY, AUDIT, CUSTOM"),
        (spec("{action: deny, rules: [{}]}"), "4:16: unknown action `deny`; write `DENY`"),
        (
            spec("{action: }"),
            "4:16: `action` has no value where a string is expected; write the value or remove the field",
        ),
        (spec("{provider: {name: x}}"), "4:18: `provider` is for action CUSTOM, not ALLOW; remove it"),
        (
            spec("{action: DENY}"),
            "4:7: a policy with action DENY has no rules, so it would do nothing; add `rules`",
        ),
        (
            spec("{action: AUDIT, rules: []}"),
            "4:7: a policy with action AUDIT has no rules, so it would do nothing; add `rules`",
        ),
        (spec("{rules: {}}"), "4:15: `rules` is a mapping where a list of rules is expected; write a list of rules"),
        (
            spec("\n  rules:"),
            "5:9: `rules` has no value where a list of rules is expected; write the value or remove the field",
        ),
        (
            spec(f"{{rules: [{', '.join(['{}'] * 513)}]}}"),
            "4:15: 513 rules, more than the limit of 512 in one policy; split the policy",
        ),
        (
            spec("{rules: [[]]}"),
            "4:16: `a rule` is a list where a mapping of fields is expected; write a mapping of fields",
        ),
        (rule("x"), "5:3: `a rule` is a string where a mapping of fields is expected; write a mapping of fields"),
        (rule("{form: []}"), "5:4: unknown field `form` in a rule; did you mean `from`?"),
        (rule("{condition: 'true'}"), "5:4: unknown field `condition` in a rule; known fields: from, to, when"),
    ],
)
def test_an_invalid_spec_is_reported_with_position_and_hint(text: str, fault: str) -> None:
    assert faults(text) == [f"a.yaml:{fault}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            rule("{from: []}"),
            "5:10: `from` is an empty list; list at least one of the `source` entries, or remove the field",
        ),
        (
            rule("{from: {source: {}}}"),
            "5:10: `from` is a mapping where a list of `source` entries is expected; write a list of `source` entries",
        ),
        (rule("{to: [{}]}"), "5:9: an entry of `to` has no `operation`; add `operation`"),
        (
            rule("{from: [{source: }]}"),
            "5:20: `source` has no value where a mapping of fields is expected; write the value or remove the field",
        ),
        (
            source(""),
            (
                "5:20: `source` is empty, so it would match everything; "
                "name at least one of principals, requestPrincipals, namespaces, …, or remove the entry"
            ),
        ),
        (
            operation(""),
            (
                "5:21: `operation` is empty, so it would match everything; "
                "name at least one of hosts, ports, methods, …, or remove the entry"
            ),
        ),
        (source("principles: [a]"), "5:21: unknown field `principles` in source; did you mean `principals`?"),
        (source("zzz: [a]"), f"5:21: unknown field `zzz` in source; known fields: {_SOURCE_FIELDS}"),
        (
            operation("methods: [NO]"),
            '5:32: `methods` has the boolean `NO` where a string is expected; write it in quotes: "NO"',
        ),
        (
            operation("ports: [80]"),
            '5:30: `ports` has the integer `80` where a string is expected; write it in quotes: "80"',
        ),
        (
            operation("paths: [2020-01-01]"),
            '5:30: `paths` has the timestamp `2020-01-01` where a string is expected; write it in quotes: "2020-01-01"',
        ),
        (
            operation("hosts: [12:30]"),
            '5:30: `hosts` has the number `12:30` where a string is expected; write it in quotes: "12:30"',
        ),
        (
            operation("methods: [~]"),
            "5:32: `methods` has no value where a string is expected; write the value or remove the field",
        ),
        (operation("methods: [{a: b}]"), "5:32: `methods` is a mapping where a string is expected; write a string"),
        (operation("methods: ['']"), "5:32: `methods` is empty; write a value or remove the field"),
        (
            operation("methods: []"),
            "5:31: `methods` is an empty list; list at least one of the strings, or remove the field",
        ),
        (
            operation("notPaths: /a"),
            "5:32: `notPaths` is a string where a list of strings is expected; write a list of strings",
        ),
        (
            source("serviceAccounts: [a], notPrincipals: [b]"),
            "5:39: `serviceAccounts` can't be combined with `principals` or `namespaces`; use one of them in a source",
        ),
        (
            source("namespaces: [b], serviceAccounts: [a]"),
            "5:34: `serviceAccounts` can't be combined with `principals` or `namespaces`; use one of them in a source",
        ),
        (
            source(f"serviceAccounts: [{', '.join(f'a{n}' for n in range(17))}]"),
            "5:39: more than 16 service accounts in one source; add another source",
        ),
    ],
)
def test_an_invalid_source_or_operation_is_reported_with_position_and_hint(text: str, fault: str) -> None:
    assert faults(text) == [f"a.yaml:{fault}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("values: [a]", ["5:11: a condition has no `key`; add `key`"]),
        (
            "key: source.ip",
            ["5:11: condition on `source.ip` has neither `values` nor `notValues`; add one of them"],
        ),
        (
            "key: source.ip, value: [a]",
            [
                "5:11: condition on `source.ip` has neither `values` nor `notValues`; add one of them",
                "5:28: unknown field `value` in a condition; did you mean `values`?",
            ],
        ),
        (
            "key: 7, values: [a]",
            ['5:17: `key` has the integer `7` where a string is expected; write it in quotes: "7"'],
        ),
        (
            "key: source.ip, notValues: []",
            ["5:39: `notValues` is an empty list; list at least one of the strings, or remove the field"],
        ),
    ],
)
def test_an_invalid_condition_is_reported_with_position_and_hint(text: str, expected: list[str]) -> None:
    assert faults(when(text)) == [f"a.yaml:{fault}" for fault in expected]


def test_a_condition_that_is_not_a_mapping_is_a_fault() -> None:
    assert faults(rule("{when: [x]}")) == [
        "a.yaml:5:11: `a condition` is a string where a mapping of fields is expected; write a mapping of fields"
    ]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("{matchLables: {a: b}}", ["4:19: unknown field `matchLables` in selector; did you mean `matchLabels`?"]),
        ("[a]", ["4:18: `selector` is a list where a mapping of fields is expected; write a mapping of fields"]),
        ("{matchLabels: {app: 'w*'}}", ["4:32: label `app: w*` can't be selected; write it without `*`"]),
        (
            "{matchLabels: {app: 1}}",
            ['4:38: `matchLabels.app` has the integer `1` where a string is expected; write it in quotes: "1"'],
        ),
        (
            "{matchLabels: {on: x}}",
            ['4:33: `matchLabels` has the boolean `on` as a key; write it in quotes: "on"'],
        ),
        (
            "{matchLabels: [a]}",
            ["4:32: `matchLabels` is a list where a mapping of strings is expected; write a mapping of strings"],
        ),
    ],
)
def test_an_invalid_selector_is_reported_with_position_and_hint(selector: str, expected: list[str]) -> None:
    assert faults(spec(f"{{selector: {selector}}}")) == [f"a.yaml:{fault}" for fault in expected]


@pytest.mark.parametrize(
    ("annotation", "body", "fault"),
    [
        ("'yes'", "{}", '3:53: annotation `istio.io/dry-run` is `yes`; write "true" or "false"'),
        (
            "true",
            "{}",
            (
                "3:53: `metadata.annotations.istio.io/dry-run` has the boolean `true` where a string is expected; "
                'write it in quotes: "true"'
            ),
        ),
    ],
)
def test_an_invalid_dry_run_is_reported_with_position_and_hint(annotation: str, body: str, fault: str) -> None:
    text = f"{TOP}metadata: {{name: p, annotations: {{istio.io/dry-run: {annotation}}}}}\nspec: {body}\n"
    assert faults(text) == [f"a.yaml:{fault}"]


def test_512_rules_are_accepted() -> None:
    assert snapshot(spec(f"{{rules: [{', '.join(['{}'] * 512)}]}}")).table.rule_count == 512


def test_16_service_accounts_are_accepted() -> None:
    assert faults(source(f"serviceAccounts: [{', '.join(f'a{n}' for n in range(16))}]")) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
            "action CUSTOM delegates the decision to another service",
        ),
        ("{targetRefs: [{kind: Gateway}]}", "`targetRefs` attaches it to a gateway or waypoint"),
        ("{targetRef: {kind: Gateway}}", "`targetRefs` attaches it to a gateway or waypoint"),
    ],
)
def test_a_policy_that_only_istio_can_enforce_gives_a_warning(body: str, why: str) -> None:
    text = spec(body)
    assert warnings(text) == [
        f"a.yaml:1:1: AuthorizationPolicy `default/p` is not enforced here: {why}; leave it to Istio and remove it here"
    ]
    assert snapshot(text).table.policies == ()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ("notPrincipals: [a]", "notPrincipals"),
        ("notNamespaces: [a]", "notNamespaces"),
        ("notServiceAccounts: [a]", "notServiceAccounts"),
        ("notTrustDomains: [a]", "notTrustDomains"),
        ("notRequestPrincipals: [a], ipBlocks: ['10.0.0.0/8']", "notRequestPrincipals"),
    ],
)
def test_an_allow_that_callers_without_identity_satisfy_gives_a_warning(fields: str, field: str) -> None:
    actual = warnings(spec(f"{{rules: [{{from: [{{source: {{{fields}}}}}]}}]}}"))
    assert actual == [
        (
            f"a.yaml:4:{37 + len(field)}: `{field}` alone admits callers without any identity (policy `default/p`); "
            'add `principals: ["*"]` (or `requestPrincipals: ["*"]`) beside it'
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        spec("{rules: [{from: [{source: {notPrincipals: [a], principals: ['*']}}]}]}"),
        spec("{rules: [{from: [{source: {ipBlocks: ['10.0.0.0/8']}}]}]}"),
        spec("{action: DENY, rules: [{from: [{source: {notPrincipals: [a]}}]}]}"),
    ],
)
def test_no_warning_if_an_identity_is_required_or_the_policy_denies(text: str) -> None:
    assert warnings(text) == []


def dry_run(value: str, action: str) -> str:
    return (
        f"{TOP}metadata: {{name: p, annotations: {{istio.io/dry-run: '{value}'}}}}\n"
        f"spec: {{action: {action}, rules: [{{}}]}}\n"
    )


@pytest.mark.parametrize("value", ["1", "t", "T", "TRUE", "true", "True"])
def test_the_dry_run_annotation_accepts_every_true_value_of_go(value: str) -> None:
    assert snapshot(dry_run(value, "DENY")).table.policies[0].ref.dry_run


@pytest.mark.parametrize("value", ["0", "f", "F", "FALSE", "false", "False"])
def test_the_dry_run_annotation_accepts_every_false_value_of_go(value: str) -> None:
    assert not snapshot(dry_run(value, "DENY")).table.policies[0].ref.dry_run


@pytest.mark.parametrize("value", ["yes", "on", "tRUE", "", "2"])
def test_any_other_value_of_the_dry_run_annotation_is_a_fault(value: str) -> None:
    assert len(faults(dry_run(value, "DENY"))) == 1


def test_a_dry_run_of_an_audit_policy_gives_a_warning_and_never_decides() -> None:
    """Istio builds shadow rules of a LOG filter (pilot/pkg/security/authz/builder), which have no effect."""
    allow = f"{TOP}metadata: {{name: a}}\nspec: {{rules: [{{}}]}}\n"
    audit = dry_run("false", "AUDIT").replace("name: p", "name: b")
    (warning,) = warnings(allow, audit, dry_run("true", "AUDIT"))
    assert "no effect in Istio" in warning
    view = snapshot(allow, audit, dry_run("true", "AUDIT")).table.default_view
    decision = combine(view, Inputs(request(), Identity(), STRICT), default_allow=False)
    assert decision.allowed
    actual = [(shadow.action, shadow.policy, shadow.dry_run) for shadow in decision.shadows]
    assert actual == [("AUDIT", "default/b", False), ("AUDIT", "default/p", True)]

"""AccessPolicy: the fields that Istio does not have, and its faults."""

from __future__ import annotations

from datetime import datetime

import pytest

from zta_authz.errors import DocumentErrors
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.explain import explain
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

DENY = "  action: DENY\n  rules: [{}]\n"
FRONTEND = Evidence("spiffe://cluster.local/ns/shop/sa/frontend")
HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: a}\nspec:\n"


def snapshot(spec: str) -> Snapshot:
    return compile_snapshot([SourceText("a.yaml", HEAD + spec)], Options(trust_proxy=True))


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def reason(spec: str, now: float = 0.0, **request: object) -> str:
    attributes = RequestAttributes(**{"method": "GET", "path": "/"} | request)  # type: ignore[arg-type]
    return evaluate(snapshot(spec), attributes, FRONTEND, now).reason.value


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_an_unknown_condition_never_widens_access(action: str) -> None:
    spec = f'  action: {action}\n  rules: [{{condition: "claims.level > 3"}}]\n'
    allowed = HEAD.replace("name: a", "name: open") + "  rules: [{}]\n"
    texts = [SourceText("a.yaml", HEAD + spec)]
    if action == "DENY":
        texts.append(SourceText("b.yaml", allowed))
    decision = evaluate(compile_snapshot(texts, Options()), RequestAttributes(method="GET", path="/"), Evidence(), 0.0)
    assert decision.reason.value == {"ALLOW": "no_matching_policy", "DENY": "deny_policy"}[action]


def test_a_condition_applies_in_addition_to_istios_fields() -> None:
    spec = """
  rules:
  - from: [{source: {namespaces: [shop]}}]
    to: [{operation: {methods: [GET]}}]
    condition: request.headers['x-team'] == 'hats'
"""
    hats = Headers({"x-team": ("hats",)}, exact=True)
    assert reason(spec, headers=hats) == "allow_policy"
    assert reason(spec, headers=hats, method="PUT") == "no_matching_policy"
    assert reason(spec, headers=Headers({"x-team": ("caps",)}, exact=True)) == "no_matching_policy"


def test_a_policy_and_a_rule_are_in_force_between_their_times() -> None:
    spec = """
  effectiveFrom: 2026-01-01T00:00:00Z
  rules: [{expiresAt: "2026-02-01T00:00:00+01:00"}]
"""
    assert reason(spec, at("2025-12-31T23:59:59Z")) == "no_matching_policy"
    assert reason(spec, at("2026-01-01T00:00:00Z")) == "allow_policy"
    assert reason(spec, at("2026-01-31T22:59:59Z")) == "allow_policy"
    assert reason(spec, at("2026-01-31T23:00:00Z")) == "no_matching_policy"


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-11-20T08:59:59+01:00", False),  # a Friday
        ("2026-11-20T09:00:00+01:00", True),
        ("2026-11-20T16:59:59+01:00", True),
        ("2026-11-20T17:00:00+01:00", False),
        ("2026-11-21T10:00:00+01:00", False),  # Saturday
        ("2026-11-21T22:00:00+01:00", True),  # its night
        ("2026-11-22T05:59:00+01:00", True),
        ("2026-11-22T06:00:00+01:00", False),
        ("2026-07-10T09:30:00+02:00", True),  # a Friday in summer
        ("2026-07-10T08:30:00+02:00", False),
    ],
)
def test_weekly_windows_follow_the_local_time_of_their_zone(moment: str, open_: bool) -> None:
    spec = """
  schedule:
    timeZone: Europe/Berlin
    windows:
    - {days: [Mon, Tue, Wed, Thu, Fri], from: "09:00", to: "17:00"}
    - {days: [Sat], from: "22:00", to: "06:00"}
  rules: [{}]
"""
    assert (reason(spec, at(moment)) == "allow_policy") is open_


def test_a_rules_response_replaces_its_policys() -> None:
    spec = """
  response: {headers: {set: [{name: X-Team, value: hats}], remove: [X-Debug]}}
  rules:
  - to: [{operation: {paths: [/own]}}]
    response: {headers: {set: [{name: x-own, value: "1"}]}}
  - {}
"""
    compiled = snapshot(spec)
    own = evaluate(compiled, RequestAttributes(method="GET", path="/own"), FRONTEND, 0.0).response
    other = evaluate(compiled, RequestAttributes(method="GET", path="/x"), FRONTEND, 0.0).response
    assert own.set_headers == (("x-own", "1"),)
    assert (other.set_headers, other.remove_headers) == ((("x-team", "hats"),), ("x-debug",))
    assert compiled.table.output_headers == {"x-team", "x-own"}


def test_a_header_whose_claim_is_absent_is_removed_so_that_clients_cannot_set_it() -> None:
    spec = "  rules: [{response: {headers: {set: [{name: x-sub, claim: sub}, {name: x-deep, claim: [a, b]}]}}}]\n"
    response = evaluate(snapshot(spec), RequestAttributes(method="GET", path="/"), FRONTEND, 0.0).response
    assert (response.set_headers, response.remove_headers) == ((), ("x-sub", "x-deep"))


def test_a_denial_may_redirect() -> None:
    spec = """
  action: DENY
  response: {redirect: {status: 303, location: "https://login.example/"}, message: please log in}
  rules: [{}]
"""
    response = evaluate(snapshot(spec), RequestAttributes(method="GET", path="/"), FRONTEND, 0.0).response
    assert (response.status, response.set_headers) == (303, (("location", "https://login.example/"),))
    assert response.message == "please log in"


def test_an_explanation_shows_weekly_windows_and_the_local_time() -> None:
    spec = """
  schedule:
    timeZone: Europe/Berlin
    windows: [{days: [Mon, Fri], from: "09:00", to: "17:00"}, {from: "22:00", to: "23:30"}]
  rules: [{}]
"""
    explanation = explain(
        snapshot(spec), RequestAttributes(method="GET", path="/"), FRONTEND, at("2026-11-20T16:30:00Z")
    )
    assert explanation.nearest[0].failed == (
        (
            "time: saw `2026-11-20T16:30:00Z Fri` (`Fri 17:30` in Europe/Berlin), "
            "rule has `Mon,Fri 09:00-17:00; every day 22:00-23:30 in Europe/Berlin`"
        ),
    )


def test_an_explanation_shows_conditions_and_times() -> None:
    spec = """
  rules:
  - condition: request.method == 'PUT'
    expiresAt: 2020-01-01T00:00:00Z
"""
    explanation = explain(
        snapshot(spec), RequestAttributes(method="GET", path="/"), FRONTEND, at("2026-11-21T00:00:00Z")
    )
    assert explanation.nearest[0].failed == (
        "time: saw `2026-11-21T00:00:00Z Sat`, rule has `until 2020-01-01T00:00:00Z`",
        (
            "condition: saw false: `request.method == 'PUT'` is false (`request.method` is `\"GET\"`), "
            "rule has `request.method == 'PUT'`"
        ),
    )


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("  action: CUSTOM\n  rules: [{}]\n", "5:11: unknown action `CUSTOM`"),
        ("  action: DENY\n", "5:3: a policy with action DENY has no rules"),
        ("  rule: []\n", "5:3: unknown field `rule` in AccessPolicy.spec; did you mean `rules`?"),
        ("  rules: [{conditions: x}]\n", "5:12: unknown field `conditions` in a rule; did you mean `condition`?"),
        ("  rules: [{condition: true}]\n", "5:23: `condition` has the boolean `true` where a string is expected"),
        ('  rules: [{condition: "nobody == 1"}]\n', "5:23: condition, line 1 column 1: undeclared reference"),
        ("  effectiveFrom: 2026-01-01\n", "5:18: `effectiveFrom` is not a time with its offset (RFC 3339)"),
        ("  expiresAt: 2026-01-01T00:00:00\n", "5:14: `expiresAt` is not a time with its offset (RFC 3339)"),
        (
            "  effectiveFrom: 2026-01-02T00:00:00Z\n  expiresAt: 2026-01-01T00:00:00Z\n",
            "6:14: `expiresAt` is not after `effectiveFrom`",
        ),
        ("  schedule: {windows: [{from: '09:00', to: '10:00'}]}\n", "5:13: schedule has no `timeZone`"),
        ("  schedule: {timeZone: UTC}\n", "5:13: schedule has no `windows`"),
        ("  schedule: {timeZone: Mars/Base, windows: []}\n", "5:24: unknown time zone `Mars/Base`"),
        ("  schedule: {timeZone: ../../etc/passwd, windows: []}\n", "5:24: unknown time zone"),
        ("  schedule: {timeZone: UTC, windows: [{days: [Caturday], from: '1:00', to: '25:00'}]}\n", "unknown day"),
        ("  schedule: {timeZone: UTC, windows: [{from: '1:00', to: '02:00'}]}\n", "`from` is not a time of day"),
        ("  schedule: {timeZone: UTC, windows: [{from: '01:00', to: '24:01'}]}\n", "`to` is not a time of day"),
        ("  schedule: {timeZone: UTC, windows: [{from: '01:00'}]}\n", "a weekly window has no `to`"),
        (DENY + "  response: {status: 200}\n", "7:22: `status` is not an HTTP status from 400 to 599"),
        (DENY + "  response: {status: '404'}\n", "7:22: `status` is not an HTTP status from 400 to 599"),
        (DENY + "  response: {redirect: {location: '//evil.example'}}\n", "`location` is not a URL or a path"),
        (DENY + "  response: {redirect: {status: 304, location: /}}\n", "`status` is not one of"),
        (DENY + "  response: {status: 403, redirect: {location: /}}\n", "`response` has both `status` and `redirect`"),
        (DENY + '  response: {message: "a\\nb"}\n', "`message` must be one line"),
        ("  response: {headers: {set: [{name: x-zta-principal, value: me}]}}\n", "a policy can't change header"),
        ("  response: {headers: {set: [{name: X_ZTA_principal, value: me}]}}\n", "a policy can't change header"),
        ("  response: {headers: {set: [{name: 'a b', value: me}]}}\n", "`a b` in `name` is not a header name"),
        ("  response: {headers: {set: [{name: a}]}}\n", "header `a` needs either `value` or `claim`"),
        (
            "  response: {headers: {set: [{name: a, value: x, claim: y}]}}\n",
            "header `a` needs either `value` or `claim`",
        ),
        ('  response: {headers: {set: [{name: a, value: "x\\r\\ny"}]}}\n', "`value` must be one line"),
        ("  response: {headers: {set: [{name: a, value: x}], remove: [A]}}\n", "`a` is both set and removed"),
        ("  response: {headers: {remove: [host]}}\n", "a policy can't change header `host`"),
    ],
)
def test_an_invalid_policy_is_reported_with_position_and_reason(spec: str, fault: str) -> None:
    with pytest.raises(DocumentErrors) as error:
        snapshot(spec)
    assert fault in str(error.value)
    assert all(reported.hint for reported in error.value.faults)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("  rules: [{}]\n  response: {status: 401}\n", "`status` is for denials, but this policy has action ALLOW"),
        ("  rules: [{response: {message: never}}]\n", "`message` is for denials, but this policy has action ALLOW"),
        (
            "  action: ALLOW\n  rules: [{}]\n  response: {redirect: {location: /login}}\n",
            "`redirect` is for denials, but this policy has action ALLOW",
        ),
        ("  action: AUDIT\n  rules: [{}]\n  response: {headers: {remove: [a]}}\n", "action AUDIT never decides"),
        (DENY + "  response: {headers: {remove: [a]}}\n", "`headers.remove` would do nothing"),
        (
            DENY + "  response: {redirect: {location: /a}, headers: {set: [{name: Location, value: /b}]}}\n",
            "both `redirect` and a header `location`",
        ),
        (
            "  rules: [{}]\n  response: {headers: {set: [{name: a, value: x}, {name: A, value: z}]}}\n",
            "header `a` is set twice",
        ),
        ("  rules: [{}]\n  response: {headers: {remove: [a, A]}}\n", "header `a` is removed twice"),
        (
            "  rules: [{}]\n  response: {headers: {set: [{name: Set-Cookie, value: a=b}]}}\n",
            "`set-cookie` is a response header",
        ),
        ("  rules: [{}]\n  response: {}\n", "`response` is empty"),
        (
            DENY + "  response: {headers: {set: [{name: Content-Type, value: a/b}]}}\n",
            "can't set `content-type` on a denial",
        ),
        (
            DENY + "  response: {headers: {set: [{name: grpc-status, value: '0'}]}}\n",
            "can't set `grpc-status` on a denial",
        ),
        (DENY + "  response: {headers: {set: [{name: server, value: a}]}}\n", "can't set `server` on a denial"),
        (
            DENY + "  response: {headers: {set: [{name: retry-after, value: '1'}, {name: retry-after, value: '2'}]}}\n",
            "header `retry-after` is set twice",
        ),
        (
            '  rules: [{}]\n  response: {headers: {remove: [a]}, tokenDenials: ["*"]}\n',
            "`tokenDenials` is for denials",
        ),
        (DENY + '  response: {tokenDenials: ["*"]}\n', "`tokenDenials` alone changes no answer"),
        (DENY + "  response: {status: 401, tokenDenials: [peer_revoked]}\n", "not a token denial reason"),
        (DENY + "  response: {status: 401, tokenDenials: []}\n", "`tokenDenials`"),
        ("  rules: [{}]\n  response: {headers: {}}\n", "`headers` is empty"),
        (
            "  rules: [{response: {headers: {remove: [a]}}}]\n  response: {headers: {remove: [b]}}\n",
            "every rule has its own `response`",
        ),
        ("  response: {headers: {remove: [a]}}\n", "the policy has no rules, so `response` would do nothing"),
        ("  require: {token: {bound: true}}\n", "the policy has no rules, so `require` would do nothing"),
        ("  expiresAt: 2030-01-01T00:00:00Z\n", "the policy has no rules, so `expiresAt` would do nothing"),
    ],
)
def test_a_field_that_the_policys_action_never_uses_is_a_fault(spec: str, fault: str) -> None:
    with pytest.raises(DocumentErrors) as error:
        snapshot(spec)
    assert [fault in str(reported) for reported in error.value.faults] == [True]
    assert all(reported.hint for reported in error.value.faults)


@pytest.mark.parametrize(
    "spec",
    [
        DENY + "  response: {status: 401, message: log in, headers: {set: [{name: x-why, value: a}]}}\n",
        DENY + "  response: {headers: {set: [{name: location, value: /b}]}}\n",
        DENY + "  response: {headers: {set: [{name: set-cookie, value: a=b}, {name: Set-Cookie, value: c=d}]}}\n",
        DENY + "  response: {status: 401, tokenDenials: [token_expired, token_revoked]}\n",
        "  rules: [{}]\n  response: {headers: {set: [{name: a, value: x}, {name: b, claim: sub}], remove: [c]}}\n",
        "  rules: [{}, {response: {headers: {remove: [a]}}}]\n  response: {headers: {remove: [b]}}\n",
        "  action: AUDIT\n  rules: [{require: {token: {bound: true}}}]\n",
        "  {}\n",
    ],
)
def test_fields_that_the_policys_action_uses_are_accepted(spec: str) -> None:
    assert snapshot(spec).table.policies


@pytest.mark.parametrize("kind", ["AccessPolicy", "RevocationList"])
def test_a_dry_run_of_a_kind_that_would_be_enforced_is_a_fault(kind: str) -> None:
    spec = {"AccessPolicy": "{rules: [{}]}", "RevocationList": "{tokens: [{id: a}]}"}[kind]
    head = f"apiVersion: zta.dev/v1\nkind: {kind}\nmetadata: {{name: a, annotations: {{istio.io/dry-run: 'true'}}}}\n"
    with pytest.raises(DocumentErrors, match="dry-run`: it would be enforced"):
        compile_snapshot([SourceText("a.yaml", f"{head}spec: {spec}\n")], Options())


@pytest.mark.parametrize("digits", [4, 400, 5000])
def test_a_status_of_many_digits_is_a_fault_like_any_other(digits: int) -> None:
    with pytest.raises(DocumentErrors) as caught:
        snapshot(f"{DENY}  response: {{status: {'4' * digits}}}\n")
    assert caught.value.faults[0].message.startswith("`status` is not ")


def test_a_rule_name_appears_in_decisions_and_shadow_decisions() -> None:
    named = snapshot("  rules: [{name: reads, to: [{operation: {methods: [GET]}}]}, {}]\n")
    get = evaluate(named, RequestAttributes(method="GET", path="/"), FRONTEND, 0.0)
    put = evaluate(named, RequestAttributes(method="PUT", path="/"), FRONTEND, 0.0)
    assert [(decision.rule, decision.rule_name) for decision in (get, put)] == [(0, "reads"), (1, "")]
    audit = snapshot("  action: AUDIT\n  rules: [{name: all.of_it-2}]\n")
    (shadow,) = evaluate(audit, RequestAttributes(method="GET", path="/"), FRONTEND, 0.0).shadows
    assert shadow.rule_name == "all.of_it-2"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("  rules: [{name: a}, {name: b}, {name: a}]\n", "duplicate rule name `a` (first at line 5)"),
        ("  rules: [{name: 1}]\n", "`name` has the integer `1` where a string is expected"),
        ("  rules: [{name: '1'}]\n", "`1` is not a rule name"),
        ("  rules: [{name: 'a b'}]\n", "`a b` is not a rule name"),
        ("  rules: [{name: a/b}]\n", "`a/b` is not a rule name"),
        (f"  rules: [{{name: {'a' * 64}}}]\n", "is not a rule name"),
        ("  rules: [{name: ''}]\n", "`name` is empty"),
        ("  name: a\n  rules: [{}]\n", "unknown field `name` in AccessPolicy.spec"),
    ],
)
def test_an_invalid_rule_name_is_a_fault(spec: str, fault: str) -> None:
    with pytest.raises(DocumentErrors) as error:
        snapshot(spec)
    assert [fault in str(reported) for reported in error.value.faults] == [True]


def test_rules_of_istios_policies_have_no_names() -> None:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {rules: [{name: x}]}\n"
    )
    with pytest.raises(DocumentErrors, match="unknown field `name` in a rule"):
        compile_snapshot([SourceText("a.yaml", text)], Options())

"""`require.authentication`: which logins satisfy it, whose levels count, and what its faults say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import ISTIO, faults, identity, request, snapshot, warnings
from zta_authz.pdp.decide import combine
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_authentication import AuthenticationClause, LoginRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.pdp.snapshot import Snapshot

NOW = 1_800_000_000.0
HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\nspec:\n"
ISSUER = "https://i"


def rules(required: str) -> str:
    return f"{HEAD}  rules: [{{require: {{authentication: {{{required}}}}}}}]\n"


def levels(issuer: str, acr_levels: str, name: str = "i") -> str:
    head = f"apiVersion: zta.dev/v1\nkind: IssuerPolicy\nmetadata: {{name: {name}, namespace: istio-system}}\n"
    return f"{head}spec: {{issuer: {issuer}, acrLevels: {acr_levels}}}\n"


def allows(compiled: Snapshot, claims: Mapping[str, Any] | None) -> bool:
    caller = identity() if claims is None else identity(claims={"iss": ISSUER, "sub": "ann", **claims})
    inputs = Inputs(request(), caller, compiled.options, NOW)
    return combine(compiled.table.default_view, inputs, default_allow=False).allowed


@pytest.mark.parametrize(
    ("required", "satisfying", "failing"),
    [
        ("acr: [phr, phrh]", {"acr": "phrh"}, {"acr": "pwd"}),
        ("acr: [phr]", {"acr": "phr"}, {"acr": ["phr"]}),
        ("amr: [hwk, fpt]", {"amr": ["pwd", "fpt"]}, {"amr": ["pwd"]}),
        ("amr: [hwk]", {"amr": ["hwk"]}, {"amr": "hwk"}),
        ("maxAge: 5m", {"auth_time": int(NOW) - 300}, {"auth_time": int(NOW) - 301}),
        ("acr: [phr], maxAge: 5m", {"acr": "phr", "auth_time": int(NOW)}, {"acr": "phr"}),
        ("acr: [phr], amr: [hwk]", {"acr": "phr", "amr": ["hwk"]}, {"acr": "phr", "amr": []}),
    ],
)
def test_a_login_satisfies_only_what_it_has(
    required: str, satisfying: Mapping[str, Any], failing: Mapping[str, Any]
) -> None:
    compiled = snapshot(rules(required))
    assert allows(compiled, satisfying)
    assert not allows(compiled, failing)
    assert not allows(compiled, {})
    assert not allows(compiled, None)


@pytest.mark.parametrize(
    "auth_time",
    [
        str(int(NOW)), NOW, True, None, math.nan, math.inf, -math.inf, [int(NOW)], {"at": int(NOW)}, int(NOW) + 61,
        10**400, -(10**400), 0, -1,
    ],
)  # fmt: skip
def test_only_a_recent_whole_number_is_a_time_of_login(auth_time: object) -> None:
    compiled = snapshot(rules("maxAge: 5m"))
    assert not allows(compiled, {"auth_time": auth_time})
    clause = compiled.table.default_view.allow.rules[0].clauses[0]
    caller = identity(claims={"iss": ISSUER, "sub": "a", "auth_time": auth_time})
    assert clause.actual(Inputs(request(), caller, compiled.options, NOW))


def test_a_clock_that_is_a_little_behind_does_not_refuse_a_fresh_login() -> None:
    assert allows(snapshot(rules("maxAge: 5m")), {"auth_time": int(NOW) + 60})


def test_a_new_token_for_an_old_login_is_an_old_login() -> None:
    compiled = snapshot(rules("maxAge: 5m"))
    assert not allows(compiled, {"auth_time": int(NOW) - 3600, "iat": int(NOW)})
    assert not allows(compiled, {"iat": int(NOW)})


def test_levels_are_those_of_the_tokens_issuer() -> None:
    compiled = snapshot(
        rules("acrAtLeast: 2"),
        levels(ISSUER, "{phr: 2, pwd: 1}"),
        levels("https://weak", "{phr: 1, pwd: 5}", "weak"),
    )
    assert allows(compiled, {"acr": "phr"})
    assert not allows(compiled, {"acr": "pwd"})
    assert allows(compiled, {"iss": "https://weak", "acr": "pwd"})
    assert not allows(compiled, {"iss": "https://weak", "acr": "phr"})
    assert not allows(compiled, {"iss": "https://other", "acr": "phr"})
    assert not allows(compiled, {"acr": 2})
    assert not allows(compiled, {})


def test_a_second_issuer_policy_can_only_lower_levels() -> None:
    second = levels(ISSUER, "{pwd: 9, phr: 3}", "second")
    compiled = snapshot(rules("acrAtLeast: 2"), levels(ISSUER, "{phr: 2, phrh: 3}"), second)
    assert allows(compiled, {"acr": "phr"})
    assert not allows(compiled, {"acr": "pwd"})
    assert not allows(compiled, {"acr": "phrh"})
    assert not allows(snapshot(rules("acrAtLeast: 3"), levels(ISSUER, "{phr: 2}"), second), {"acr": "phr"})


def test_a_rule_that_names_values_and_a_level_needs_both() -> None:
    compiled = snapshot(rules("acr: [pwd, phr], acrAtLeast: 2"), levels(ISSUER, "{pwd: 1, phr: 2, phrh: 3}"))
    assert [acr for acr in ("pwd", "phr", "phrh") if allows(compiled, {"acr": acr})] == ["phr"]


def test_a_login_request_begins_with_the_weakest_sufficient_value() -> None:
    by_issuer = {ISSUER: {"phrh": 3, "phr": 2, "pwd": 1}}
    clause = AuthenticationClause(at_least=2, max_age=300.0, levels=by_issuer)
    token = identity(claims={"iss": ISSUER, "sub": "a"}).token
    other = identity(claims={"iss": "https://other", "sub": "a"}).token
    workload = identity(claims={"iss": "spiffe://cluster.local", "sub": "spiffe://cluster.local/x"}).token
    assert token is not None
    assert other is not None
    assert workload is not None
    assert clause.login_request(token) == LoginRequest(("phr", "phrh"), 300.0)
    assert clause.login_request(other) is None
    assert AuthenticationClause(acr=("phr",)).login_request(workload) is None
    assert AuthenticationClause(acr=("phr",), amr=("hwk",)).login_request(token) is None


def test_two_login_requests_combine_to_what_satisfies_both() -> None:
    one, other = LoginRequest(("a", "b"), 600.0), LoginRequest(("b", "c"), 300.0, "/login")
    assert one.combine(other) == LoginRequest(("b",), 300.0, "/login")
    assert one.combine(LoginRequest(("z",))).acr == ()
    assert LoginRequest().combine(one) == one


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ("", "`require.authentication` asks for nothing"),
        ("login: /login", "`require.authentication` asks for nothing"),
        ("acr: phr", "`acr` is a string where a list of strings is expected"),
        ("acr: []", "`acr` is an empty list"),
        ('acr: ["a b"]', "`a b` is not a value of `acr`"),
        ("""acr: ['a"b']""", "is not a value of `acr`"),
        ('acr: ["a\\nb"]', "is not a value of `acr`"),
        ("acr: [" + ", ".join(f"v{n}" for n in range(17)) + "]", "17 values in `acr`, more than 16"),
        ("acrAtLeast: high", "`acrAtLeast` is not a whole number from 0 to 100"),
        ("maxAge: 5", "`maxAge`"),
        ("maxAge: 500ms", "`maxAge` is not a whole number of seconds"),
        ("maxAge: 5m, login: 'javascript:alert(1)'", "`login` is not a URL or a path"),
        ("maxAge: 5m, login: //evil.example", "`login` is not a URL or a path"),
        ("maxAge: 5m, login: 'https://a/ b'", "`login` is not a URL or a path"),
        ("maxAge: 5m, login: 'https://{path}/'", "not part of `{path}` in its query"),
        ("maxAge: 5m, login: '/login?to={host}'", "not part of `{path}` in its query"),
        ("acrs: [phr]", "unknown field `acrs` in require.authentication; did you mean `acr`?"),
    ],
)
def test_faults_say_what_to_write(required: str, message: str) -> None:
    found = faults(rules(required))
    assert any(message in fault for fault in found), found


def test_a_deny_policy_cannot_require_a_login() -> None:
    denying = rules("acr: [phr]").replace("spec:\n", "spec:\n  action: DENY\n")
    assert "would not deny callers that fail `require`" in faults(denying)[0]


@pytest.mark.parametrize("written", ["{}", "{'a b': 1}", "{phr: x}", "{phr: -1}", "{phr: 101}", "{1: 1}", "[phr]"])
def test_levels_that_cannot_be_used_are_faults(written: str) -> None:
    assert faults(levels(ISSUER, written))


def test_levels_and_values_that_no_issuer_has_give_a_warning() -> None:
    policy = levels(ISSUER, "{phr: 2}")
    unused = [w for w in warnings(rules("acrAtLeast: 3"), policy) if "acrAtLeast" in w]
    assert len(unused) == 1
    assert "no IssuerPolicy gives an `acr` that level" in unused[0]
    assert any("acrAtLeast" in warning for warning in warnings(rules("acrAtLeast: 1")))
    assert any("did you mean `phr`?" in warning for warning in warnings(rules("acr: [phrr]"), policy))
    assert not any("acr" in warning for warning in warnings(rules("acr: [phr], acrAtLeast: 2"), policy))


def test_istio_semantics_have_the_same_requirement() -> None:
    compiled = snapshot(rules("acr: [phr]"), options=ISTIO)
    assert allows(compiled, {"acr": "phr"})
    assert not allows(compiled, {"acr": "pwd"})

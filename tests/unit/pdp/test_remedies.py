"""What a refused caller learns: only what helps, only to callers whom nothing else refuses, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import identity, request, snapshot
from tests.support.trust import MEASURED, MODEL, NETWORK, NOW
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import Reason
from zta_authz.ext_authz.response import ResponseEncoder
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.facts import NO_FACTS, FactViews
from zta_authz.model.identity import ANONYMOUS, Binding
from zta_authz.model.options import Options
from zta_authz.pdp.decide import Caller, decide
from zta_authz.pdp.remedies import (
    MAX_CANDIDATES,
    MAX_CHALLENGES,
    MAX_TRIALS,
    QUIET_SECONDS,
    REMEMBERED_LOGINS,
    ChallengeMemory,
    candidates,
    with_remedy,
)
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.addresses import Ip
    from zta_authz.model.facts import NetworkFacts
    from zta_authz.model.identity import Identity
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

ISSUER = "https://i"
HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: NAME, namespace: default}\nspec:\n"
REFUND = request("POST", "/refunds")
REFUNDS = """  rules:
  - name: refund
    to: [{operation: {methods: [POST], paths: [/refunds]}}]
    require: {authentication: {acr: [phr, phrh], maxAge: 5m}}
"""


class Germany:
    """A network view that knows every address as the same good one."""

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        del address, now
        return NETWORK


def policy(spec: str, name: str = "a") -> str:
    return HEAD.replace("NAME", name) + spec


def user(**claims: Any) -> Identity:
    return identity(claims={"iss": ISSUER, "sub": "ann", "acr": "pwd", "auth_time": int(NOW) - 3600, **claims})


def decided(
    compiled: Snapshot,
    caller: Identity,
    asked: RequestAttributes = REFUND,
    memory: ChallengeMemory | None = None,
    now: float = NOW,
    views: FactViews = NO_FACTS,
) -> Decision:
    return decide(compiled, asked, Caller(caller), now, challenges=memory, views=views)


def answer(decision: Decision, asked: RequestAttributes) -> tuple[int, Mapping[str, str], str]:
    message = CheckResponse.FromString(ResponseEncoder().encode(decision, "0" * 32, asked))
    denied = message.denied_response
    headers = {option.header.key: option.header.value for option in denied.headers}
    return denied.status.code, headers, denied.body


def test_a_caller_who_would_get_in_by_another_login_is_challenged() -> None:
    decision = decided(snapshot(policy(REFUNDS)), user())
    assert decision.reason is Reason.STEP_UP_REQUIRED
    status, headers, body = answer(decision, REFUND)
    assert status == 401
    assert headers["www-authenticate"] == (
        'Bearer error="insufficient_user_authentication", error_description="A stronger or more recent login is '
        'required", acr_values="phr phrh", max_age="300"'
    )
    assert headers["cache-control"] == "no-store"
    assert "phr" not in body
    assert decided(snapshot(policy(REFUNDS)), user(acr="phr", auth_time=int(NOW))).allowed


def test_a_dpop_token_is_challenged_by_its_scheme() -> None:
    caller = replace(user(), binding=Binding.DPOP)
    _, headers, _ = answer(decided(snapshot(policy(REFUNDS)), caller), REFUND)
    assert headers["www-authenticate"].startswith('DPoP error="insufficient_user_authentication"')
    assert 'algs="' in headers["www-authenticate"]
    assert "ES256" in headers["www-authenticate"]


def test_a_grpc_caller_gets_the_status_of_its_protocol() -> None:
    asked = request("POST", "/refunds", headers={"content-type": "application/grpc", "accept": "text/html"})
    rules = REFUNDS.replace("maxAge: 5m", "maxAge: 5m, login: /login")
    decision = decided(snapshot(policy(rules)), user(), asked)
    message = CheckResponse.FromString(ResponseEncoder().encode(decision, "0" * 32, asked))
    status, headers, body = answer(decision, asked)
    assert message.status.code == 16
    assert status == 401
    assert "location" not in headers
    assert headers["www-authenticate"].startswith("Bearer error=")
    assert body.startswith("step_up_required")


@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [
        ("GET", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", 302),
        ("POST", "text/html", 303),
        ("GET", "TEXT/HTML ; q=0.1", 302),
        ("GET", "*/*", 401),
        ("GET", "application/json", 401),
        ("GET", "text/html;q=0", 401),
        ("GET", "application/json;x=text/html", 401),
        ("GET", "", 401),
        ("GET", "text/html" + " " * 5000, 401),
    ],
)
def test_only_browsers_are_redirected(method: str, accept: str, status: int) -> None:
    rules = "  rules: [{require: {authentication: {acr: [a%b], maxAge: 5m, login: 'https://l.example/x?y=1#z'}}}]\n"
    asked = request(method, "/", headers={"accept": accept})
    code, headers, _ = answer(decided(snapshot(policy(rules)), user(), asked), asked)
    assert code == status
    location = headers.get("location", "")
    assert location == ("https://l.example/x?y=1&acr_values=a%25b&max_age=300#z" if status != 401 else "")
    assert ("www-authenticate" in headers) is (status == 401)


@pytest.mark.parametrize(
    ("method", "path", "returned"),
    [
        ("GET", "/a?b=c&d", "%2Fa%3Fb%3Dc%26d"),
        ("GET", "/", "%2F"),
        ("GET", "//evil.example/", "%2F"),
        ("GET", "/\\evil.example/", "%2F"),
        ("GET", "/" + "a" * 1024, "%2F"),
        ("POST", "/a", "%2F"),
        ("GET", "/a\r\nset-cookie: x", "%2F"),
    ],
)
def test_a_browser_returns_only_to_a_path_of_this_host(method: str, path: str, returned: str) -> None:
    rules = "  rules: [{require: {authentication: {acr: [phr], login: '/login?to={path}'}}}]\n"
    decision = decided(snapshot(policy(rules)), user(), request("GET", "/"))
    _, headers, _ = answer(decision, request(method, path, headers={"accept": "text/html"}))
    assert headers["location"] == f"/login?to={returned}&acr_values=phr"


JWT = f"ey{'J' * 20}.{'y' * 40}.{'J' * 43}"


@pytest.mark.parametrize(
    ("path", "returned"),
    [
        (f"/a?access_token={JWT}", "%2Fa"),
        (f"/a?b=c&token={JWT}&d=e", "%2Fa%3Fb%3Dc%26d%3De"),
        (f"/a?t=Bearer%20{JWT.replace('.', '%2E')}&d", "%2Fa%3Fd"),
        (f"/a?{JWT}", "%2Fa"),
        ("/a?version=1.20.3&host=eyes.example.com", "%2Fa%3Fversion%3D1.20.3%26host%3Deyes.example.com"),
        (f"/a?pad={'x' * 800}&token={JWT * 4}", f"%2Fa%3Fpad%3D{'x' * 800}"),
        (f"/a?token={JWT * 1000}", "%2F"),
    ],
)
def test_no_token_in_the_query_reaches_the_login(path: str, returned: str) -> None:
    rules = "  rules: [{require: {authentication: {acr: [phr], login: 'https://idp.example/?to={path}'}}}]\n"
    decision = decided(snapshot(policy(rules)), user(), request("GET", "/"))
    _, headers, _ = answer(decision, request("GET", path, headers={"accept": "text/html"}))
    assert headers["location"] == f"https://idp.example/?to={returned}&acr_values=phr"


def test_answers_with_the_path_of_a_request_are_not_kept() -> None:
    rules = "  rules: [{require: {authentication: {acr: [phr], login: '/login?to={path}'}}}]\n"
    decision, encoder = decided(snapshot(policy(rules)), user()), ResponseEncoder()
    for number in range(20):
        encoder.encode(decision, "0" * 32, request("GET", f"/{number}", headers={"accept": "text/html"}))
    assert len(encoder._answers) == 0


NO_ORACLE = {
    "no token": (policy(REFUNDS), ANONYMOUS),
    "a workload without a token": (policy(REFUNDS), identity("spiffe://cluster.local/ns/a/sa/b")),
    "a JWT-SVID": (policy(REFUNDS), identity(claims={"iss": "spiffe://cluster.local", "sub": "x"})),
    "another claim fails": (
        policy(REFUNDS + "    when: [{key: 'request.auth.claims[role]', values: [admin]}]\n"),
        user(),
    ),
    "a condition fails": (policy(REFUNDS + "    condition: token.subject == 'bob'\n"), user()),
    "a condition is unknown": (policy(REFUNDS + "    condition: claims.level > 3\n"), user()),
    "a requirement that no login changes fails": (
        policy(REFUNDS.replace("require: {", "require: {token: {bound: true}, ")),
        user(),
    ),
    "a method of login is missing": (policy(REFUNDS.replace("maxAge", "amr: [hwk], maxAge")), user()),
    "a condition wants another acr": (policy(REFUNDS + "    condition: claims.acr == 'pwd'\n"), user()),
    "a DENY rule would match after the login": (
        policy(REFUNDS)
        + "---\n"
        + policy("  action: DENY\n  rules: [{when: [{key: 'request.auth.claims[acr]', values: [phr, phrh]}]}]\n", "d"),
        user(),
    ),
    "policy and rule ask for different logins": (
        policy("  require: {authentication: {acr: [gold]}}\n" + REFUNDS),
        user(),
    ),
    "the issuer has no level": (policy(REFUNDS.replace("acr: [phr, phrh]", "acrAtLeast: 2")), user()),
}


@pytest.mark.parametrize("case", NO_ORACLE)
def test_a_caller_whom_the_login_would_not_help_learns_nothing(case: str) -> None:
    text, caller = NO_ORACLE[case]
    decision = decided(snapshot(text), caller)
    assert decision.reason is Reason.NO_MATCHING_POLICY
    assert decision.remedy is None
    assert decision.detail == ""


def test_a_matching_deny_rule_comes_first() -> None:
    denied = decided(snapshot(policy(REFUNDS) + "---\n" + policy("  action: DENY\n  rules: [{}]\n", "d")), user())
    assert denied.reason is Reason.DENY_POLICY


def test_only_values_that_help_are_asked_for() -> None:
    denying = policy("  action: DENY\n  rules: [{when: [{key: 'request.auth.claims[acr]', values: [phr]}]}]\n", "d")
    decision = decided(snapshot(policy(REFUNDS) + "---\n" + denying), user())
    assert decision.remedy is not None
    assert decision.remedy.acr == ("phrh",)


def test_the_first_rule_that_the_caller_can_satisfy_decides() -> None:
    rules = "  rules:\n" + "".join(
        f"  - {{require: {{authentication: {{acr: [{acr}]{more}}}}}}}\n"
        for acr, more in (("a", ", amr: [hwk]"), ("b", ""), ("c", ""))
    )
    decision = decided(snapshot(policy(rules)), user())
    assert decision.remedy is not None
    assert (decision.remedy.rule, decision.remedy.acr) == (1, ("b",))


def test_a_rule_far_behind_others_is_found() -> None:
    others = "".join(
        f"  - {{to: [{{operation: {{paths: ['/p{n}']}}}}], require: {{authentication: {{acr: [x]}}}}}}\n"
        for n in range(200)
    )
    last = "  - {to: [{operation: {paths: [/refunds]}}], require: {authentication: {acr: [phr]}}}\n"
    decision = decided(snapshot(policy("  rules:\n" + others + last)), user())
    assert decision.remedy is not None
    assert decision.remedy.rule == 200


TRUST = """  rules:
  - to: [{operation: {methods: [POST], paths: [/refunds]}}]
    require: {trust: {level: HIGH MORE}}
"""
NO_DEVICE = MEASURED.replace("behavior:", "device: {assume: 100}, behavior:")
GOOD_USER = {"amr": ["pwd", "hwk"], "account_created_at": NOW - 400 * 86400, "security_violations": 0}


def trusting(model: str, more: str = "", rule: str = TRUST) -> Snapshot:
    return snapshot(MODEL + "spec:\n" + model, policy(rule.replace(" MORE", more)))


def assessed(compiled: Snapshot, caller: Identity, memory: ChallengeMemory | None = None) -> Decision:
    return decided(compiled, caller, memory=memory, views=FactViews(networks=Germany()))


STEP_UP = ", stepUp: {acr: [phr], maxAge: 10m}"
USER_90 = TRUST.replace("level: HIGH", "user: 90")


def test_a_user_without_a_second_factor_is_challenged_where_the_rule_says_so() -> None:
    compiled = trusting(NO_DEVICE, STEP_UP, USER_90)
    decision = assessed(compiled, user(**{**GOOD_USER, "amr": ["pwd"]}))
    assert decision.reason is Reason.STEP_UP_REQUIRED
    assert decision.remedy is not None
    assert (decision.remedy.acr, decision.remedy.max_age) == (("phr",), 600)
    assert assessed(compiled, user(**GOOD_USER)).allowed


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"amr": ["pwd"], "security_violations": 2}, id="other points are missing too"),
        pytest.param({"amr": ["pwd"], "acr": "phr", "auth_time": int(NOW)}, id="the user has just logged in so"),
    ],
)
def test_a_user_whom_a_second_factor_does_not_help_is_not_challenged(claims: Mapping[str, Any]) -> None:
    decision = assessed(trusting(NO_DEVICE, STEP_UP, USER_90), user(**{**GOOD_USER, **claims}))
    assert decision.reason is Reason.TRUST_TOO_LOW


def test_trust_that_is_too_low_names_its_components_only_where_the_rule_says_so() -> None:
    caller = user(**GOOD_USER)
    for more, shown in (("", False), (", showComponents: true", True)):
        decision = assessed(trusting(MEASURED, more), caller)
        assert decision.reason is Reason.TRUST_TOO_LOW
        assert decision.remedy is not None
        assert decision.remedy.components == ("device",)
        assert "device" in decision.detail
        status, headers, body = answer(decision, REFUND)
        assert status == 403
        assert ('"trust_components": ["device"]' in body) is shown
        assert ("device" in body) is shown
        assert "www-authenticate" not in headers


def test_callers_without_identity_or_model_learn_nothing_of_trust() -> None:
    assert assessed(trusting(MEASURED), ANONYMOUS).reason is Reason.NO_MATCHING_POLICY
    without_model = snapshot(policy(TRUST.replace(" MORE", "")))
    assert assessed(without_model, user(**GOOD_USER)).reason is Reason.NO_MATCHING_POLICY


def test_trust_too_low_is_answered_only_where_the_login_could_be_changed_too() -> None:
    both = TRUST.replace("require: {", "require: {authentication: {acr: [phr]}, ")
    assert assessed(trusting(MEASURED, "", both), user(**GOOD_USER)).reason is Reason.TRUST_TOO_LOW
    unchangeable = both.replace("acr: [phr]", "amr: [fpt]")
    assert assessed(trusting(MEASURED, "", unchangeable), user(**GOOD_USER)).reason is Reason.NO_MATCHING_POLICY


def test_a_client_that_does_not_log_in_is_challenged_only_so_often() -> None:
    compiled, memory = snapshot(policy(REFUNDS)), ChallengeMemory()
    reasons = [decided(compiled, user(), memory=memory).reason for _ in range(MAX_CHALLENGES + 3)]
    assert reasons == [Reason.STEP_UP_REQUIRED] * MAX_CHALLENGES + [Reason.NO_MATCHING_POLICY] * 3
    reloaded = snapshot(policy(REFUNDS))
    assert decided(reloaded, user(), memory=memory).reason is Reason.NO_MATCHING_POLICY
    assert decided(compiled, user(sub="bob"), memory=memory).reason is Reason.STEP_UP_REQUIRED
    assert decided(compiled, user(auth_time=int(NOW) - 900), memory=memory).reason is Reason.STEP_UP_REQUIRED


def test_requests_keep_the_count_and_quiet_ends_it() -> None:
    compiled, memory = snapshot(policy(REFUNDS)), ChallengeMemory()
    times = [NOW + n * (QUIET_SECONDS - 1) for n in range(MAX_CHALLENGES + 5)]
    reasons = [decided(compiled, user(), memory=memory, now=now).reason for now in times]
    assert reasons[MAX_CHALLENGES:] == [Reason.NO_MATCHING_POLICY] * 5
    later = times[-1] + QUIET_SECONDS + 1
    assert decided(compiled, user(), memory=memory, now=later).reason is Reason.STEP_UP_REQUIRED
    assert decided(compiled, user(), memory=memory, now=NOW - 1e6).reason is Reason.STEP_UP_REQUIRED  # a clock step


def test_a_claim_of_another_type_does_not_begin_a_new_count() -> None:
    compiled, memory = snapshot(policy(REFUNDS)), ChallengeMemory()
    odd = [{"n": n} for n in range(MAX_CHALLENGES)] + [["x"]]
    reasons = [decided(compiled, user(auth_time=value), memory=memory).reason for value in odd]
    assert reasons[-1] is Reason.NO_MATCHING_POLICY


def test_an_explanation_leaves_no_trace() -> None:
    compiled, memory = snapshot(policy(REFUNDS)), ChallengeMemory()
    for _ in range(MAX_CHALLENGES + 1):
        assert decided(compiled, user()).reason is Reason.STEP_UP_REQUIRED
    assert decided(compiled, user(), memory=memory).reason is Reason.STEP_UP_REQUIRED


def test_the_memory_of_challenges_is_bounded() -> None:
    compiled, memory = snapshot(policy(REFUNDS)), ChallengeMemory()
    remedy = decided(compiled, user()).remedy
    assert remedy is not None
    for number in range(REMEMBERED_LOGINS + 100):
        token = user(sub=f"u{number}" + "x" * 10, auth_time=10**5000).token
        assert token is not None
        memory.permits(token, remedy, NOW)
    assert len(memory._counts) <= REMEMBERED_LOGINS


def test_a_denial_without_remediable_rules_examines_nothing() -> None:
    assert snapshot(policy("  rules: [{to: [{operation: {paths: [/a]}}]}]\n")).table.default_view.remediable is None


def test_the_search_is_bounded_in_rules_and_in_repeated_decisions() -> None:
    values = ", ".join(f"v{n}" for n in range(16))
    rule = f"  - {{require: {{authentication: {{acr: [{values}]}}}}}}\n"
    excluding = "  action: DENY\n  rules: [{when: [{key: 'request.auth.claims[acr]', values: ['v*']}]}]\n"
    view = snapshot(policy("  rules:\n" + rule * 100), policy(excluding, "d")).table.default_view
    assert view.remediable is not None
    decisions: list[Inputs] = []

    def refuse(inputs: Inputs) -> bool:
        decisions.append(inputs)
        return False

    inputs = Inputs(REFUND, user(), Options(), NOW)
    denial = Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY)
    assert with_remedy(denial, view.remediable, inputs, refuse) is denial
    assert len(decisions) == MAX_TRIALS
    assert len(list(candidates(view.remediable, inputs))) == MAX_CANDIDATES


def test_repeated_decisions_share_the_budget_of_one_request() -> None:
    view = snapshot(policy(REFUNDS)).table.default_view
    assert view.remediable is not None
    inputs = Inputs(REFUND, user(), Options(), NOW)
    inputs.conditions.units = 1000
    left: list[int] = []

    def spend(again: Inputs) -> bool:
        left.append(again.conditions.units)
        again.conditions.units -= 400
        return False

    with_remedy(Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY), view.remediable, inputs, spend)
    assert left == [1000, 600]

"""`require` of AccessPolicy: its requirements on tokens, their explanation, and its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults, request, snapshot
from zta_authz.model.identity import ANONYMOUS, Binding, Identity, Token
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.pdp.decide import combine
from zta_authz.pdp.explain import explain
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision

HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p}\nspec:\n"
NOW = 1000.0


def caller(issued_at: float | None = None, binding: Binding | None = None) -> Identity:
    token = Token("i", "s", {"iss": "i", "sub": "s"}, issued_at=issued_at)
    return Identity(None, token, (token,), binding=binding)


def decided(spec: str, identity: Identity) -> Decision:
    compiled = snapshot(HEAD + spec)
    return combine(compiled.table.default_view, Inputs(request(), identity, compiled.options, NOW), default_allow=False)


BOUND = "  rules: [{require: {token: {bound: true}}}]\n"
FRESH = "  rules: [{require: {token: {maxAge: 15m}}}]\n"


@pytest.mark.parametrize("binding", list(Binding))
def test_a_bound_token_satisfies_it_with_any_binding(binding: Binding) -> None:
    assert decided(BOUND, caller(binding=binding)).allowed
    assert not decided(BOUND, caller()).allowed
    assert not decided(BOUND, ANONYMOUS).allowed


def test_a_token_satisfies_the_maximum_age_up_to_the_second() -> None:
    assert decided(FRESH, caller(NOW - 900)).allowed
    assert not decided(FRESH, caller(NOW - 900.5)).allowed
    assert not decided(FRESH, caller(None)).allowed
    assert not decided(FRESH, ANONYMOUS).allowed


def test_the_policys_requirements_apply_to_every_rule_in_addition_to_the_rules_own() -> None:
    spec = "  require: {token: {bound: true}}\n  rules: [{}, {require: {token: {maxAge: 15m}}}]\n"
    assert decided(spec, caller(binding=Binding.DPOP)).rule == 0
    assert not decided(spec, caller(NOW)).allowed


def test_explain_shows_the_missing_requirement() -> None:
    spec = "  rules: [{require: {token: {bound: true, maxAge: 15m}}}]\n"
    (miss,) = explain(snapshot(HEAD + spec), request(), NO_EVIDENCE, NOW).nearest
    assert miss.failed == (
        (
            "require.token.bound: saw no verified token, rule has a token bound to the peer's certificate, to a DPoP key, "
            "or to the peer's SPIFFE ID"
        ),
        "require.token.maxAge: saw no verified token, rule has at most `900 s`",
    )


def test_explanations_show_the_tokens_binding_and_age() -> None:
    compiled = snapshot(HEAD + "  rules: [{require: {token: {bound: true, maxAge: 15m}}}]\n")
    (rule,) = compiled.table.default_view.allow.rules
    bound, fresh = rule.clauses

    def actual(identity: Identity) -> list[str]:
        inputs = Inputs(request(), identity, compiled.options, NOW)
        return [bound.actual(inputs), fresh.actual(inputs)]

    assert actual(caller()) == ["a bearer token, which anybody may present", "no `iat`"]
    assert actual(caller(NOW - 5, Binding.SPIFFE_ID)) == ["`spiffe_id`", "`5 s`"]
    assert bound.index_keys() is None
    assert fresh.index_keys() is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "  action: DENY\n  rules: [{require: {token: {bound: true}}}]\n",
            "a DENY policy would not deny callers that fail `require`",
        ),
        (
            "  action: DENY\n  require: {token: {bound: true}}\n  rules: [{}]\n",
            "a DENY policy would not deny callers that fail `require`",
        ),
        ("  rules: [{require: {}}]\n", "`require` is empty"),
        ("  rules: [{require: {token: {}}}]\n", "`require.token` is empty"),
        ("  rules: [{require: {token: {bound: false}}}]\n", "`bound: false` has no effect"),
        ("  rules: [{require: {token: {bound: yes}}}]\n", "`bound`"),
        ("  rules: [{require: {token: {maxAge: 900}}}]\n", "`maxAge` has the integer `900`"),
        ("  rules: [{require: {token: {maxAge: soon}}}]\n", "`maxAge` is `soon`, not a duration"),
        ("  rules: [{require: {token: {age: 1m}}}]\n", "unknown field `age`"),
        ("  rules: [{require: {devices: {}}}]\n", "unknown field `devices`"),
        ("  rules: [{require: bound}]\n", "`require` is a string"),
    ],
)
def test_an_invalid_require_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + spec))


def test_istios_authorization_policy_has_no_require() -> None:
    text = HEAD.replace("zta.dev/v1", "security.istio.io/v1").replace("AccessPolicy", "AuthorizationPolicy")
    assert "unknown field `require`" in "\n".join(faults(text + BOUND))


def test_an_audit_policy_may_use_require() -> None:
    assert decided("  action: AUDIT\n" + BOUND, caller(binding=Binding.DPOP)).shadows != ()

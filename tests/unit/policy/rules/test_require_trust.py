"""`require.trust`: what it asks, what an unmet demand says, and that nothing meets it without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults, request, snapshot
from tests.support.trust import MODEL, NETWORK, NOW, USER
from zta_authz.model.facts import FactViews, NetworkFacts
from zta_authz.model.identity import Identity, Token
from zta_authz.model.options import Options
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.pdp.decide import combine, evaluate, facts_of
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.addresses import Ip
    from zta_authz.pdp.snapshot import Snapshot

HEAD = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: p, namespace: default}\nspec:\n"
NO_DEVICE_MODEL = "  allowedCountries: [DE]\n  components: {behavior: {assume: 100}, device: {assume: 90}}\n"


class Germany:
    """A network view that knows every address as the same good one."""

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        del address, now
        return NETWORK


VIEWS = FactViews(networks=Germany())


def allowed(compiled: Snapshot, claims: dict[str, object], views: FactViews = VIEWS) -> bool:
    token = Token("https://i", "u", claims)
    identity = Identity(None, token, (token,))
    opener = facts_of(compiled, None, views)
    inputs = Inputs(request(), identity, compiled.options, NOW, None, opener)
    return combine(compiled.table.default_view, inputs, default_allow=False).allowed


def test_a_rule_holds_only_where_the_level_is_reached() -> None:
    compiled = snapshot(MODEL + "spec:\n" + NO_DEVICE_MODEL, HEAD + "  rules: [{require: {trust: {level: HIGH}}}]\n")
    assert allowed(compiled, USER)
    assert not allowed(compiled, {**USER, "amr": ["pwd"], "security_violations": 3})
    assert not allowed(compiled, USER, FactViews())


def test_a_rule_holds_only_where_each_component_is_reached() -> None:
    compiled = snapshot(MODEL + "spec:\n" + NO_DEVICE_MODEL, HEAD + "  rules: [{require: {trust: {user: 80}}}]\n")
    assert allowed(compiled, USER)
    assert not allowed(compiled, {**USER, "amr": ["pwd"]})


def test_without_a_trust_model_no_demand_is_met() -> None:
    compiled = snapshot(HEAD + "  rules: [{require: {trust: {level: LOW}}}]\n")
    assert not allowed(compiled, USER)
    (rule,) = compiled.table.default_view.allow.rules
    (clause,) = rule.clauses
    assert clause.actual(Inputs(request(), Identity(None), Options(), NOW)) == "no TrustModel for this workload"


def test_what_was_seen_names_the_score_and_each_lost_point() -> None:
    demand = HEAD + "  rules: [{require: {trust: {level: HIGH, user: 80}}}]\n"
    compiled = snapshot(MODEL + "spec:\n" + NO_DEVICE_MODEL, demand)
    (rule,) = compiled.table.default_view.allow.rules
    (clause,) = rule.clauses
    token = Token("https://i", "u", {**USER, "amr": ["pwd"]})
    inputs = Inputs(
        request(), Identity(None, token, (token,)), compiled.options, NOW, None, facts_of(compiled, None, VIEWS)
    )
    assert clause.actual(inputs) == "level HIGH (score 88.23); user 70; lost user.noMfa -30"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}", "`require.trust` is empty"),
        ("{level: high}", "`high` is not a trust level that can be asked for; write `HIGH`"),
        ("{level: DENY}", "`DENY` is not a trust level"),
        ("{mood: 5}", "unknown field `mood`"),
        ("{device: 101}", "`device` is not a whole number from 0 to 100"),
        ("HIGH", "`require.trust` is a string"),
    ],
)
def test_what_cannot_be_meant_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(HEAD + f"  rules: [{{require: {{trust: {spec}}}}}]\n"))


def test_a_decision_carries_the_assessment_and_the_end_of_the_session() -> None:
    compiled = snapshot(MODEL + "spec:\n" + NO_DEVICE_MODEL, HEAD + "  rules: [{}]\n")
    decision = evaluate(compiled, request(), NO_EVIDENCE, NOW, views=VIEWS)
    assert decision.allowed
    assert decision.facts is not None
    assert decision.facts.trust is not None
    assert decision.facts.trust.level.name == "DENY"  # nobody is identified, and no rule asks for a level
    assert decision.facts.session_expires == NOW
    assert decision.facts.device is None
    denied = evaluate(snapshot(MODEL + "spec:\n" + NO_DEVICE_MODEL), request(), NO_EVIDENCE, NOW, views=VIEWS)
    assert denied.facts is None
    assert evaluate(snapshot(HEAD + "  rules: [{}]\n"), request(), NO_EVIDENCE, NOW, views=VIEWS).facts is None


def test_no_client_may_send_the_headers_about_trust() -> None:
    headers = {"x-zta-trust-level", "x-zta-trust-score", "x-zta-session-expires"}
    assert headers <= set(snapshot(MODEL + "spec: {}\n").guarded_names.listed)
    assert headers.isdisjoint(snapshot(HEAD + "  rules: [{}]\n").guarded_names.listed)


def test_a_rule_that_reads_no_fact_opens_none() -> None:
    class Untouched:
        def look_up(self, address: Ip, now: float) -> NetworkFacts:
            raise AssertionError

    views = FactViews(networks=Untouched())
    decision = evaluate(snapshot(HEAD + "  rules: [{}]\n"), request(), NO_EVIDENCE, NOW, views=views)
    assert decision.allowed
    assert decision.facts is None

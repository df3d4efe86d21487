"""Shadow policies count, log and record disagreements, and never change a decision."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from tests.support.policies import operation, policy, request
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.options import Options
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy_sources import shadow as module
from zta_authz.policy_sources.shadow import ShadowPolicies
from zta_authz.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import pytest

ALLOWED = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY, "default/old", 0)
DENIED = Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY)


def snapshot(*documents: dict[str, object]) -> Snapshot:
    return compile_snapshot(
        [SourceText("s.yaml", "\n---\n".join(json.dumps(document) for document in documents))], Options()
    )


def shadow_of(*documents: dict[str, object]) -> tuple[ShadowPolicies, Metrics]:
    metrics = Metrics("test")
    shadow = ShadowPolicies(metrics.policies)
    if documents:
        shadow.apply(snapshot(*documents))
    return shadow, metrics


def test_without_a_set_nothing_is_compared() -> None:
    shadow, metrics = shadow_of()
    assert shadow.compare(request(), ALLOWED, 1.0) is ALLOWED
    assert b"zta_shadow_requests_total 0.0" in metrics.render()


def test_agreement_leaves_the_decision_unchanged() -> None:
    shadow, metrics = shadow_of(policy("new", {}))
    assert shadow.compare(request(), ALLOWED, 1.0) is ALLOWED
    assert b"zta_shadow_requests_total 1.0" in metrics.render()


def test_a_disagreement_is_counted_by_policy_recorded_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    shadow, metrics = shadow_of(
        policy("new", operation(paths=["/new"])), policy("no", operation(paths=["/no"]), action="DENY")
    )
    with caplog.at_level(logging.WARNING):
        decided = [shadow.compare(request(path=path), DENIED, 1.0) for path in ("/new", "/new", "/other")]
        decided.append(shadow.compare(request(path="/no"), ALLOWED, 1.0))
    assert [decision.verdict for decision in decided] == [Verdict.DENY, Verdict.DENY, Verdict.DENY, Verdict.ALLOW]
    others = [decision.disagreement for decision in decided]
    disagreements = [other and (other.verdict, other.policy) for other in others]
    assert disagreements == [("allow", "default/new"), ("allow", "default/new"), None, ("deny", "default/no")]
    shown = metrics.render().decode()
    assert 'zta_shadow_disagreements_total{policy="default/new",verdict="allow"} 2.0' in shown
    assert 'zta_shadow_disagreements_total{policy="default/no",verdict="deny"} 1.0' in shown
    assert [record.message for record in caplog.records] == ["shadow policies disagree"] * 2


def test_a_disagreement_without_a_matching_shadow_policy_is_reported_too() -> None:
    shadow, metrics = shadow_of(policy("new", operation(paths=["/new"])))
    shadow.compare(request(path="/old"), ALLOWED, 1.0)
    assert 'zta_shadow_disagreements_total{policy="none",verdict="deny"} 1.0' in metrics.render().decode()


def test_an_error_in_the_shadow_policies_is_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    shadow, metrics = shadow_of(policy("new", {}))
    monkeypatch.setattr(module, "decide_again", lambda *_: 1 / 0)
    assert shadow.compare(request(), ALLOWED, 1.0) is ALLOWED
    assert b"zta_shadow_errors_total 1.0" in metrics.render()


def test_labels_are_limited_however_many_policies_disagree() -> None:
    shadow, metrics = shadow_of(policy("p", {}))
    for number in range(300):
        metrics.policies.disagreed("deny", f"default/p{number}")
    shown = metrics.render().decode()
    assert shown.count("zta_shadow_disagreements_total{") == 201
    assert 'zta_shadow_disagreements_total{policy="other",verdict="deny"} 100.0' in shown
    assert shadow.current() is not None


def test_a_refused_set_is_reported_and_the_one_before_stays_in_use() -> None:
    from zta_authz.errors import Fault

    shadow, metrics = shadow_of(policy("new", {}))
    shadow.on_refused([Fault("a.yaml", 1, 1, "wrong", "fix it")])
    assert 'zta_policy_load_faults{set="shadow_policies"} 1.0' in metrics.render().decode()
    assert shadow.compare(request(), DENIED, 1.0).disagreement is not None
    shadow.on_unchanged()
    assert 'zta_policy_load_faults{set="shadow_policies"} 0.0' in metrics.render().decode()

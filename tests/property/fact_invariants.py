"""What holds for every request, whatever is known about it and whatever the documents say of that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.property import reference_facts as reference
from tests.property.fact_shapes import NOW
from zta_authz.errors import Reason
from zta_authz.model.options import Options, Workload
from zta_authz.model.request import NO_EVIDENCE
from zta_authz.model.trust import TrustDemand, TrustLevel
from zta_authz.pdp.decide import Caller, decide, facts_of
from zta_authz.pdp.explain import explain
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.trust.assessment import CompiledTrustModel
from zta_authz.trust.counterfactual import smallest_lift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.property.fact_shapes import State
    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.model.decision import Decision
    from zta_authz.model.identity import Identity
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.pdp.snapshot import Snapshot

BEFORE_RULES = frozenset((Reason.PATH_AMBIGUOUS, Reason.HOST_AMBIGUOUS))
_DENIALS = frozenset(
    (Reason.NO_MATCHING_POLICY, Reason.STEP_UP_REQUIRED, Reason.TRUST_TOO_LOW, Reason.DENY_POLICY, *BEFORE_RULES)
)
_MOST_LOST = 8


class GivenIdentity:
    """Verifies every request as the caller that a test gives; all else is the verifier's."""

    def __init__(self, identity: Identity, verifier: IdentityVerifier) -> None:
        self._identity = identity
        self._verifier = verifier

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)

    def verify(self, *_: Any, **__: Any) -> Identity:
        """The caller."""
        return self._identity


def decided(compiled: Snapshot, state: State) -> Decision:
    """The decision of the documents on the state."""
    return decide(compiled, state.request, Caller(state.identity), NOW, views=state.views)


def agrees(compiled: Snapshot, state: State) -> Decision:
    """The decision, which is that of the slow reading."""
    decision = decided(compiled, state)
    assert decision.allowed or decision.reason in _DENIALS, decision
    if decision.reason not in BEFORE_RULES:
        rule = (decision.policy, decision.rule) if decision.policy else None
        assert (str(decision.verdict), rule) == reference.decide(state.known), f"{decision}\n{state}"
    return decision


def classified_as_read_slowly(compiled: Snapshot, state: State) -> None:
    """The class of the resource is that of the slow reading, also for paths that no rule is asked about."""
    found = inputs_of(compiled, state).facts.resource_class
    assert ("" if found is None else found.name) == reference.resource_class(state.known), state


def assessed_as_read_slowly(compiled: Snapshot, state: State) -> TrustAssessment | None:
    """The assessment, which is that of the slow reading, kept or not. Unknown facts cost at least what bad ones cost."""
    inputs = inputs_of(compiled, state)
    model = compiled.models.select(Workload()).trust
    assessment, expected = inputs.facts.trust, reference.trust(state.known)
    if model is None or assessment is None or expected is None:
        assert model is None
        assert assessment is None
        assert expected is None
        return None
    assert isinstance(model, CompiledTrustModel)
    assert assessment == model.assess(inputs), "what is kept is not what is computed"
    lost = {(loss.component, loss.signal): loss.points for loss in assessment.lost}
    components = {name: score for name, score in assessment.components.items() if name != "resource"}
    found = (assessment.score, int(assessment.level), components, lost)
    assert found == (expected.score, expected.level, expected.components, expected.lost)
    assert 0 <= assessment.score <= 10000
    return assessment


def explains_the_same(compiled: Snapshot, state: State, decision: Decision) -> None:
    """The explanation has the same decision, and names what is missing where no rule matched."""
    asked = replace(compiled, verifier=GivenIdentity(state.identity, compiled.verifier))
    explanation = explain(asked, state.request, NO_EVIDENCE, NOW, views=state.views)
    same = explanation.decision
    assert (same.verdict, same.reason, same.policy, same.rule, same.remedy, same.detail, same.facts) == (
        decision.verdict, decision.reason, decision.policy, decision.rule, decision.remedy, decision.detail, decision.facts,
    )  # fmt: skip
    unmatched = decision.rule is None and not decision.allowed and decision.reason not in BEFORE_RULES
    if unmatched and not decision.detail.startswith("class"):
        assert explanation.nearest
        assert all(miss.failed for miss in explanation.nearest), "a rule that matches is called a miss"


def loses_nothing_by_knowing(compiled: Snapshot, state: State, decision: Decision) -> None:
    """With one signal less, no level rises and nothing more is allowed. The documents have to be monotone."""
    before = inputs_of(compiled, state).facts.trust
    for other in state.losing():
        after = inputs_of(compiled, other).facts.trust
        if before is not None:
            assert after is not None
            assert after.level <= before.level, other
            assert after.score <= before.score, other
        assert decision.allowed or not decided(compiled, other).allowed, f"allowed without a signal\n{state}\n{other}"


def lifts_are_smallest_and_true(compiled: Snapshot, state: State, assessment: TrustAssessment | None) -> None:
    """What would lift the level does so, and no smaller set of signals does."""
    model = compiled.models.select(Workload()).trust
    if assessment is None or len(assessment.lost) > _MOST_LOST or not isinstance(model, CompiledTrustModel):
        return
    for demand in demands(state):
        compiled_demand = TrustDemand(
            TrustLevel[demand.get("level", "DENY")],
            tuple((name, demand[name] * 100) for name in ("user", "device", "network", "behavior") if name in demand),
        )
        lift = smallest_lift(model, assessment, compiled_demand)
        found = reference.smallest_lifts(state.known, demand, len(assessment.lost))
        if lift is None:
            assert not found
        else:
            assert frozenset((loss.component, loss.signal) for loss in lift) in found


def demands(state: State) -> Iterator[dict[str, Any]]:
    """What rules and classes ask of trust."""
    for document in state.documents:
        yield from document["spec"].get("demands", {}).values()
        for rule in document["spec"].get("rules", ()):
            if "trust" in rule.get("require", {}):
                yield rule["require"]["trust"]


def inputs_of(compiled: Snapshot, state: State) -> Inputs:
    """What rules read of the state."""
    return Inputs(state.request, state.identity, Options(), NOW, None, facts_of(compiled, None, state.views))

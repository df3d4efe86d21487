"""Trust is monotone, never gains from what is unknown, and its counterfactual is the smallest there is."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from hypothesis import given, settings, strategies as st

from tests.support.trust import inputs
from zta_authz.model.facts import ABSENT, known
from zta_authz.model.trust import LostPoints, TrustAssessment, TrustDemand, TrustLevel
from zta_authz.trust.assessment import CompiledTrustModel, Component
from zta_authz.trust.counterfactual import smallest_lift
from zta_authz.trust.signals import FactSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.facts import Fact
    from zta_authz.policy.rules.inputs import Inputs

NAMES = ("user", "device", "network")
SESSIONS = {TrustLevel.LOW: 1800, TrustLevel.MEDIUM: 3600, TrustLevel.HIGH: 7200}
FACTS = st.sampled_from((known(True), known(False), ABSENT))
LEVELS = st.sampled_from(tuple(TrustLevel))


def read_from(facts: dict[str, Fact], name: str) -> Callable[[Inputs], Fact]:
    return lambda _: facts[name]


@st.composite
def models(draw: st.DrawFn) -> tuple[CompiledTrustModel, dict[str, Fact]]:
    """A model of a few small components, and the facts that its signals read by name."""
    facts: dict[str, Fact] = {}
    components = []
    for name in NAMES:
        signals = []
        for number in range(draw(st.integers(0, 3))):
            signal = f"{name}{number}"
            facts[signal] = draw(FACTS)
            caps = draw(st.sampled_from((None, None, TrustLevel.DENY, TrustLevel.LOW, TrustLevel.MEDIUM)))
            signals.append(FactSignal(signal, draw(st.integers(1, 60)) * 100, caps, read_from(facts, signal)))
        floor = draw(st.sampled_from((0, 4000, 7000)))
        components.append(Component(name, draw(st.integers(1, 40)), floor, None, tuple(signals)))
    thresholds = ((8000, TrustLevel.HIGH), (6000, TrustLevel.MEDIUM), (4000, TrustLevel.LOW))
    return CompiledTrustModel("default/m", tuple(components), thresholds, SESSIONS, 300), facts


def assess(model: CompiledTrustModel) -> TrustAssessment:
    return model.assess(inputs())


@given(models(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_lost_signal_never_raises_a_level_and_unknown_is_never_better_than_bad(
    drawn: tuple[CompiledTrustModel, dict[str, Fact]], data: st.DataObject
) -> None:
    model, facts = drawn
    if not facts:
        return
    name = data.draw(st.sampled_from(sorted(facts)))
    outcomes = {}
    for label, fact in (("good", known(True)), ("bad", known(False)), ("unknown", ABSENT)):
        facts[name] = fact
        outcomes[label] = assess(model)
    assert outcomes["bad"].level <= outcomes["good"].level
    assert outcomes["bad"].score <= outcomes["good"].score
    assert (outcomes["unknown"].score, outcomes["unknown"].level) == (outcomes["bad"].score, outcomes["bad"].level)


@given(models(), LEVELS, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 100).map(lambda n: n * 100)))
@settings(max_examples=300, deadline=None)
def test_the_counterfactual_is_true_and_no_smaller_set_would_do(
    drawn: tuple[CompiledTrustModel, dict[str, Fact]], level: TrustLevel, least: dict[str, int]
) -> None:
    model, facts = drawn
    demand = TrustDemand(level, tuple(sorted(least.items())))
    assessment = assess(model)
    lift = smallest_lift(model, assessment, demand)
    found = len(lift) if lift is not None else len(assessment.lost) + 1
    for size in range(len(assessment.lost) + 1):
        reached = [chosen for chosen in combinations(assessment.lost, size) if meets(model, facts, chosen, demand)]
        if size < found:
            assert not reached
    if lift is not None:
        assert meets(model, facts, lift, demand)


def meets(
    model: CompiledTrustModel, facts: dict[str, Fact], changed: tuple[LostPoints, ...], demand: TrustDemand
) -> bool:
    """Whether the model, asked again with these facts good, meets the demand."""
    before = dict(facts)
    facts.update({loss.signal: known(True) for loss in changed})
    try:
        return not demand.unmet(assess(model))
    finally:
        facts.update(before)

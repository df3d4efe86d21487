"""Documents about facts decide like a slow reading of them, and losing a signal never allows more."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.property import fact_invariants as invariants
from tests.property.fact_shapes import FactShapes, texts_of
from tests.support.policies import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.property.fact_shapes import State
    from zta_authz.pdp.snapshot import Snapshot


def drawn(seed: str, sets: int, states: int, *, monotone: bool = False) -> Iterator[tuple[Snapshot, State]]:
    for number in range(sets):
        shapes = FactShapes(Random(f"{seed} {number}"), monotone=monotone)
        documents = shapes.documents()
        compiled = snapshot(*texts_of(documents))
        for _ in range(states):
            yield compiled, shapes.state(documents)


@pytest.mark.parametrize("seed", range(3))
def test_documents_about_facts_decide_like_a_slow_reading_of_them(seed: int) -> None:
    seen = dict.fromkeys(("rule", "default", "class"), 0)
    for compiled, state in drawn(f"agreement {seed}", 50, 12):
        decision = invariants.agrees(compiled, state)
        seen["class" if decision.detail.startswith("class") else "rule" if decision.policy else "default"] += 1
    assert min(seen.values()) > 2, seen


def test_resources_have_the_class_that_a_slow_reading_gives_them() -> None:
    for compiled, state in drawn("classes", 60, 10):
        invariants.classified_as_read_slowly(compiled, state)


def test_trust_is_assessed_like_a_slow_reading_of_the_model_and_lifted_by_the_fewest_signals() -> None:
    for compiled, state in drawn("trust", 60, 8):
        assessment = invariants.assessed_as_read_slowly(compiled, state)
        invariants.lifts_are_smallest_and_true(compiled, state, assessment)


def test_explanations_have_the_decision_that_they_explain() -> None:
    for compiled, state in drawn("explanation", 60, 8):
        invariants.explains_the_same(compiled, state, invariants.decided(compiled, state))


def test_a_lost_signal_raises_no_level_and_allows_nothing_more() -> None:
    allowed = 0
    for compiled, state in drawn("monotone", 60, 4, monotone=True):
        decision = invariants.decided(compiled, state)
        invariants.loses_nothing_by_knowing(compiled, state, decision)
        allowed += decision.allowed
    assert allowed > 20

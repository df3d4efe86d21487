"""What would lift the level: the fewest signals that would have to change for a demand to be met. Exact.

A component's score depends only on the sum of the points it lost, so of `n` signals of one component the `n` that took
the most lift it furthest. Which numbers of signals to take from which component is a small knapsack, solved exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zta_authz.model.trust import LostPoints, TrustAssessment, TrustDemand, TrustLevel
from zta_authz.trust.signals import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.trust.assessment import CompiledTrustModel, Component


@dataclass(frozen=True, slots=True)
class _Choice:
    """Signals of one component that change, and the weighted score that the component has then."""

    signals: tuple[LostPoints, ...]
    weighted: int


def smallest_lift(
    model: CompiledTrustModel, assessment: TrustAssessment, demand: TrustDemand
) -> tuple[LostPoints, ...] | None:
    """The fewest of `assessment.lost` whose change meets `demand`; () where it is met, None where none would.

    Of several sets of the same size, the one that lifts the score most.
    """
    caps = {(component.name, s.name): s.caps for component in model.components for s in component.signals}
    best: dict[int, _Choice] = {0: _Choice((), 0)}
    weights = model.resource_weight
    resource = assessment.components.get("resource", 0) * model.resource_weight
    for component in model.components:
        lost = [loss for loss in assessment.lost if loss.component == component.name]
        forced = [loss for loss in lost if _holds_below(caps.get((component.name, loss.signal)), demand.level)]
        free = sorted((loss for loss in lost if loss not in forced), key=lambda loss: -loss.points)
        best = _combined(best, list(_choices(component, lost, forced, free, demand)))
        weights += component.weight
    least = next((score for score, level in model.thresholds if level is demand.level), 0)
    for count in sorted(best):
        if (best[count].weighted + resource) // max(weights, 1) >= least:
            return best[count].signals
    return None


def _holds_below(cap: TrustLevel | None, level: TrustLevel) -> bool:
    return cap is not None and cap < level


def _choices(
    component: Component, lost: list[LostPoints], forced: list[LostPoints], free: list[LostPoints], demand: TrustDemand
) -> Iterator[_Choice]:
    """For each number of signals the best choice that meets what is asked of this component by itself."""
    start = FULL if component.assume is None else component.assume
    raw = start - sum(loss.points for loss in lost)
    least = max(
        component.floor if demand.level > TrustLevel.DENY else 0, dict(demand.components).get(component.name, 0)
    )
    for count in range(len(free) + 1):
        changed = (*forced, *free[:count])
        score = max(raw + sum(loss.points for loss in changed), 0)
        if score >= least:
            yield _Choice(changed, component.weight * score)


def _combined(best: dict[int, _Choice], choices: list[_Choice]) -> dict[int, _Choice]:
    """The best choice for each number of signals, over the components so far and one more."""
    combined: dict[int, _Choice] = {}
    for before in best.values():
        for choice in choices:
            signals = (*before.signals, *choice.signals)
            weighted = before.weighted + choice.weighted
            held = combined.get(len(signals))
            if held is None or held.weighted < weighted:
                combined[len(signals)] = _Choice(signals, weighted)
    return combined

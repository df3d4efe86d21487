"""A compiled TrustModel: adds up what signals take, and says score, level and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from zta_authz.model.facts import steady_around
from zta_authz.model.trust import LostPoints, SignalSources, TrustAssessment, TrustLevel
from zta_authz.trust.signals import FULL, CountSignal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.documents import Position
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.trust.signals import Signal

NEVER: Final = (inf, -inf)
"""Between these times nothing is."""
RESOURCE: Final = "resource"
SEED_RESOURCE_SCORES: Final[Mapping[str, int]] = {
    "public": 10000, "internal": 7000, "confidential": 4000, "restricted": 2000,
}  # fmt: skip
SEED_UNKNOWN_RESOURCE: Final = 5000
"""What the averaged formula gives an unknown resource, which is more than it gives a confidential one."""


@dataclass(frozen=True, slots=True)
class Component:
    """One component. `floor` and `assume` are in hundredths; `assume` is None where signals are read."""

    name: str
    weight: int
    floor: int
    assume: int | None
    signals: tuple[Signal, ...]


@dataclass(frozen=True, slots=True)
class CompiledTrustModel:
    """Immutable. `thresholds` are (least score, level), highest first; `sessions` and `reverify` are in seconds."""

    name: str
    components: tuple[Component, ...]
    thresholds: tuple[tuple[int, TrustLevel], ...]
    sessions: Mapping[TrustLevel, int]
    reverify: int
    resource_weight: int = 0
    """The weight of the resource's class in the averaged formula (`seedCompatible`); 0 leaves it out."""
    position: Position | None = field(default=None, repr=False, compare=False)
    """Where its document is."""
    _sources: SignalSources = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        signals = [signal for component in self.components for signal in component.signals]
        by_signal = {(component.name, s.name): s.reads for component in self.components for s in component.signals}
        at_rest: dict[str, str | int] = {s.reads: 0 if isinstance(s, CountSignal) else "off" for s in signals}
        object.__setattr__(self, "_sources", SignalSources(by_signal, at_rest))

    def steady(self, inputs: Inputs) -> tuple[float, float]:
        """The times between which the same token, device and network get the same assessment (see `NetworkFacts`).

        Never, if a condition or the resource's class counts, which rest on the whole request.
        """
        if self.resource_weight:
            return NEVER
        changes: list[float] = []
        for component in self.components:
            for signal in component.signals:
                at = signal.changes(inputs)
                if at is None:
                    return NEVER
                changes += at
        return steady_around(inputs.now, changes)

    def assess(self, inputs: Inputs) -> TrustAssessment:
        """Score and level of one request. Never raises; what is unknown costs at least what is bad."""
        total = weights = 0
        cap = TrustLevel.HIGH
        scores: dict[str, int] = {}
        lost: list[LostPoints] = []
        capped: list[str] = []
        for component in self.components:
            score = FULL if component.assume is None else component.assume
            for signal in component.signals:
                loss = signal.lost(inputs)
                if loss is None:
                    continue
                points, fact = loss
                score -= points
                lost.append(LostPoints(component.name, signal.name, points, fact))
                if signal.caps is not None:
                    cap = min(cap, signal.caps)
                    capped.append(f"signal {signal.name}")
            score = max(score, 0)
            if score < component.floor:
                cap = TrustLevel.DENY
                capped.append(f"floor {component.name}")
            scores[component.name] = score
            total += component.weight * score
            weights += component.weight
        if self.resource_weight:
            resource = inputs.facts.resource_class
            scores[RESOURCE] = resource_score("" if resource is None else resource.name)
            total += self.resource_weight * scores[RESOURCE]
            weights += self.resource_weight
        return self._assessment(total // weights, cap, scores, lost, capped)

    def _assessment(
        self, score: int, cap: TrustLevel, scores: dict[str, int], lost: list[LostPoints], capped: list[str]
    ) -> TrustAssessment:
        level = min(self.level_of(score), cap)
        return TrustAssessment(
            self.name,
            score,
            level,
            scores,
            tuple(lost),
            tuple(capped),
            self.sessions.get(level, 0),
            self.reverify,
            self._sources,
        )

    def level_of(self, score: int) -> TrustLevel:
        """The level of a score in hundredths, before floors and caps."""
        for least, level in self.thresholds:
            if score >= least:
                return level
        return TrustLevel.DENY


def resource_score(name: str) -> int:
    """What the averaged formula gives a class, in hundredths; "" for a resource without one."""
    return SEED_RESOURCE_SCORES.get(name, SEED_UNKNOWN_RESOURCE)

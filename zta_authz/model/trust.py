"""Trust: a score, a level and why, as a `TrustModel` assesses one request (NIST SP 800-207 section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.facts import Fact

HUNDREDTHS: Final = 100
"""Scores are integers in hundredths of a point: 9100 is 91.00, and 59.99 never rounds up to 60."""


class TrustLevel(IntEnum):
    """How far a request is trusted: a higher level is more trust (CAEP's risk levels run the other way)."""

    DENY = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


class LostPoints(NamedTuple):
    """Points that one signal took from one component, in hundredths, and the fact it rests on."""

    component: str
    signal: str
    points: int
    fact: Fact


@dataclass(frozen=True, slots=True)
class SignalSources:
    """What the signals of a model read, for records: models whose signals read the same share the signals' states.

    `by_signal` has, by component and signal, the name of what it reads: `noMfa`, `claimAge:account_created_at:2592000`.
    `at_rest` has, by that name, the state of a signal that takes no points: `off`, or 0 for one that counts.
    """

    by_signal: Mapping[tuple[str, str], str]
    at_rest: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class TrustAssessment:
    """What a model says of one request.

    `score` and the values of `components` are in hundredths, 0 to 10000. `capped_by` names the floors, caps and vetoes
    that hold the level below what the score would give. `session_seconds` and `reverify_seconds` are the longest
    session and the time until the next verification at this level. `model` is `namespace/name`.
    """

    model: str
    score: int
    level: TrustLevel
    components: Mapping[str, int]
    lost: tuple[LostPoints, ...] = ()
    capped_by: tuple[str, ...] = ()
    session_seconds: int = 0
    reverify_seconds: int = 0
    sources: SignalSources | None = field(default=None, repr=False, compare=False)
    derived: list[object] = field(default_factory=list, repr=False, compare=False)
    """What is made from it once, such as its part of a record."""


@dataclass(frozen=True, slots=True)
class TrustDemand:
    """The least level and the least component scores (in hundredths) that a rule or a resource's class asks for."""

    level: TrustLevel = TrustLevel.DENY
    components: tuple[tuple[str, int], ...] = ()
    is_set: bool = field(init=False, repr=False, compare=False)
    """Whether it demands anything."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_set", self.level > TrustLevel.DENY or bool(self.components))

    def unmet(self, assessment: TrustAssessment) -> tuple[str, ...]:
        """The names of what `assessment` does not reach: `level`, or a component's name."""
        unmet = ["level"] if assessment.level < self.level else []
        scores = assessment.components
        for name, least in self.components:
            if scores.get(name, 0) < least:
                unmet.append(name)
        return tuple(unmet)


NO_DEMAND: Final = TrustDemand()
CLASSES: Final = ("public", "internal", "confidential", "restricted")
"""The classes of resources, from the least sensitive to the most."""


@dataclass(frozen=True, slots=True)
class ResourceClass:
    """The class of the resource that a request asks for, and what it demands. `source` is `namespace/name`."""

    name: str
    demand: TrustDemand = TrustDemand()
    cost: int = 1
    source: str = ""

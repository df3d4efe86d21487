"""Compiled ResourceClassification: the class of the resource that a request asks for.

No other spelling of a path or host gets a laxer class. A rule for a class at least as sensitive as the default matches
in any reading, as a DENY rule does. A rule for a laxer class counts only if every reading matches one, as an ALLOW.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import CLASSES, NO_DEMAND, ResourceClass, TrustDemand, TrustLevel
from zta_authz.policy.rules.index import index_rules
from zta_authz.policy.rules.spellings import RespelledParts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.policy.documents.spec import ClassificationSpec, PolicySpec
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.rule import Rule

_READINGS: Final = RespelledParts(path=True, query=False, host=True, port=True)
RANKS: Final = {name: rank for rank, name in enumerate(CLASSES)}


class CompiledClassification:
    """One document. Immutable."""

    __slots__ = ("_classes", "_default", "_lax", "_lax_wide", "_strict", "demands", "name", "position")

    def __init__(self, spec: ClassificationSpec, rules_of: Callable[[PolicySpec], tuple[Rule, ...]]) -> None:
        """`rules_of` compiles the rules of a policy, in their order, as its action reads them."""
        self.name = spec.full_name
        self.position = spec.position
        self._classes = tuple(
            ResourceClass(given.class_name, spec.demands.get(given.class_name, NO_DEMAND), given.cost, self.name)
            for given in spec.given
        )
        self._default = ResourceClass(spec.default, spec.demands.get(spec.default, NO_DEMAND), 1, self.name)
        self.demands = {given.name: given.demand for given in (self._default, *self._classes) if given.demand.is_set}
        """What is demanded, by the names of the classes."""
        narrow, wide = rules_of(spec.policy), rules_of(replace(spec.policy, action="DENY"))
        least = RANKS[spec.default]
        order = sorted(range(len(wide)), key=lambda number: -RANKS[spec.given[number].class_name])
        strict = [number for number in order if RANKS[spec.given[number].class_name] >= least]
        lax = [number for number in order if RANKS[spec.given[number].class_name] < least]
        self._strict = index_rules([wide[number] for number in strict], deny=True)
        self._lax = index_rules([narrow[number] for number in lax], deny=False)
        self._lax_wide = index_rules([wide[number] for number in lax], deny=True)

    @property
    def classes(self) -> frozenset[str]:
        """The names of the classes that it gives."""
        return frozenset((self._default.name, *(given.name for given in self._classes)))

    def classify(self, inputs: Inputs) -> ResourceClass:
        """The strictest class that any reading of the request may have."""
        rule = self._strict.first(inputs)
        if rule is None and self._lax.rules and self._is_lax(inputs):
            rule = self._lax_wide.first(inputs)
        return self._default if rule is None else self._classes[rule.number]

    def _is_lax(self, inputs: Inputs) -> bool:
        """Whether each reading of the request matches a rule for a class that is laxer than the default."""
        if self._lax.first(inputs) is None:
            return False
        if not (inputs.strict and _has_other_readings(inputs)):
            return True
        return all(self._lax.first(reading) is not None for reading in inputs.respelled(_READINGS))


class CombinedClassification:
    """Several documents that select one workload: the strictest class counts, and all demands on it."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[CompiledClassification]) -> None:
        self._parts = tuple(parts)

    def classify(self, inputs: Inputs) -> ResourceClass:
        """The strictest of the classes. Of equal ones, the demands and the highest cost are combined."""
        strictest, *others = sorted(
            (part.classify(inputs) for part in self._parts), key=lambda resource: -RANKS[resource.name]
        )
        for other in others:
            if other.name == strictest.name:
                strictest = _combined(strictest, other)
        return strictest


def _combined(one: ResourceClass, other: ResourceClass) -> ResourceClass:
    level: TrustLevel = max(one.demand.level, other.demand.level)
    least = dict(one.demand.components)
    for component, score in other.demand.components:
        least[component] = max(score, least.get(component, 0))
    demand = TrustDemand(level, tuple(least.items()))
    return ResourceClass(one.name, demand, max(one.cost, other.cost), f"{one.source}, {other.source}")


def _has_other_readings(inputs: Inputs) -> bool:
    host = inputs.host
    return "%" in inputs.path or (host is not None and (":" in host or host.endswith(".")))

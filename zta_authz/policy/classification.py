"""Compiled ResourceClassification: the class of the resource that a request asks for.

Each way in which an upstream may read path and host is classified, and the most sensitive class counts: no other
spelling of a path gets a laxer class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import CLASSES, NO_DEMAND, ResourceClass
from zta_authz.policy.rules.spellings import RespelledParts
from zta_authz.policy.rules.table import RuleIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.policy.documents.spec import ClassificationSpec
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.rule import Rule

_READINGS: Final = RespelledParts(path=True, query=False, host=True, port=True)


def _has_other_readings(inputs: Inputs) -> bool:
    host = inputs.host
    return "%" in inputs.path or (host is not None and (":" in host or host.endswith(".")))


class CompiledClassification:
    """Immutable. Rules are tried from the most sensitive class to the least, so the first match is the strictest."""

    __slots__ = ("_classes", "_default", "_index", "_order", "name")

    def __init__(self, spec: ClassificationSpec, rules: Sequence[Rule]) -> None:
        """`rules` are compiled from the rules of `spec.policy`, in their order."""
        self.name = spec.full_name
        order = sorted(range(len(rules)), key=lambda number: -CLASSES.index(spec.given[number].class_name))
        self._index = RuleIndex([rules[number] for number in order], deny=False)
        self._order = {name: rank for rank, name in enumerate(CLASSES)}
        self._classes = tuple(
            ResourceClass(given.class_name, spec.demands.get(given.class_name, NO_DEMAND), given.cost, self.name)
            for given in spec.given
        )
        self._default = ResourceClass(spec.default, spec.demands.get(spec.default, NO_DEMAND), 1, self.name)

    def classify(self, inputs: Inputs) -> ResourceClass:
        """The strictest class in any reading of the request; of equal ones, the one of the text as it came."""
        strictest = self._read(inputs)
        if inputs.strict and _has_other_readings(inputs):
            for reading in inputs.respelled(_READINGS):
                other = self._read(reading)
                if self._order[other.name] > self._order[strictest.name]:
                    strictest = other
        return strictest

    def _read(self, inputs: Inputs) -> ResourceClass:
        rule = self._index.first(inputs)
        return self._default if rule is None else self._classes[rule.number]

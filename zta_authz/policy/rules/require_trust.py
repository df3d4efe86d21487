"""`require.trust`: the least trust level and component scores that a rule asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import HUNDREDTHS, TrustDemand, TrustLevel
from zta_authz.policy.yaml.values import whole_number

if TYPE_CHECKING:
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Mapping, Node

COMPONENTS: Final = ("user", "device", "network", "behavior")
_LEVELS: Final = ("LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class TrustClause:
    """The trust model's assessment meets `demand`. Without a trust model nothing does."""

    demand: TrustDemand
    negated: bool = False
    label: str = "require.trust"
    cost: int = 50

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether level and components reach what is demanded."""
        del deny
        assessment = inputs.facts.trust
        return assessment is not None and not self.demand.unmet(assessment)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Trust has no lookup."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """Level and score, the components that are demanded, and what took points."""
        assessment = inputs.facts.trust
        if assessment is None:
            return "no TrustModel for this workload"
        return describe(assessment, self.demand)

    @property
    def expected(self) -> str:
        """The demand."""
        level = (f"level {self.demand.level.name}",) if self.demand.level else ()
        return "at least " + ", ".join((*level, *(f"{name} {points(least)}" for name, least in self.demand.components)))


def describe(assessment: TrustAssessment, demand: TrustDemand) -> str:
    """An assessment for an operator: level, score, the demanded components, and every lost point with its fact."""
    parts = [f"level {assessment.level.name} (score {points(assessment.score)})"]
    parts += [f"{name} {points(assessment.components.get(name, 0))}" for name, _ in demand.components]
    if assessment.capped_by:
        parts.append("held down by " + ", ".join(assessment.capped_by))
    lost = [f"{loss.component}.{loss.signal} -{points(loss.points)} ({loss.fact.state})" for loss in assessment.lost]
    if lost:
        parts.append("lost " + ", ".join(lost))
    return "; ".join(parts)


def points(hundredths: int) -> str:
    """A score as people read it: `91`, `70.5`; never rounded up."""
    return f"{hundredths / HUNDREDTHS:.2f}".rstrip("0").rstrip(".")


def read_require_trust(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.trust` to its clause; errors become faults."""
    demand = read_demand(reader, node, "require.trust")
    return () if demand is None else (TrustClause(demand),)


def read_demand(reader: Reader, node: Node, name: str) -> TrustDemand | None:
    """A level and least component scores; None, and a fault, where that is nothing."""
    mapping = reader.mapping(node, name, ("level", *COMPONENTS))
    if mapping is None:
        return None
    if not mapping.entries:
        reader.fault(mapping, f"`{name}` is empty", "add `level: HIGH` or a component like `device: 80`")
        return None
    components = tuple(
        (component, whole_number(reader, mapping, component, 0, 0, 100) * HUNDREDTHS)
        for component in COMPONENTS
        if mapping.get(component) is not None
    )
    return TrustDemand(_level(reader, mapping), components)


def _level(reader: Reader, mapping: Mapping) -> TrustLevel:
    node = mapping.get("level")
    text = None if node is None else reader.string(node, "level")
    if node is None or text is None:
        return TrustLevel.DENY
    if text not in _LEVELS:
        hint = f"write `{text.upper()}`" if text.upper() in _LEVELS else f"one of {', '.join(_LEVELS)}"
        reader.fault(node, f"`{text}` is not a trust level that can be asked for", hint)
        return TrustLevel.HIGH
    return TrustLevel[text]

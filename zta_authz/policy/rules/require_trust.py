"""`require.trust`: the least trust level and component scores that a rule asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.trust import HUNDREDTHS, NO_DEMAND, TrustDemand, TrustLevel
from zta_authz.policy.rules.require_authentication import read_step_up
from zta_authz.policy.yaml.nodes import Mapping
from zta_authz.policy.yaml.values import flag, whole_number

if TYPE_CHECKING:
    from zta_authz.model.facts import FactValue
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.rules.require_authentication import LoginRequest
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

COMPONENTS: Final = ("user", "device", "network", "behavior")
LEVELS: Final = ("LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class TrustClause:
    """The trust model's assessment meets `demand`. Without a trust model nothing does."""

    demand: TrustDemand
    step_up: LoginRequest | None = None
    """The login that the caller is asked for where one with several factors would suffice."""
    show_components: bool = False
    """Whether a denial names the components that are too low."""
    negated: bool = False
    label: str = "require.trust"
    cost: int = 50

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether level and components reach what is demanded."""
        del deny
        assessment = inputs.facts.trust
        return assessment is not None and not self.demand.unmet(assessment)

    def liftable(self, inputs: Inputs) -> tuple[str, ...]:
        """The components of which more would help: those below the demand or, for the level, all that lost points."""
        assessment = inputs.facts.trust
        unmet = () if assessment is None else self.demand.unmet(assessment)
        low = tuple(name for name in unmet if name != "level")
        if low or assessment is None or not unmet:
            return low
        return tuple(dict.fromkeys(loss.component for loss in assessment.lost if loss.component in COMPONENTS))

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
        return demand_text(self.demand)


def demand_text(demand: TrustDemand) -> str:
    """A demand for an operator: `at least level HIGH, device 80`."""
    level = (f"level {demand.level.name}",) if demand.level else ()
    return "at least " + ", ".join((*level, *(f"{name} {points(least)}" for name, least in demand.components)))


def describe(assessment: TrustAssessment, demand: TrustDemand = NO_DEMAND) -> str:
    """An assessment for an operator: level, score, the demanded components, and every lost point with its fact."""
    parts = [f"level {assessment.level.name} (score {points(assessment.score)})"]
    parts += [f"{name} {points(assessment.components.get(name, 0))}" for name, _ in demand.components]
    if assessment.capped_by:
        parts.append("held down by " + ", ".join(assessment.capped_by))
    lost = [
        f"{loss.component}.{loss.signal} -{points(loss.points)}{_cause(loss.fact.value, loss.fact.state)}"
        for loss in assessment.lost
    ]
    if lost:
        parts.append("lost " + ", ".join(lost))
    return "; ".join(parts)


def _cause(value: FactValue | None, state: str) -> str:
    """Why points are lost: the state of an unknown fact, or a number; "" for a signal that is on."""
    return "" if isinstance(value, bool) else f" ({state if value is None else value})"


def points(hundredths: int) -> str:
    """A score as people read it: `91`, `70.5`; never rounded up."""
    return f"{hundredths / HUNDREDTHS:.2f}".rstrip("0").rstrip(".")


def read_require_trust(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.trust` to its clause; errors become faults."""
    demand = read_demand(reader, node, "require.trust", ("stepUp", "showComponents"))
    if demand is None or not isinstance(node, Mapping):
        return ()
    step_up = node.get("stepUp")
    login = None if step_up is None else read_step_up(reader, step_up)
    return (TrustClause(demand, login, flag(reader, node, "showComponents")),)


def read_demand(reader: Reader, node: Node, name: str, more: tuple[str, ...] = ()) -> TrustDemand | None:
    """A level and least component scores; None, and a fault, where that is nothing. The caller reads `more` fields."""
    mapping = reader.mapping(node, name, ("level", *COMPONENTS, *more))
    if mapping is None:
        return None
    if not any(mapping.get(field) is not None for field in ("level", *COMPONENTS)):
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
    if text not in LEVELS:
        hint = f"write `{text.upper()}`" if text.upper() in LEVELS else f"one of {', '.join(LEVELS)}"
        reader.fault(node, f"`{text}` is not a trust level that can be asked for", hint)
        return TrustLevel.HIGH
    return TrustLevel[text]

"""Clauses that Istio does not have: a CEL condition, a time window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zta_authz.policy.cel.explanation import explain_condition

if TYPE_CHECKING:
    from zta_authz.policy.cel.condition import Condition
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.rules.schedule import TimeWindow


@dataclass(frozen=True, slots=True)
class ConditionClause:
    """A CEL condition. An unknown value holds only for a DENY. Tried last, because it costs the most."""

    condition: Condition
    negated: bool = False
    label: str = "condition"
    cost: int = 100

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """The condition's value; `deny` if it is unknown."""
        stages = inputs.stages
        if stages is None:
            value = self.condition.evaluate(inputs)
        else:
            begun = stages.clock()
            value = self.condition.evaluate(inputs)
            stages.conditions += 1
            stages.conditions_ns += stages.clock() - begun
        return deny if value is None else value

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index can't look up a condition."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The value of the condition and of each clause, with what each clause reads."""
        inputs.restore_condition_units()
        return explain_condition(self.condition, inputs)

    @property
    def expected(self) -> str:
        """The expression."""
        return f"`{self.condition.text.strip()}`"


@dataclass(frozen=True, slots=True)
class TimeClause:
    """`effectiveFrom`, `expiresAt` and `schedule`."""

    times: TimeWindow
    negated: bool = False
    label: str = "time"
    cost: int = 4

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the time of the decision is in the window."""
        del deny
        return self.times.holds(inputs.now)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index can't look up a time."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The time of the decision in UTC and, for weekly windows, in their time zone."""
        zone = self.times.zone
        local = "" if zone is None else f" (`{datetime.fromtimestamp(inputs.now, zone):%a %H:%M}` in {zone.key})"
        return f"`{datetime.fromtimestamp(inputs.now, UTC):%Y-%m-%dT%H:%M:%SZ %a}`{local}"

    @property
    def expected(self) -> str:
        """The window."""
        return f"`{self.times}`"

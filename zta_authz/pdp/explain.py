"""Why a decision came out as it did, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused
from zta_authz.pdp.decide import decide
from zta_authz.policy.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.clauses import Clause
    from zta_authz.policy.rule import Rule

_NEAREST: Final = 3


@dataclass(frozen=True, slots=True)
class Miss:
    """An ALLOW rule that nearly matched: `failed` says which predicates did not hold and what was seen instead."""

    policy: str
    rule: int
    failed: tuple[str, ...]
    line: int = 0
    """Where the rule starts in its file, from 1."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and, where no ALLOW rule matched, the nearest of them, nearest first."""

    decision: Decision
    nearest: tuple[Miss, ...] = ()


def explain(
    snapshot: Snapshot, request: RequestAttributes, evidence: Evidence, now: float, caller: str = ""
) -> Explanation:
    """Decide as `decide` does, on the same core, and say what was missing for the nearest allow.

    Looks at every ALLOW rule of the workload: for operators, not for the request path.
    """
    decision = decide(snapshot, request, evidence, now, caller, trial=True)
    if decision.reason is not Reason.NO_MATCHING_POLICY:
        return Explanation(decision)
    try:
        workload = snapshot.workloads.resolve(request, caller)
    except Refused:  # cannot be: `decide` has just resolved the same
        return Explanation(decision)
    inputs = Inputs(request, decision.identity, snapshot.options, now)
    rules = snapshot.table.view(workload).allow.rules
    nearest = nsmallest(_NEAREST, rules, key=lambda rule: len(_failing(rule, inputs)))
    return Explanation(decision, tuple(_miss(rule, inputs) for rule in nearest))


def _failing(rule: Rule, inputs: Inputs) -> list[list[Clause]]:
    """What fails in the rule; conditions may cost as much as if it were the only rule."""
    inputs.restore_condition_units()
    return rule.failing(inputs, deny=False)


def _miss(rule: Rule, inputs: Inputs) -> Miss:
    failed = tuple(
        "; ".join(f"{clause.label}: saw {clause.seen(inputs)}, rule has {clause.wanted}" for clause in part)
        for part in _failing(rule, inputs)
    )
    return Miss(rule.policy.name, rule.number, failed, rule.line)

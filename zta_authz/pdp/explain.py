"""Why a decision came out as it did, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused
from zta_authz.model.facts import NO_FACTS
from zta_authz.pdp.decide import decide, facts_of
from zta_authz.policy.cel.cost import MAX_UNITS
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import Token
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import RuleIndex

_NEAREST: Final = 3
MOST_UNITS: Final = 20 * MAX_UNITS
"""What the conditions of all rules that are looked at may cost together, half a second or so."""


@dataclass(frozen=True, slots=True)
class Miss:
    """An ALLOW rule that nearly matched: `failed` says which predicates did not hold and what was seen instead."""

    policy: str
    rule: int
    failed: tuple[str, ...]
    line: int = 0
    """Where the rule starts in its file, from 1."""
    rule_name: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and, where no ALLOW rule matched, the nearest of them, nearest first.

    `matched` says of the rule that decided how its conditions and times came out, and what of a DENY could not be told.
    """

    decision: Decision
    nearest: tuple[Miss, ...] = ()
    matched: tuple[str, ...] = ()


def explain(
    snapshot: Snapshot,
    request: RequestAttributes,
    evidence: Evidence,
    now: float,
    caller: str = "",
    views: FactViews = NO_FACTS,
) -> Explanation:
    """Decide as `decide` does, on the same core, and say what was missing for the nearest allow.

    Looks at every ALLOW rule of the workload: for operators, not for the request path.
    """
    decision = decide(snapshot, request, evidence, now, caller, trial=True, views=views)
    if decision.rule is None and decision.reason is not Reason.NO_MATCHING_POLICY:
        return Explanation(decision)
    try:
        workload = snapshot.workloads.resolve(request, caller)
    except Refused:  # cannot be: `decide` has just resolved the same
        return Explanation(decision)
    inputs = Inputs(request, decision.identity, snapshot.options, now, None, facts_of(snapshot, workload, views))
    view = snapshot.table.view(workload)
    if decision.rule is not None:
        return Explanation(decision, matched=_matched(view.allow if decision.allowed else view.deny, decision, inputs))
    units = MOST_UNITS

    def missing(rule: Rule) -> int:
        """How much of the rule fails; one rule's conditions may cost what a request's may, all rules' `MOST_UNITS`."""
        nonlocal units
        granted = inputs.grant_condition_units(units)
        found = len(rule.failing_parts(inputs, deny=False))
        units -= granted - inputs.conditions.units
        return found

    nearest = nsmallest(_NEAREST, view.allow.rules, key=missing)
    return Explanation(decision, tuple(_miss(rule, inputs) for rule in nearest))


def _matched(index: RuleIndex, decision: Decision, inputs: Inputs) -> tuple[str, ...]:
    """What is to be said of the clauses of the rule that decided, for whichever token it did."""
    rules = [rule for rule in index.rules if (rule.policy.name, rule.number) == (decision.policy, decision.rule)]
    tokens = inputs.identity.tokens if index.deny and inputs.strict else ()
    ways = [inputs, *(_with_token(inputs, token) for token in tokens)]
    for rule in rules:
        for way in ways:
            way.restore_condition_units()
            if rule.holds(way, index.deny):
                held = (clause for clause in rule.matching_clauses(way, index.deny))
                return tuple(line for clause in held if (line := _held(clause, way, index.deny)))
    return ()


def _with_token(inputs: Inputs, token: Token) -> Inputs:
    return inputs.with_identity(replace(inputs.identity, token=token))


def _held(clause: Clause, inputs: Inputs, deny: bool) -> str:
    """How a clause that held came out, "" where there is nothing to explain."""
    inputs.restore_condition_units()
    certain = not deny or clause.holds(inputs, False)
    if certain and not isinstance(clause, (ConditionClause, TimeClause)):
        return ""
    told = f"{clause.label}: saw {clause.actual(inputs)}, rule has {clause.expected}"
    return told if certain else f"{told}; this can't be told for certain, and a DENY takes it for a match"


def _miss(rule: Rule, inputs: Inputs) -> Miss:
    inputs.restore_condition_units()
    failed = tuple(
        "; ".join(f"{clause.label}: saw {clause.actual(inputs)}, rule has {clause.expected}" for clause in part)
        for part in rule.failing_parts(inputs, deny=False)
    )
    return Miss(rule.policy.name, rule.number, failed, rule.line, rule.name)

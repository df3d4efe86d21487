"""Explanations of decisions for operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused
from zta_authz.model.facts import NO_FACTS
from zta_authz.pdp.decide import evaluate, facts_of
from zta_authz.pdp.explain_facts import fact_lines, lift_text
from zta_authz.pdp.shadow import UNMATCHED
from zta_authz.policy.cel.cost import MAX_UNITS
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_trust import TrustClause

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import Token
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.fact_reader import TrustModel
    from zta_authz.policy.rules.rule import Rule, RuleIndex

_NEAREST: Final = 3
MAX_EXPLAIN_UNITS: Final = 20 * MAX_UNITS
"""The budget for the conditions of all examined rules together, about half a second."""


@dataclass(frozen=True, slots=True)
class Miss:
    """An ALLOW rule that nearly matched; `failed` describes the clauses that did not match and the actual values."""

    policy: str
    rule: int
    failed: tuple[str, ...]
    line: int = 0
    """The line of the rule in its file, from 1."""
    rule_name: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and, if no ALLOW rule matched, the nearest ALLOW rules, nearest first.

    `matched` describes the conditions and times of the rule that decided, and the clauses of a DENY that are uncertain.
    """

    decision: Decision
    nearest: tuple[Miss, ...] = ()
    matched: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    """The facts that were read, in words."""


def explain(
    snapshot: Snapshot,
    request: RequestAttributes,
    evidence: Evidence,
    now: float,
    caller: str = "",
    views: FactViews = NO_FACTS,
) -> Explanation:
    """Decide as `evaluate` does, and find what the request lacks for the nearest ALLOW rules.

    This examines every ALLOW rule of the workload, so it is not for the request path.
    """
    decision = evaluate(snapshot, request, evidence, now, caller, views=views)
    if decision.rule is None and decision.reason not in UNMATCHED:
        return Explanation(decision, facts=fact_lines(decision.facts, now))
    try:
        workload = snapshot.workloads.resolve(request, caller)
    except Refused:  # impossible: `evaluate` has just resolved the same workload
        return Explanation(decision)
    inputs = Inputs(request, decision.identity, snapshot.options, now, None, facts_of(snapshot, workload, views))
    view = snapshot.table.view(workload)
    model = snapshot.models.select(workload).trust
    if decision.rule is not None:
        matched = _matched(view.allow if decision.allowed else view.deny, decision, inputs)
        return Explanation(decision, matched=matched, facts=fact_lines(decision.facts, now))
    if decision.reason is Reason.TRUST_TOO_LOW and decision.remedy is None:
        resource = inputs.facts.resource_class
        lift = "" if resource is None else lift_text(model, inputs.facts.trust, resource.demand)
        return Explanation(decision, matched=(lift,) if lift else (), facts=fact_lines(decision.facts, now))
    units = MAX_EXPLAIN_UNITS

    def count_failures(rule: Rule) -> int:
        """Count the failing parts. A rule may use a request's budget, all rules together `MAX_EXPLAIN_UNITS`."""
        nonlocal units
        granted = inputs.grant_condition_units(units)
        failures = len(rule.failing_parts(inputs, deny=False))
        units -= granted - inputs.conditions.units
        return failures

    nearest = nsmallest(_NEAREST, view.allow.rules, key=count_failures)
    misses = tuple(_miss(rule, inputs, model) for rule in nearest)
    read = None if inputs.read_facts is None else inputs.read_facts.collected(allowed=False)
    return Explanation(decision, misses, facts=fact_lines(read, now))


def _matched(index: RuleIndex, decision: Decision, inputs: Inputs) -> tuple[str, ...]:
    """Describe the clauses of the rule that decided, for the token that it matched."""
    rules = [rule for rule in index.rules if (rule.policy.name, rule.number) == (decision.policy, decision.rule)]
    tokens = inputs.identity.tokens if index.deny and inputs.strict else ()
    inputs_by_token = [inputs, *(_with_token(inputs, token) for token in tokens)]
    for rule in rules:
        for token_inputs in inputs_by_token:
            token_inputs.restore_condition_units()
            if rule.holds(token_inputs, index.deny):
                matching = (clause for clause in rule.matching_clauses(token_inputs, index.deny))
                return tuple(line for clause in matching if (line := _describe_match(clause, token_inputs, index.deny)))
    return ()


def _with_token(inputs: Inputs, token: Token) -> Inputs:
    return inputs.with_identity(replace(inputs.identity, token=token))


def _describe_match(clause: Clause, inputs: Inputs, deny: bool) -> str:
    """Describe a matching clause, "" if there is nothing to explain."""
    inputs.restore_condition_units()
    certain = not deny or clause.holds(inputs, False)
    if certain and not isinstance(clause, (ConditionClause, TimeClause)):
        return ""
    text = f"{clause.label}: saw {clause.actual(inputs)}, rule has {clause.expected}"
    return text if certain else f"{text}; this is uncertain, and a DENY treats it as a match"


def _miss(rule: Rule, inputs: Inputs, model: TrustModel | None) -> Miss:
    inputs.restore_condition_units()
    failed = tuple(
        "; ".join(_describe_failure(clause, inputs, model) for clause in part)
        for part in rule.failing_parts(inputs, deny=False)
    )
    return Miss(rule.policy.name, rule.number, failed, rule.line, rule.name)


def _describe_failure(clause: Clause, inputs: Inputs, model: TrustModel | None) -> str:
    text = f"{clause.label}: saw {clause.actual(inputs)}, rule has {clause.expected}"
    lift = lift_text(model, inputs.facts.trust, clause.demand) if isinstance(clause, TrustClause) else ""
    return f"{text}; {lift}" if lift else text

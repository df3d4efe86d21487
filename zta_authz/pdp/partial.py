"""Partial evaluation: the decision on a request of which only some attributes are known. Pure.

The logic is three-valued (Kleene's strong logic). A clause on an unknown attribute may hold or not. A rule is an AND of
clauses, so it certainly does not hold once one clause certainly does not. A decision is certain only if every possible
completion of the request leads to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import WorkloadView

    Known = Callable[[Clause], bool]


@dataclass(frozen=True, slots=True)
class Outlook:
    """The certain `decision`, or None; then `missing` names the rule fields that it depends on."""

    decision: Decision | None
    missing: tuple[str, ...] = ()


def outlook(view: WorkloadView, inputs: Inputs, known: Known, *, default_allow: bool) -> Outlook:
    """As `decide.combine`, for partly known `inputs`: `known` says for which clauses they suffice."""
    denied, maybe_denied = _first(view.deny.rules, inputs, known, deny=True)
    if denied is not None:
        return Outlook(_decision(Verdict.DENY, Reason.DENY_POLICY, denied))
    allowed, maybe_allowed = _first(view.allow.rules, inputs, known, deny=False)
    if allowed is not None:
        certain = _decision(Verdict.ALLOW, Reason.ALLOW_POLICY, allowed)
        return Outlook(None, tuple(sorted(maybe_denied))) if maybe_denied else Outlook(certain)
    by_default = default_allow and not view.has_allow
    if by_default:
        certain = Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT)
        return Outlook(None, tuple(sorted(maybe_denied))) if maybe_denied else Outlook(certain)
    if maybe_allowed:
        return Outlook(None, tuple(sorted(maybe_denied | maybe_allowed)))
    return Outlook(Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY))  # whether or not a DENY rule holds


def _first(rules: Iterable[Rule], inputs: Inputs, known: Known, *, deny: bool) -> tuple[Rule | None, set[str]]:
    """Return the first rule that certainly holds, and the fields that rules before it depend on."""
    missing: set[str] = set()
    for rule in rules:
        needs = _needs(rule, inputs, known, deny=deny)
        if needs is not None:
            if not needs:
                return rule, missing
            missing |= needs
    return None, missing


def _needs(rule: Rule, inputs: Inputs, known: Known, *, deny: bool) -> set[str] | None:
    """The unknown fields that `rule` depends on: empty if it certainly holds, None if it certainly does not."""
    inputs.restore_condition_units()  # every rule is evaluated here, not only those that an index selects
    needs = _all(rule.clauses, inputs, known, deny=deny)
    if needs is None:
        return None
    for group in rule.groups:
        needs_by_alternative = [_all(alternative, inputs, known, deny=deny) for alternative in group]
        possible = [alternative_needs for alternative_needs in needs_by_alternative if alternative_needs is not None]
        if not possible:
            return None
        if all(possible):  # no alternative certainly holds
            needs = needs.union(*possible)
    return needs


def _all(clauses: Iterable[Clause], inputs: Inputs, known: Known, *, deny: bool) -> set[str] | None:
    needs: set[str] = set()
    for clause in clauses:
        if not known(clause):
            needs.add(clause.label)
        elif not clause.holds(inputs, deny):
            return None
    return needs


def _decision(verdict: Verdict, reason: Reason, rule: Rule) -> Decision:
    return Decision(verdict, reason, rule.policy.name, rule.number, rule_name=rule.name)

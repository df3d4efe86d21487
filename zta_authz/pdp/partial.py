"""What policies say of a request of which only a part is known: the verdicts that are still possible. Pure.

Three-valued (Kleene's strong logic): a clause on something that is not known may hold or not; a rule, an AND of
clauses, surely does not hold as soon as one clause surely does not. Nothing is guessed: a verdict is certain only if
every completion of the request comes to it.
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
    """`decision` is certain; None where it is not, and then `missing` names the fields of rules that it hangs on."""

    decision: Decision | None
    missing: tuple[str, ...] = ()


def outlook(view: WorkloadView, inputs: Inputs, known: Known, *, default_allow: bool) -> Outlook:
    """As `decide.combine`, for `inputs` of which a clause can be told only where `known` says so."""
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
    """The first rule that surely holds, and what rules that may hold hang on."""
    missing: set[str] = set()
    for rule in rules:
        needs = _needs(rule, inputs, known, deny=deny)
        if needs is not None:
            if not needs:
                return rule, missing
            missing |= needs
    return None, missing


def _needs(rule: Rule, inputs: Inputs, known: Known, *, deny: bool) -> set[str] | None:
    """What must be known to tell whether `rule` holds: nothing where it surely does; None where it surely does not."""
    inputs.restore_condition_units()  # every rule is looked at here, not only those that an index finds
    needs = _all(rule.clauses, inputs, known, deny=deny)
    if needs is None:
        return None
    for group in rule.groups:
        found = [_all(alternative, inputs, known, deny=deny) for alternative in group]
        possible = [each for each in found if each is not None]
        if not possible:
            return None
        if all(possible):  # no alternative surely holds
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

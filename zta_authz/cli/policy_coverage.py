"""Coverage of policy tests: the rules that no test reaches. A test reaches the rules that match its request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from zta_authz.policy.rules.rule import rule_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.cli.policy_evaluator import PolicyEvaluator
    from zta_authz.cli.policy_tests import CaseResult, Suite


class LocatedRule(NamedTuple):
    """A rule with its file and line."""

    source: str
    line: int
    policy: str
    rule: int
    name: str
    action: str

    def __str__(self) -> str:
        shown = rule_label(self.rule, self.name)
        return f"{self.source}:{self.line}: {self.action} policy {self.policy}, rule {shown}: no test reaches it"


class Coverage(NamedTuple):
    """The number of rules, and the rules that no test reaches, sorted by location."""

    rules: int
    missed: tuple[LocatedRule, ...]

    def fields(self) -> dict[str, Any]:
        """Return the coverage as JSON fields."""
        missed = [
            {
                "source": rule.source,
                "line": rule.line,
                "policy": rule.policy,
                "rule": rule.rule,
                "ruleName": rule.name or None,
                "action": rule.action,
            }
            for rule in self.missed
        ]
        return {"rules": self.rules, "reached": self.rules - len(self.missed), "notReached": missed}


def coverage_of(results: Iterable[tuple[Suite, list[CaseResult]]]) -> Coverage:
    """Compute the coverage of all suites together. A rule counts once, even if several documents load it."""
    rules: set[LocatedRule] = set()
    reached: set[LocatedRule] = set()
    for suite, case_results in results:
        own = list(_rules(suite.evaluator))
        rules.update(own)
        keys = {key for result in case_results for key in _reached(result)}
        reached.update(rule for rule in own if (rule.policy, rule.rule, rule.action) in keys)
    return Coverage(len(rules), tuple(sorted(rules - reached)))


def _rules(evaluator: PolicyEvaluator) -> Iterator[LocatedRule]:
    for policy in evaluator.snapshot.table.policies:
        ref = policy.ref
        for rule in policy.rules:
            yield LocatedRule(ref.position.source, rule.line, ref.name, rule.number, rule.name, ref.action)


def _reached(result: CaseResult) -> Iterator[tuple[str, int, str]]:
    decision = result.explanation.decision
    if decision.rule is not None:
        yield decision.policy, decision.rule, decision.verdict.value.upper()
    for shadow in decision.shadows:
        yield shadow.policy, shadow.rule, shadow.action

"""A compiled rule, which joins clauses and groups of alternatives, and the search for the first rule that holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from zta_authz.model.documents import Position
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.response_template import ResponseTemplate

NO_RULE: Final = 1 << 62
"""Above every rule's id."""
Alternatives = tuple[tuple["Clause", ...], ...]


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """The policy of a rule. All rules of a policy share one object."""

    name: str
    """`namespace/name`."""
    order: tuple[str, str, str]
    """Namespace, name and kind: policies are tried in this order."""
    action: str
    position: Position
    dry_run: bool = False


def rule_label(number: int | None, name: str) -> str:
    """A rule's number and, if it has one, its name, for messages."""
    return f"{number} `{name}`" if name else f"{number}"


@dataclass(slots=True, eq=False)
class Rule:
    """Holds if every clause holds and every group has an alternative whose clauses all hold.

    A `from` or `to` with one entry becomes clauses, with several a group. `id` is the rule's position in its index:
    the lowest rule that holds decides.
    """

    policy: PolicyRef
    number: int
    line: int
    clauses: tuple[Clause, ...]
    groups: tuple[Alternatives, ...] = ()
    response: ResponseTemplate | None = None
    id: int = -1
    name: str = ""
    """The operator's name for the rule, "" without one."""

    @property
    def label(self) -> str:
        """The rule's number and, if it has one, its name."""
        return rule_label(self.number, self.name)

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the rule matches; `deny` is the result for values that are unknown."""
        for clause in self.clauses:
            if not clause.holds(inputs, deny):
                return False
        for group in self.groups:
            for alternative in group:
                for clause in alternative:
                    if not clause.holds(inputs, deny):
                        break
                else:
                    break
            else:
                return False
        return True

    def matching_clauses(self, inputs: Inputs, deny: bool) -> list[Clause]:
        """The clauses that make a rule match: its own, and those of the first matching alternative of each group."""
        matching = list(self.clauses)
        for group in self.groups:
            matching += next(
                (alternative for alternative in group if all(clause.holds(inputs, deny) for clause in alternative)), ()
            )
        return matching

    def failing_parts(self, inputs: Inputs, deny: bool) -> list[list[Clause]]:
        """The clauses that don't hold, in one list per failing part; for a group, those of its nearest alternative."""
        missing = [[clause] for clause in self.clauses if not clause.holds(inputs, deny)]
        for group in self.groups:
            failed = [[c for c in alternative if not c.holds(inputs, deny)] for alternative in group]
            nearest = min(failed, key=len)
            if nearest:
                missing.append(nearest)
        return missing


class IndexNode(Protocol):
    """Finds the lowest rule that holds among the rules below it, of which `lowest` is the lowest id."""

    @property
    def lowest(self) -> int:
        """The lowest id of its rules."""
        ...

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """The lowest id below `bound` of a rule that holds, else `bound`: it bounds the search in the next node.

        `deny` is the result for values that are unknown.
        """
        ...


class LinearScan:
    """A few rules, tried in order: the node with which every search ends."""

    __slots__ = ("lowest", "rules")

    def __init__(self, rules: list[Rule]) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.id))
        self.lowest = self.rules[0].id

    def first(self, inputs: Inputs, deny: bool, bound: int) -> int:
        """See `IndexNode`."""
        for rule in self.rules:
            if rule.id >= bound:
                break
            if rule.holds(inputs, deny):
                return rule.id
        return bound


class RuleIndex:
    """Rules of one action, in the order in which they are tried, and the `root` of their index (see `index`)."""

    __slots__ = ("_root", "deny", "rules")

    def __init__(self, rules: tuple[Rule, ...], root: IndexNode | None, *, deny: bool) -> None:
        self.rules = rules
        self.deny = deny
        self._root = root

    def first(self, inputs: Inputs) -> Rule | None:
        """The first rule that holds. An unknown value counts as a match only for a DENY."""
        if self._root is None:
            return None
        rule_id = self._root.first(inputs, self.deny, NO_RULE)
        return None if rule_id == NO_RULE else self.rules[rule_id]

"""One compiled rule of one policy: clauses that must all hold, and groups of which one alternative must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.model.documents import Position
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.response_template import ResponseTemplate

Alternatives = tuple[tuple["Clause", ...], ...]


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """What a rule says of the policy it stands in. One object a policy."""

    name: str
    """`namespace/name`."""
    order: tuple[str, str, str]
    """Namespace, name and kind: policies are tried in this order."""
    action: str
    position: Position
    dry_run: bool = False


def shown_rule(number: int | None, name: str) -> str:
    """A rule's number, and its name where it has one, for people."""
    return f"{number} `{name}`" if name else f"{number}"


@dataclass(slots=True, eq=False)
class Rule:
    """Holds where every clause holds and every group has an alternative whose clauses all hold.

    A `from` or `to` with one entry becomes clauses, with several a group. `id` is its place in the order in which
    rules are tried: the lowest that holds decides.
    """

    policy: PolicyRef
    number: int
    line: int
    clauses: tuple[Clause, ...]
    groups: tuple[Alternatives, ...] = ()
    response: ResponseTemplate | None = None
    id: int = -1
    name: str = ""
    """What the operator calls it, "" where it has no name."""

    @property
    def shown(self) -> str:
        """Its number, and its name where it has one."""
        return shown_rule(self.number, self.name)

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the rule matches; `deny` is the side on which undecidable values fall."""
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

    def holding(self, inputs: Inputs, deny: bool) -> list[Clause]:
        """The clauses by which a rule that matches does: all of its own, and of each group the first alternative's."""
        found = list(self.clauses)
        for group in self.groups:
            found += next((each for each in group if all(clause.holds(inputs, deny) for clause in each)), ())
        return found

    def failing(self, inputs: Inputs, deny: bool) -> list[list[Clause]]:
        """What keeps the rule from matching: one list a failing part, holding its nearest alternative's clauses."""
        missing = [[clause] for clause in self.clauses if not clause.holds(inputs, deny)]
        for group in self.groups:
            failed = [[c for c in alternative if not c.holds(inputs, deny)] for alternative in group]
            nearest = min(failed, key=len)
            if nearest:
                missing.append(nearest)
        return missing

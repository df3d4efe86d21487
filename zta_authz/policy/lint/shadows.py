"""Find, for an ALLOW rule, a DENY rule that provably matches every request that the ALLOW rule matches.

DENY rules are indexed by the values of one of their parts. An ALLOW rule is looked up by its own values and compared
only with the rules found, up to a limit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from zta_authz.policy.lint.implication import dimension_of, end_of, implies, members_of, start_of
from zta_authz.policy.rules.matchers import Exact, Prefix, Suffix

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from zta_authz.model.options import Options
    from zta_authz.policy.lint.implication import Member
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import CompiledPolicy

    _Key = tuple[object, str, str]


@dataclass(frozen=True, slots=True, eq=False)
class PlacedRule:
    """A rule and its policy."""

    policy: CompiledPolicy
    rule: Rule

    @property
    def action(self) -> str:
        """The policy's action."""
        return self.policy.ref.action

    @property
    def selector_key(self) -> Hashable:
        """A key that is equal for rules that select the same workloads."""
        selector = self.policy.selector
        return (selector.namespace, frozenset(selector.labels.items()))

    def selects_all_of(self, other: PlacedRule, root: str) -> bool:
        """Whether this rule applies to every workload that `other` applies to; `root` is the root namespace."""
        own, others = self.policy.selector, other.policy.selector
        if own.namespace not in (root, others.namespace):
            return False
        return all(others.labels.get(key) == value for key, value in own.labels.items())

    def __str__(self) -> str:
        ref = self.policy.ref
        return f"rule {self.rule.label} of {ref.action} policy `{ref.name}` ({ref.position.source}:{self.rule.line})"


class DenyRules:
    """An index of DENY rules by their values."""

    def __init__(self, rules: Iterable[PlacedRule], options: Options, limit: int) -> None:
        """Index `rules`; an ALLOW rule is compared with at most `limit` of them."""
        self._strict = options.strict
        self._root = options.root_namespace
        self._limit = limit
        self._filed: dict[_Key, list[PlacedRule]] = {}
        self._lengths: dict[tuple[object, str], set[int]] = {}
        self._rest: list[PlacedRule] = []
        rules_with_parts = [(placed, _parts(placed.rule)) for placed in rules]
        counts = Counter(key for _, parts in rules_with_parts for keys in parts for key in keys)
        for placed, parts in rules_with_parts:
            self._file(placed, min(parts, key=lambda keys: max(counts[key] for key in keys), default=frozenset()))
        # A rule with few clauses is the most likely to match everything.
        self._rest.sort(key=lambda placed: len(placed.rule.clauses) + len(placed.rule.groups))

    def shadow_of(self, allow: PlacedRule) -> PlacedRule | None:
        """A DENY rule that matches whatever `allow` matches, for all its workloads; None if none is found."""
        compared: set[int] = set()
        for deny in islice(chain(self._candidates(allow.rule), self._rest), self._limit):
            if id(deny) in compared or not deny.selects_all_of(allow, self._root):
                continue
            compared.add(id(deny))
            if self._includes(deny.rule, allow.rule):
                return deny
        return None

    def _file(self, placed: PlacedRule, keys: frozenset[_Key]) -> None:
        """Index a rule under `keys`: the values of the part that the fewest rules share."""
        for key in keys:
            self._filed.setdefault(key, []).append(placed)
            self._lengths.setdefault(key[:2], set()).add(len(key[2]))
        if not keys:
            self._rest.append(placed)

    def _candidates(self, rule: Rule) -> Iterator[PlacedRule]:
        """Rules indexed under a value that covers a clause's first value, as each implied rule must."""
        clauses = chain(rule.clauses, (clause for group in rule.groups for clause in group[0]))
        for clause in clauses:
            members = members_of(clause)
            if clause.negated or not members:
                continue
            dimension, first = dimension_of(clause), members[0]
            if isinstance(first, Exact):
                yield from self._filed.get((dimension, "exact", first.value), ())
            start, end = start_of(first), end_of(first)
            for length in self._lengths.get((dimension, "prefix"), ()):
                yield from self._filed.get((dimension, "prefix", start[:length]), ())
            for length in self._lengths.get((dimension, "suffix"), ()):
                yield from self._filed.get((dimension, "suffix", end[-length:]), ())

    def _includes(self, deny: Rule, allow: Rule) -> bool:
        """Whether each part of `deny` is implied by a part of `allow`."""
        groups: list[tuple[tuple[Clause, ...], ...]] = [(allow.clauses,)]
        groups += [tuple((*alternative, *allow.clauses) for alternative in group) for group in allow.groups]
        parts: list[tuple[tuple[Clause, ...], ...]] = [((clause,),) for clause in deny.clauses]
        return all(any(self._follows(alternatives, part) for alternatives in groups) for part in (*parts, *deny.groups))

    def _follows(
        self, allow_alternatives: tuple[tuple[Clause, ...], ...], deny_alternatives: tuple[tuple[Clause, ...], ...]
    ) -> bool:
        """Whether each ALLOW alternative implies every clause of some DENY alternative."""
        return all(
            any(
                all(any(implies(own, clause, strict=self._strict) for own in allow_clauses) for clause in alternative)
                for alternative in deny_alternatives
            )
            for allow_clauses in allow_alternatives
        )


def _parts(rule: Rule) -> list[frozenset[_Key]]:
    """The keys of each part of the rule that lookups can find; a rule that implies the part has one of them."""
    parts = [_clause_keys(clause) for clause in rule.clauses]
    for group in rule.groups:
        alternatives = [
            next((keys for clause in alternative if (keys := _clause_keys(clause))), None) for alternative in group
        ]
        present = [keys for keys in alternatives if keys]
        parts.append(frozenset().union(*present) if len(present) == len(group) else frozenset())
    return [keys for keys in parts if keys]


def _clause_keys(clause: Clause) -> frozenset[_Key]:
    """A key for each value of the clause; empty if a value has no key."""
    dimension = dimension_of(clause)
    keys = [] if clause.negated else [_key(dimension, member) for member in members_of(clause)]
    complete = frozenset(key for key in keys if key is not None)
    return complete if None not in keys else frozenset()


def _key(dimension: object, member: Member) -> _Key | None:
    match member:
        case Exact():
            return (dimension, "exact", member.value)
        case Prefix():
            return (dimension, "prefix", member.value)
        case Suffix() if member.value:
            return (dimension, "suffix", member.value)
    return None

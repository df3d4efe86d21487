"""Finding, for an ALLOW rule, a DENY rule that provably matches whatever it matches.

DENY rules are filed under the values of one of their parts, an ALLOW rule looks itself up by its own values, and only
what is found is compared, at most a given number of rules.
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
class Placed:
    """A rule and the policy it stands in."""

    policy: CompiledPolicy
    rule: Rule

    @property
    def action(self) -> str:
        """The policy's action."""
        return self.policy.ref.action

    @property
    def selector_key(self) -> Hashable:
        """Equal for rules that select the same workloads."""
        selector = self.policy.selector
        return (selector.namespace, frozenset(selector.labels.items()))

    def selects_all_of(self, other: Placed, root: str) -> bool:
        """Whether this rule is for every workload that `other` is for; `root` is the root namespace."""
        mine, theirs = self.policy.selector, other.policy.selector
        if mine.namespace not in (root, theirs.namespace):
            return False
        return all(theirs.labels.get(key) == value for key, value in mine.labels.items())

    def __str__(self) -> str:
        ref = self.policy.ref
        return f"rule {self.rule.label} of {ref.action} policy `{ref.name}` ({ref.position.source}:{self.rule.line})"


class DenyRules:
    """DENY rules by what they ask for."""

    def __init__(self, rules: Iterable[Placed], options: Options, limit: int) -> None:
        """Take `rules`; `limit` is how many of them one ALLOW rule is compared with."""
        self._strict = options.strict
        self._root = options.root_namespace
        self._limit = limit
        self._filed: dict[_Key, list[Placed]] = {}
        self._lengths: dict[tuple[object, str], set[int]] = {}
        self._rest: list[Placed] = []
        asked = [(each, _parts(each.rule)) for each in rules]
        counts = Counter(key for _, parts in asked for keys in parts for key in keys)
        for each, parts in asked:
            self._file(each, min(parts, key=lambda keys: max(counts[key] for key in keys), default=frozenset()))
        # A rule that asks for little is the likeliest to match everything.
        self._rest.sort(key=lambda each: len(each.rule.clauses) + len(each.rule.groups))

    def shadow_of(self, allow: Placed) -> Placed | None:
        """A DENY rule that matches whatever `allow` matches, for every workload of it; None where none is found."""
        compared: set[int] = set()
        for each in islice(chain(self._candidates(allow.rule), self._rest), self._limit):
            if id(each) in compared or not each.selects_all_of(allow, self._root):
                continue
            compared.add(id(each))
            if self._includes(each.rule, allow.rule):
                return each
        return None

    def _file(self, each: Placed, keys: frozenset[_Key]) -> None:
        """File one rule under the values of its part that the fewest rules share."""
        for key in keys:
            self._filed.setdefault(key, []).append(each)
            self._lengths.setdefault(key[:2], set()).add(len(key[2]))
        if not keys:
            self._rest.append(each)

    def _candidates(self, rule: Rule) -> Iterator[Placed]:
        """Rules filed under what covers the first value of a clause: to be implied, they must cover all of them."""
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
        """Whether each part of `deny` follows from a part of `allow`."""
        ways: list[tuple[tuple[Clause, ...], ...]] = [(allow.clauses,)]
        ways += [tuple((*alternative, *allow.clauses) for alternative in group) for group in allow.groups]
        parts: list[tuple[tuple[Clause, ...], ...]] = [((clause,),) for clause in deny.clauses]
        return all(any(self._follows(way, part) for way in ways) for part in (*parts, *deny.groups))

    def _follows(self, way: tuple[tuple[Clause, ...], ...], part: tuple[tuple[Clause, ...], ...]) -> bool:
        """Whether each alternative of `way` implies every clause of some alternative of `part`."""
        return all(
            any(
                all(any(implies(mine, theirs, strict=self._strict) for mine in given) for theirs in wanted)
                for wanted in part
            )
            for given in way
        )


def _parts(rule: Rule) -> list[frozenset[_Key]]:
    """The keys of each part of the rule that can be looked up: one of them leads to whatever implies the part."""
    found = [_clause_keys(clause) for clause in rule.clauses]
    for group in rule.groups:
        alternatives = [next((keys for clause in each if (keys := _clause_keys(clause))), None) for each in group]
        known = [keys for keys in alternatives if keys]
        found.append(frozenset().union(*known) if len(known) == len(group) else frozenset())
    return [keys for keys in found if keys]


def _clause_keys(clause: Clause) -> frozenset[_Key]:
    """A key for each value of the clause; none where one value has none."""
    dimension = dimension_of(clause)
    keys = [] if clause.negated else [_key(dimension, member) for member in members_of(clause)]
    found = frozenset(key for key in keys if key is not None)
    return found if None not in keys else frozenset()


def _key(dimension: object, member: Member) -> _Key | None:
    match member:
        case Exact():
            return (dimension, "exact", member.value)
        case Prefix():
            return (dimension, "prefix", member.value)
        case Suffix() if member.value:
            return (dimension, "suffix", member.value)
    return None

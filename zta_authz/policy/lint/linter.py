"""Warnings about rules that compile but can't mean what was meant. Only what can be proved is reported.

never_matches    nothing satisfies the rule: clauses that contradict each other, values that no request has
never_matches_as_written   a value matches nothing, or only its own odd characters: what was meant is said
always_unknown   a part of a condition can't be told for any request: an ALLOW does not match, a DENY does
shadowed         a DENY rule matches whatever this ALLOW rule matches, so the ALLOW rule never decides
duplicate        another rule of the same action already matches the same requests for the same workloads
unauthenticated  an ALLOW rule asks for no identity at all (information), or only excludes some (warning)
method_case      a rule names a method in lower case, which no honest client sends
method_override  a DENY rule on methods that a header may get round, if the application honours one (information)

Cost grows with the number of rules, not with its square: rules are hashed by what they ask for, and each is compared
with at most `MAX_COMPARED` others. What lies beyond that bound is not found, never wrongly reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, combinations
from typing import TYPE_CHECKING, Final

from zta_authz.model.percent import utf8_bytes
from zta_authz.policy.lint.anonymous import asks_for_identity, excludes_identities
from zta_authz.policy.lint.conditions import ConditionDoubt, condition_doubts
from zta_authz.policy.lint.implication import contradict, key_of
from zta_authz.policy.lint.methods import OVERRIDE_HEADERS, lower_case_methods, overridable
from zta_authz.policy.lint.shadows import DenyRules, Placed
from zta_authz.policy.lint.unmatchable import Reach, doubts
from zta_authz.policy.rules.clauses import TextClause, shortened
from zta_authz.policy.rules.dimensions import PATH
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from zta_authz.model.options import Options
    from zta_authz.policy.lint.unmatchable import CredentialSource, Doubt
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import RuleTable

MAX_COMPARED: Final = 32
"""Rules that one rule is compared with, and clauses of one rule that are compared with each other."""


class Kind(StrEnum):
    """What a finding is about. Closed list; values are stable."""

    NEVER_MATCHES = "never_matches"
    NEVER_MATCHES_AS_WRITTEN = "never_matches_as_written"
    ALWAYS_UNKNOWN = "always_unknown"
    SHADOWED = "shadowed"
    DUPLICATE = "duplicate"
    UNAUTHENTICATED = "unauthenticated"
    METHOD_CASE = "method_case"
    METHOD_OVERRIDE = "method_override"


class Level(StrEnum):
    """`warning`: most likely a mistake. `info`: may well be meant, but should be known."""

    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing about one rule. `policy` is `namespace/name`, `rule` its number from 0, `line` counts from 1."""

    source: str
    line: int
    policy: str
    rule: int
    kind: Kind
    level: Level
    message: str
    hint: str
    rule_name: str = ""


def lint(
    table: RuleTable,
    *,
    now: float | None = None,
    refused_path: Callable[[str], str] = lambda _: "",
    refused_host: Callable[[str], bool] = lambda _: False,
    sources: Iterable[CredentialSource] | None = None,
) -> list[Finding]:
    """Everything provable about the rules of `table`, in order of place.

    `now` (seconds since the epoch) finds rules whose time is over. `refused_path` says why requests for a path are
    refused before any rule is asked, "" where they are not; `refused_host` whether those for an authority are.
    `sources` are all documents that let callers prove something, None where that is not known.
    """
    sources = None if sources is None else tuple(sources)
    reaches = Reaches(table.options, refused_path, refused_host, sources)
    judge = _Judge(table.options.strict, now, reaches)
    placed = [Placed(policy, rule) for policy in table.policies for rule in policy.rules]
    dead = {id(each.rule): why for each in placed if (why := judge.never(each)) is not None}
    findings = [
        _finding(each, Kind.NEVER_MATCHES, f"it never matches: {dead[id(each.rule)][0]}", dead[id(each.rule)][1])
        for each in placed
        if id(each.rule) in dead
    ]
    living = [each for each in placed if id(each.rule) not in dead]
    findings += [
        finding
        for each in placed
        for finding in _doubtful(each, judge, dead[id(each.rule)][0] if id(each.rule) in dead else "")
    ]
    findings += _duplicates(living, table.options.root_namespace)
    findings += _shadowed(living, table)
    findings += _unauthenticated(_without_required_token(living, table, sources or ()), table.options.root_namespace)
    findings += _on_methods(placed, table.options.strict)
    return sorted(findings)


def _without_required_token(
    living: list[Placed], table: RuleTable, sources: Iterable[CredentialSource]
) -> list[Placed]:
    """The rules that requests reach without a token. Istio's reading lets preflights past `presence: REQUIRED`."""
    root = table.options.root_namespace
    requiring = [each for each in sources if each.requires_token] if table.options.strict else []
    return [each for each in living if not any(one.covers(each.policy.selector, root) for one in requiring)]


def _on_methods(placed: list[Placed], strict: bool) -> list[Finding]:
    refused = "; requests with a method in lower case are refused before any rule is asked" if strict else ""
    findings = [
        _finding(
            each,
            Kind.METHOD_CASE,
            f"methods are compared as they are written{refused}",
            f"write `{meant}` for `{value}`",
        )
        for each, value, meant in lower_case_methods(placed)
    ]
    open_to_override = overridable(placed)
    if open_to_override is not None:
        message = f"an application that honours `{OVERRIDE_HEADERS[0]}` runs another method than the one this rule sees"
        hint = "if yours may, let the proxy remove such headers, or deny requests that have one"
        findings.append(_finding(open_to_override, Kind.METHOD_OVERRIDE, message, hint, Level.INFO))
    return findings


class Reaches:
    """What can reach the rules of each policy, made once for each selector."""

    def __init__(
        self,
        options: Options,
        refused_path: Callable[[str], str],
        refused_host: Callable[[str], bool],
        sources: Iterable[CredentialSource] | None,
    ) -> None:
        self._root = options.root_namespace
        self._all = Reach(options.strict, refused_path, refused_host, None if sources is None else tuple(sources))
        self._made: dict[Hashable, Reach] = {}

    def of(self, each: Placed) -> Reach:
        """What can reach this rule."""
        key = each.selector_key
        found = self._made.get(key)
        if found is None:
            every = self._all.sources
            some = None if every is None else tuple(s for s in every if s.concerns(each.policy.selector, self._root))
            found = self._made[key] = replace(self._all, sources=some)
        return found


def _doubtful(each: Placed, judge: _Judge, known: str) -> Iterator[Finding]:
    """A finding for each value, and for each clause of a condition, that is not as it was meant.

    `known` is why the rule never matches, "" where it may: that is not said again.
    """
    for doubt in judge.doubts(each):
        if doubt.reason in known:
            continue
        kind = Kind.NEVER_MATCHES_AS_WRITTEN
        says = "never matches as written"
        if not doubt.certain:
            says += ", except in a request that has these very characters"
        elif isinstance(doubt, ConditionDoubt):
            says = {None: "is Unknown", True: "is true", False: "is false"}[doubt.comes_to] + " for every request"
            kind = Kind.ALWAYS_UNKNOWN if doubt.comes_to is None else kind
        yield _finding(each, kind, f"`{doubt.label}`: `{shortened(doubt.value)}` {says}: {doubt.reason}", doubt.hint)


def _finding(at: Placed, kind: Kind, message: str, hint: str, level: Level = Level.WARNING) -> Finding:
    ref = at.policy.ref
    return Finding(
        ref.position.source, at.rule.line, ref.name, at.rule.number, kind, level, message, hint, at.rule.name
    )


class _Judge:
    """Finds what keeps a rule, or a value of it, from ever matching."""

    def __init__(self, strict: bool, now: float | None, reaches: Reaches) -> None:
        self._strict = strict
        self._now = now
        self._reaches = reaches

    def never(self, each: Placed) -> tuple[str, str] | None:
        """Why nothing satisfies the rule, and what to do; None where that can't be proved."""
        rule, deny, reach = each.rule, each.action == "DENY", self._reaches.of(each)
        why = self._conjunction(rule.clauses, deny, reach)
        for group in rule.groups:
            if why is not None:
                break
            dead = [self._conjunction((*alternative, *rule.clauses), deny, reach) for alternative in group]
            why = dead[0] if None not in dead else None
        return why

    def doubts(self, each: Placed) -> Iterator[Doubt]:
        """Each doubtful value of the rule, and each clause of a condition that always comes out the same."""
        deny, reach = each.action == "DENY", self._reaches.of(each)
        for clause in chain(each.rule.clauses, *chain.from_iterable(each.rule.groups)):
            if isinstance(clause, ConditionClause):
                yield from condition_doubts(clause.condition.text, reach)[0]
            else:
                yield from (doubt for doubt in doubts(clause, reach, deny=deny) if doubt is not None)

    def _conjunction(self, clauses: tuple[Clause, ...], deny: bool, reach: Reach) -> tuple[str, str] | None:
        for clause in clauses:
            why = None if clause.negated else self._impossible(clause, deny, reach)
            if why is not None:
                return f"`{clause.label}`: {why[0]}", why[1] if "remove" in why[1] else f"{why[1]}, or remove the rule"
        for one, other in combinations(clauses[:MAX_COMPARED], 2):
            if contradict(one, other, strict=self._strict, deny=deny) and not (deny and _may_come_encoded(one, reach)):
                return f"`{one.label}` and `{other.label}` contradict each other", "correct or remove the rule"
        return None

    def _impossible(self, clause: Clause, deny: bool, reach: Reach) -> tuple[str, str] | None:
        """Why no request satisfies `clause`: the first value's reason, where every value has one."""
        if isinstance(clause, TimeClause):
            over = self._now is not None and clause.times.end <= self._now
            return ("its time is over", "move `expiresAt`") if over else None
        if isinstance(clause, ConditionClause):
            found, possible = condition_doubts(clause.condition.text, reach)
            holds = True in possible or (deny and None in possible)
            return None if holds or not found else (f"`{found[0].value}`: {found[0].reason}", found[0].hint)
        values = doubts(clause, reach, deny=deny)
        if not values or not all(doubt is not None and doubt.certain for doubt in values):
            return None
        first = next(doubt for doubt in values if doubt is not None)
        return f"`{shortened(first.value)}`: {first.reason}", first.hint


def _may_come_encoded(clause: Clause, reach: Reach) -> bool:
    """Whether a path that the clause means may come in another spelling, which a DENY's `notPaths` misses."""
    if not (reach.strict and isinstance(clause, TextClause) and clause.dimension is PATH):
        return False
    characters = set("".join(matcher.text for matcher in clause.matchers)).difference("/*{}")
    return any(not reach.refused_path("/" + "".join(f"%{b:02X}" for b in utf8_bytes(each))) for each in characters)


def _rule_key(each: Placed) -> Hashable:
    """Equal for rules of one action that match the same requests."""
    groups = frozenset(
        frozenset(frozenset(key_of(clause) for clause in alternative) for alternative in group)
        for group in each.rule.groups
    )
    return (each.action, each.policy.ref.dry_run, frozenset(key_of(clause) for clause in each.rule.clauses), groups)


def _duplicates(placed: Iterable[Placed], root: str) -> list[Finding]:
    """Rules that match what another matches. A table's policies are in the order in which they are tried."""
    alike: dict[Hashable, list[Placed]] = {}
    for each in placed:
        alike.setdefault(_rule_key(each), []).append(each)
    findings = []
    for group in alike.values():
        first: dict[Hashable, Placed] = {}  # of each selector, the rule that is tried first
        for each in group:
            same = first.setdefault(each.selector_key, each)
            twin = same if same is not each else None
            if twin is None and len(first) <= MAX_COMPARED:
                twin = next((o for o in first.values() if o is not each and o.selects_all_of(each, root)), None)
            if twin is not None:
                message = f"it matches the same requests as {twin}, which is tried before it"
                findings.append(_finding(each, Kind.DUPLICATE, message, "remove one of the two"))
    return findings


def _shadowed(placed: list[Placed], table: RuleTable) -> list[Finding]:
    live = [each for each in placed if not each.policy.ref.dry_run]
    denies = DenyRules([each for each in live if each.action == "DENY"], table.options, MAX_COMPARED)
    findings = []
    for each in live:
        shadow = denies.shadow_of(each) if each.action == "ALLOW" else None
        if shadow is not None:
            message = f"it never decides: {shadow} denies whatever it matches"
            findings.append(_finding(each, Kind.SHADOWED, message, "narrow the DENY rule or remove this one"))
    return findings


def _unauthenticated(placed: list[Placed], root: str) -> list[Finding]:
    """ALLOW rules that a caller without any identity can satisfy, where no DENY rule refuses all such callers."""
    live = [each for each in placed if not each.policy.ref.dry_run]
    guards: dict[Hashable, Placed] = {}
    for each in live:
        if each.action == "DENY" and not each.rule.groups and all(excludes_identities(c) for c in each.rule.clauses):
            guards.setdefault(each.selector_key, each)
    guarding = list(guards.values())[:MAX_COMPARED]
    findings = []
    for each in live:
        if each.action != "ALLOW" or any(guard.selects_all_of(each, root) for guard in guarding):
            continue
        level = _asks_nobody(each.rule)
        if level is Level.INFO:
            hint = "if that is not meant, add `principals` or `requestPrincipals`"
            findings.append(_finding(each, Kind.UNAUTHENTICATED, "it asks for no identity", hint, level))
        elif level is Level.WARNING:
            message = "it only excludes identities, which a caller without any identity satisfies"
            hint = 'add `principals: ["*"]` or `requestPrincipals: ["*"]`'
            findings.append(_finding(each, Kind.UNAUTHENTICATED, message, hint, level))
    return findings


def _asks_nobody(rule: Rule) -> Level | None:
    """How the rule lets callers without identity in; None where it does not, or that can't be told."""
    ways: list[tuple[Clause, ...]] = [rule.clauses]
    if any(asks_for_identity(clause) for clause in rule.clauses):
        return None
    for group in rule.groups:
        open_ones = [each for each in group if not any(asks_for_identity(clause) for clause in each)]
        if not open_ones:
            return None
        ways += open_ones
    excluding = [clause for way in ways for clause in way if excludes_identities(clause)]
    if any(clause.label.startswith("not") for clause in excluding):
        return None  # the compiler has already warned of `not…` fields
    return Level.WARNING if excluding else Level.INFO

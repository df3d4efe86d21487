"""Warnings about rules that compile but can't mean what was meant. Only what can be proved is reported.

never_matches    nothing satisfies the rule: clauses that contradict each other, values that no request has
shadowed         a DENY rule matches whatever this ALLOW rule matches, so the ALLOW rule never decides
duplicate        another rule of the same action already matches the same requests for the same workloads
unauthenticated  an ALLOW rule asks for no identity at all (information), or only excludes some (warning)
method_case      a rule names a method in lower case, which no honest client sends
method_override  a DENY rule on methods that a header may get round, if the application honours one (information)

Cost grows with the number of rules, not with its square: rules are hashed by what they ask for, and each is compared
with at most `MAX_COMPARED` others. What lies beyond that bound is not found, never wrongly reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import TYPE_CHECKING, Final

from zta_authz.model.spiffe import SCHEME, SpiffeId
from zta_authz.policy.anonymous import asks_for_identity, excludes_identities
from zta_authz.policy.clauses import TextClause
from zta_authz.policy.dimensions import PATH, PEER, SNI
from zta_authz.policy.extra_clauses import TimeClause
from zta_authz.policy.implication import contradict, key_of
from zta_authz.policy.matchers import Exact, Prefix, Suffix, ascii_lower
from zta_authz.policy.method_lint import OVERRIDE_HEADERS, lower_case_methods, overridable
from zta_authz.policy.shadows import DenyRules, Placed

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from zta_authz.policy.clauses import Clause
    from zta_authz.policy.rule import Rule
    from zta_authz.policy.table import RuleTable

MAX_COMPARED: Final = 32
"""Rules that one rule is compared with, and clauses of one rule that are compared with each other."""


class Kind(StrEnum):
    """What a finding is about. Closed list; values are stable."""

    NEVER_MATCHES = "never_matches"
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


def lint(
    table: RuleTable, *, now: float | None = None, refused_path: Callable[[str], str] = lambda _: ""
) -> list[Finding]:
    """Everything provable about the rules of `table`, in order of place.

    `now` (seconds since the epoch) finds rules whose time is over. `refused_path` says why requests for a path are
    refused before any rule is asked, "" where they are not.
    """
    judge = _Judge(table.options.strict, now, refused_path)
    placed = [Placed(policy, rule) for policy in table.policies for rule in policy.rules]
    dead = {id(each.rule): why for each in placed if (why := judge.never(each.rule, deny=each.action == "DENY"))}
    findings = [
        _finding(each, Kind.NEVER_MATCHES, f"it never matches: {dead[id(each.rule)]}", "mend or remove the rule")
        for each in placed
        if id(each.rule) in dead
    ]
    living = [each for each in placed if id(each.rule) not in dead]
    findings += _duplicates(living, table.options.root_namespace)
    findings += _shadowed(living, table)
    findings += _unauthenticated(living, table.options.root_namespace)
    findings += _on_methods(placed, table.options.strict)
    return sorted(findings)


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


def _finding(at: Placed, kind: Kind, message: str, hint: str, level: Level = Level.WARNING) -> Finding:
    ref = at.policy.ref
    return Finding(ref.position.source, at.rule.line, ref.name, at.rule.number, kind, level, message, hint)


class _Judge:
    """Finds what keeps a rule from ever matching."""

    def __init__(self, strict: bool, now: float | None, refused_path: Callable[[str], str]) -> None:
        self._strict = strict
        self._now = now
        self._refused_path = refused_path

    def never(self, rule: Rule, *, deny: bool) -> str:
        """Why nothing satisfies the rule, "" where that can't be proved."""
        why = self._conjunction(rule.clauses, deny)
        for group in rule.groups:
            if why:
                break
            dead = [self._conjunction((*alternative, *rule.clauses), deny) for alternative in group]
            why = dead[0] if all(dead) else ""
        return why

    def _conjunction(self, clauses: tuple[Clause, ...], deny: bool) -> str:
        for clause in clauses:
            why = "" if clause.negated else self._impossible(clause)
            if why:
                return f"`{clause.label}`: {why}"
        for one, other in combinations(clauses[:MAX_COMPARED], 2):
            if contradict(one, other, strict=self._strict, deny=deny):
                return f"`{one.label}` and `{other.label}` contradict each other"
        return ""

    def _impossible(self, clause: Clause) -> str:
        """Why no request satisfies `clause`: the first value's reason, where every value has one."""
        if isinstance(clause, TimeClause):
            return "its time is over" if self._now is not None and clause.times.end <= self._now else ""
        if not isinstance(clause, TextClause):
            return ""
        reasons = []
        for matcher in clause.matchers:
            why = self._impossible_text(clause.dimension, matcher)
            if not why:
                return ""
            reasons.append(why)
        return reasons[0]

    def _impossible_text(self, dimension: object, matcher: object) -> str:
        if not isinstance(matcher, (Exact, Prefix, Suffix)):
            return ""
        value = matcher.value
        if dimension is PATH and ("?" in value or "#" in value):
            return f"paths are compared without query and fragment, `{matcher.text}` has one"
        if dimension is PATH and isinstance(matcher, Exact):
            refused = self._refused_path(value)
            return f"requests for `{value}` are refused before any rule is asked: {refused}" if refused else ""
        if dimension is SNI and ascii_lower(value) != value:
            return f"server names are compared in lower case, `{matcher.text}` is not"
        if dimension is PEER and self._strict and isinstance(matcher, Exact):
            return _no_spiffe_id(value)
        return ""


def _no_spiffe_id(value: str) -> str:
    """Why a peer can't have the name `value` in strict reading."""
    try:
        SpiffeId.parse(value)
    except ValueError:
        shown = value.removeprefix(SCHEME)
        hint = " (a principal is written without `spiffe://`)" if shown.startswith(SCHEME) else ""
        return f"`{shown}` is no valid SPIFFE ID{hint}"
    return ""


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

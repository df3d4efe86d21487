"""Find rules that compile but are probably mistakes. Only proved findings are reported.

never_matches    no request matches the rule: its clauses contradict each other, or no request has its values
never_matches_as_written   a value matches nothing, or only its own odd characters; the hint suggests another value
always_unknown   a part of a condition is Unknown for every request: an ALLOW does not match, a DENY does
shadowed         a DENY rule matches every request that this ALLOW rule matches, so the ALLOW rule never decides
duplicate        another rule of the same action already matches the same requests for the same workloads
unauthenticated  an ALLOW rule requires no identity (information), or only excludes some identities (warning)
method_case      a rule names a method in lower case, which no honest client sends
method_override  a DENY rule on methods can be bypassed with a header that some applications honour (information)

The cost is linear in the number of rules: rules are hashed by their clauses, and each is compared with at most
`MAX_COMPARED` others. This bound can hide findings, but never causes wrong ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, combinations
from typing import TYPE_CHECKING, Final

from zta_authz.model.percent import utf8_bytes
from zta_authz.policy.lint.anonymous import asks_for_identity, excludes_identities
from zta_authz.policy.lint.conditions import SuspiciousClause, suspicious_clauses
from zta_authz.policy.lint.fact_sources import absence_of
from zta_authz.policy.lint.implication import contradict, key_of
from zta_authz.policy.lint.methods import OVERRIDE_HEADERS, lower_case_methods, overridable
from zta_authz.policy.lint.shadows import DenyRules, PlacedRule
from zta_authz.policy.lint.suspicious_facts import suspicious_facts
from zta_authz.policy.lint.unmatchable import Reachability, suspicious_values
from zta_authz.policy.rules.clauses import TextClause, shortened
from zta_authz.policy.rules.dimensions import PATH
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from zta_authz.policy.lint.fact_sources import Absence, FactSources
    from zta_authz.policy.lint.unmatchable import CredentialSource, SuspiciousValue
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import RuleTable

MAX_COMPARED: Final = 32
"""The number of rules that a rule is compared with, and of clauses of a rule compared with each other."""


class Kind(StrEnum):
    """The kind of a finding. Closed list; values are stable."""

    NEVER_MATCHES = "never_matches"
    NEVER_MATCHES_AS_WRITTEN = "never_matches_as_written"
    ALWAYS_UNKNOWN = "always_unknown"
    SHADOWED = "shadowed"
    DUPLICATE = "duplicate"
    UNAUTHENTICATED = "unauthenticated"
    METHOD_CASE = "method_case"
    METHOD_OVERRIDE = "method_override"


class Level(StrEnum):
    """`warning`: most likely a mistake. `info`: may be intended, but worth knowing."""

    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A finding about one rule. `policy` is `namespace/name`, `rule` its number from 0, `line` counts from 1."""

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
    facts: FactSources | None = None,
) -> list[Finding]:
    """All findings about the rules of `table`, ordered by position.

    Args:
        table: the compiled policies.
        now: seconds since the epoch, to find expired rules; None skips that check.
        refused_path: why requests for a path are refused before any rule is evaluated, "" if they are not.
        refused_host: whether requests for an authority are refused before any rule is evaluated.
        sources: the documents by which callers can prove an identity, None if unknown.
        facts: what gives facts, None if unknown.
    """
    sources = None if sources is None else tuple(sources)
    everything = Reachability(table.options.strict, refused_path, refused_host, sources, facts)
    reachability = ReachabilityByPolicy(everything, table.options.root_namespace)
    checker = _RuleChecker(table.options.strict, now, reachability)
    rules = [PlacedRule(policy, rule) for policy in table.policies for rule in policy.rules]
    dead = {id(placed.rule): reason for placed in rules if (reason := checker.never(placed)) is not None}
    findings = [
        _finding(placed, Kind.NEVER_MATCHES, f"it never matches: {dead[id(placed.rule)][0]}", dead[id(placed.rule)][1])
        for placed in rules
        if id(placed.rule) in dead
    ]
    live = [placed for placed in rules if id(placed.rule) not in dead]
    findings += [
        finding
        for placed in rules
        for finding in _suspicious(placed, checker, dead[id(placed.rule)][0] if id(placed.rule) in dead else "")
    ]
    findings += _duplicates(live, table.options.root_namespace)
    findings += _shadowed(live, table)
    findings += _unauthenticated(_without_required_token(live, table, sources or ()), table.options.root_namespace)
    findings += _on_methods(rules, table.options.strict)
    return sorted(findings)


def _without_required_token(
    rules: list[PlacedRule], table: RuleTable, sources: Iterable[CredentialSource]
) -> list[PlacedRule]:
    """The rules that requests can reach without a token. In Istio, preflights pass `presence: REQUIRED`."""
    root = table.options.root_namespace
    requiring = [source for source in sources if source.requires_token] if table.options.strict else []
    return [placed for placed in rules if not any(source.covers(placed.policy.selector, root) for source in requiring)]


def _on_methods(rules: list[PlacedRule], strict: bool) -> list[Finding]:
    refused = "; requests with a method in lower case are refused before any rule is evaluated" if strict else ""
    findings = [
        _finding(
            placed,
            Kind.METHOD_CASE,
            f"methods are case-sensitive{refused}",
            f"write `{meant}` for `{value}`",
        )
        for placed, value, meant in lower_case_methods(rules)
    ]
    open_to_override = overridable(rules)
    if open_to_override is not None:
        message = f"an application that honours `{OVERRIDE_HEADERS[0]}` runs another method than this rule compares"
        hint = "if yours does, let the proxy remove such headers, or deny requests that have one"
        findings.append(_finding(open_to_override, Kind.METHOD_OVERRIDE, message, hint, Level.INFO))
    return findings


class ReachabilityByPolicy:
    """The `Reachability` of each policy's rules, made once per selector."""

    def __init__(self, everything: Reachability, root: str) -> None:
        self._root = root
        self._all = everything
        self._by_selector: dict[Hashable, Reachability] = {}

    def of(self, placed: PlacedRule) -> Reachability:
        """The reachability of a rule."""
        key = placed.selector_key
        reachability = self._by_selector.get(key)
        if reachability is None:
            sources = self._all.sources
            if sources is not None:
                sources = tuple(source for source in sources if source.concerns(placed.policy.selector, self._root))
            facts = self._all.facts
            facts = None if facts is None else facts.concerning(placed.policy.selector, self._root)
            reachability = self._by_selector[key] = replace(self._all, sources=sources, facts=facts)
        return reachability


def _suspicious(placed: PlacedRule, checker: _RuleChecker, reported: str) -> Iterator[Finding]:
    """A finding for each suspicious value and each suspicious clause of a condition.

    `reported` is the reason already reported why the rule never matches, "" if it can match.
    """
    for value in checker.suspicious_values(placed):
        if value.reason in reported:
            continue
        kind = Kind.NEVER_MATCHES_AS_WRITTEN
        verdict = "never matches as written"
        if not value.certain:
            verdict += ", except in a request that has these very characters"
        elif isinstance(value, SuspiciousClause):
            verdict = {None: "is Unknown", True: "is true", False: "is false"}[value.result] + " for every request"
            kind = Kind.ALWAYS_UNKNOWN if value.result is None else kind
        message = f"`{value.label}`: `{shortened(value.value)}` {verdict}: {value.reason}"
        yield _finding(placed, kind, message, value.hint)
    for label, absence in checker.absences(placed):
        if absence.reason not in reported:
            effect = "it may match every request" if placed.action == "DENY" else "it matches no request"
            defaults = "" if absence.certain else " with the default settings"
            message = f"`{label}` is unknown for every request{defaults}, so that {effect}: {absence.reason}"
            level = Level.WARNING if absence.certain else Level.INFO
            yield _finding(placed, Kind.ALWAYS_UNKNOWN, message, absence.hint, level)


def _finding(placed: PlacedRule, kind: Kind, message: str, hint: str, level: Level = Level.WARNING) -> Finding:
    ref = placed.policy.ref
    return Finding(
        ref.position.source,
        placed.rule.line,
        ref.name,
        placed.rule.number,
        kind,
        level,
        message,
        hint,
        placed.rule.name,
    )


class _RuleChecker:
    """Finds the reasons why a rule, or one of its values, never matches."""

    def __init__(self, strict: bool, now: float | None, reachability: ReachabilityByPolicy) -> None:
        self._strict = strict
        self._now = now
        self._reachability = reachability

    def never(self, placed: PlacedRule) -> tuple[str, str] | None:
        """The reason why no request matches the rule, and a hint; None if there is no proof."""
        rule, deny, reachability = placed.rule, placed.action == "DENY", self._reachability.of(placed)
        reason = self._conjunction(rule.clauses, deny, reachability)
        for group in rule.groups:
            if reason is not None:
                break
            dead = [self._conjunction((*alternative, *rule.clauses), deny, reachability) for alternative in group]
            reason = dead[0] if None not in dead else None
        return reason

    def suspicious_values(self, placed: PlacedRule) -> Iterator[SuspiciousValue]:
        """Each suspicious value of the rule, and each clause of a condition whose value never changes."""
        deny, reachability = placed.action == "DENY", self._reachability.of(placed)
        for clause in chain(placed.rule.clauses, *chain.from_iterable(placed.rule.groups)):
            if isinstance(clause, ConditionClause):
                yield from suspicious_clauses(clause.condition.text, reachability)[0]
            else:
                yield from (value for value in _values(clause, reachability, deny=deny) if value is not None)

    def absences(self, placed: PlacedRule) -> Iterator[tuple[str, Absence]]:
        """Each clause of the rule on facts that nothing gives: its label, and why."""
        facts = self._reachability.of(placed).facts
        if facts is None:
            return
        for clause in chain(placed.rule.clauses, *chain.from_iterable(placed.rule.groups)):
            absence = absence_of(clause, facts)
            if absence is not None:
                yield clause.label, absence

    def _conjunction(
        self, clauses: tuple[Clause, ...], deny: bool, reachability: Reachability
    ) -> tuple[str, str] | None:
        for clause in clauses:
            absence = None if deny or reachability.facts is None else absence_of(clause, reachability.facts)
            if absence is not None and absence.certain:
                return f"`{clause.label}`: {absence.reason}", f"{absence.hint}, or remove the rule"
            reason = None if clause.negated else self._impossible(clause, deny, reachability)
            if reason is not None:
                why, hint = reason
                return f"`{clause.label}`: {why}", hint if "remove" in hint else f"{hint}, or remove the rule"
        for one, other in combinations(clauses[:MAX_COMPARED], 2):
            if contradict(one, other, strict=self._strict, deny=deny) and not (
                deny and _may_come_encoded(one, reachability)
            ):
                return f"`{one.label}` and `{other.label}` contradict each other", "correct or remove the rule"
        return None

    def _impossible(self, clause: Clause, deny: bool, reachability: Reachability) -> tuple[str, str] | None:
        """The reason why no request satisfies `clause`: that of the first value, if every value has one."""
        if isinstance(clause, TimeClause):
            expired = self._now is not None and clause.times.end <= self._now
            return ("it has expired", "change `expiresAt`") if expired else None
        if isinstance(clause, ConditionClause):
            suspicious, possible = suspicious_clauses(clause.condition.text, reachability)
            holds = True in possible or (deny and None in possible)
            if holds or not suspicious:
                return None
            return f"`{suspicious[0].value}`: {suspicious[0].reason}", suspicious[0].hint
        values = _values(clause, reachability, deny=deny)
        if not values or not all(value is not None and value.certain for value in values):
            return None
        first = next(value for value in values if value is not None)
        return f"`{shortened(first.value)}`: {first.reason}", first.hint


def _values(clause: Clause, reachability: Reachability, *, deny: bool) -> list[SuspiciousValue | None]:
    return suspicious_facts(clause, reachability) or suspicious_values(clause, reachability, deny=deny)


def _may_come_encoded(clause: Clause, reachability: Reachability) -> bool:
    """Whether a path of the clause may be received in another spelling, which a DENY's `notPaths` does not match."""
    if not (reachability.strict and isinstance(clause, TextClause) and clause.dimension is PATH):
        return False
    characters = set("".join(matcher.text for matcher in clause.matchers)).difference("/*{}")
    return any(
        not reachability.refused_path("/" + "".join(f"%{byte:02X}" for byte in utf8_bytes(character)))
        for character in characters
    )


def _rule_key(placed: PlacedRule) -> Hashable:
    """A key that is equal only for rules of one action that match the same requests."""
    groups = frozenset(
        frozenset(frozenset(key_of(clause) for clause in alternative) for alternative in group)
        for group in placed.rule.groups
    )
    return (
        placed.action,
        placed.policy.ref.dry_run,
        frozenset(key_of(clause) for clause in placed.rule.clauses),
        groups,
    )


def _duplicates(rules: Iterable[PlacedRule], root: str) -> list[Finding]:
    """Rules that match the same requests as an earlier rule."""
    alike: dict[Hashable, list[PlacedRule]] = {}
    for placed in rules:
        alike.setdefault(_rule_key(placed), []).append(placed)
    findings = []
    for group in alike.values():
        first: dict[Hashable, PlacedRule] = {}  # per selector, the rule that is tried first
        for placed in group:
            same = first.setdefault(placed.selector_key, placed)
            twin = same if same is not placed else None
            if twin is None and len(first) <= MAX_COMPARED:
                twin = next(
                    (other for other in first.values() if other is not placed and other.selects_all_of(placed, root)),
                    None,
                )
            if twin is not None:
                message = f"it matches the same requests as {twin}, which is tried before it"
                findings.append(_finding(placed, Kind.DUPLICATE, message, "remove one of the two"))
    return findings


def _shadowed(rules: list[PlacedRule], table: RuleTable) -> list[Finding]:
    live = [placed for placed in rules if not placed.policy.ref.dry_run]
    denies = DenyRules([placed for placed in live if placed.action == "DENY"], table.options, MAX_COMPARED)
    findings = []
    for placed in live:
        shadow = denies.shadow_of(placed) if placed.action == "ALLOW" else None
        if shadow is not None:
            message = f"it never decides: {shadow} denies every request that it matches"
            findings.append(_finding(placed, Kind.SHADOWED, message, "narrow the DENY rule or remove this one"))
    return findings


def _unauthenticated(rules: list[PlacedRule], root: str) -> list[Finding]:
    """ALLOW rules that a caller without any identity can satisfy, unless a DENY rule denies all such callers."""
    live = [placed for placed in rules if not placed.policy.ref.dry_run]
    guards: dict[Hashable, PlacedRule] = {}
    for placed in live:
        if (
            placed.action == "DENY"
            and not placed.rule.groups
            and all(excludes_identities(clause) for clause in placed.rule.clauses)
        ):
            guards.setdefault(placed.selector_key, placed)
    guarding = list(guards.values())[:MAX_COMPARED]
    findings = []
    for placed in live:
        if placed.action != "ALLOW" or any(guard.selects_all_of(placed, root) for guard in guarding):
            continue
        level = _unauthenticated_level(placed.rule)
        if level is Level.INFO:
            hint = "if this is not intended, add `principals` or `requestPrincipals`"
            findings.append(_finding(placed, Kind.UNAUTHENTICATED, "it requires no identity", hint, level))
        elif level is Level.WARNING:
            message = "it only excludes identities, so a caller without any identity satisfies it"
            hint = 'add `principals: ["*"]` or `requestPrincipals: ["*"]`'
            findings.append(_finding(placed, Kind.UNAUTHENTICATED, message, hint, level))
    return findings


def _unauthenticated_level(rule: Rule) -> Level | None:
    """The level of a rule that allows callers without identity; None if it does not, or there is no proof."""
    ways: list[tuple[Clause, ...]] = [rule.clauses]
    if any(asks_for_identity(clause) for clause in rule.clauses):
        return None
    for group in rule.groups:
        open_alternatives = [
            alternative for alternative in group if not any(asks_for_identity(clause) for clause in alternative)
        ]
        if not open_alternatives:
            return None
        ways += open_alternatives
    excluding = [clause for way in ways for clause in way if excludes_identities(clause)]
    if any(clause.label.startswith("not") for clause in excluding):
        return None  # the compiler has already warned about `not…` fields
    return Level.WARNING if excluding else Level.INFO

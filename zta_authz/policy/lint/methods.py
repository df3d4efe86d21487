"""Find mistakes in rules on methods: methods in lower case, and denials that an override header bypasses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import METHOD, HeaderDimension
from zta_authz.policy.rules.matchers import Exact, Prefix, Suffix
from zta_authz.policy.rules.spellings import PSEUDO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.policy.lint.shadows import PlacedRule
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.dimensions import Dimension
    from zta_authz.policy.rules.matchers import Matcher
    from zta_authz.policy.rules.rule import Rule

OVERRIDE_HEADERS: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers from which some frameworks read the method of a POST request, by default or by configuration."""


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # RFC 9110 section 5.6.2


def several_methods(matcher: Matcher, *, strict: bool) -> tuple[str, str, bool] | None:
    """Why a value with several methods matches none: the reason, a hint, and whether it is certain."""
    value = matcher.value if isinstance(matcher, (Exact, Prefix, Suffix)) else None
    methods = [] if value is None else re.findall(r"[A-Za-z]+", value)
    if value is None or len(methods) < 2 or not re.search(r"[|,;/()\s]", value):
        return None
    hint = f"write several values: {', '.join(f'`{method}`' for method in methods)}"
    return "a value is one method", hint, strict and re.search(r"[,;/()\s]", value) is not None


def unknown_pseudo_header(dimension: object) -> tuple[str, str, bool] | None:
    """Why a rule on an unknown pseudo-header matches nothing: the reason, a hint, and that it is certain."""
    header = dimension.header if isinstance(dimension, HeaderDimension) else ""
    if not header.startswith(":") or header in PSEUDO_HEADERS:
        return None
    return "no request has such a pseudo-header", "known: `:authority`, `:method`, `:path`, `:scheme`", True


def lower_case_methods(rules: Iterable[PlacedRule]) -> Iterator[tuple[PlacedRule, str, str]]:
    """Each rule with a method in lower case: the rule, the value as written, and the suggested value."""
    for placed in rules:
        for value in _written(placed.rule):
            if value != value.upper() and _TOKEN.fullmatch(value):
                yield placed, value, value.upper()
                break


def overridable(rules: Iterable[PlacedRule]) -> PlacedRule | None:
    """The first DENY rule on methods that does not deny POST; None without one, or if overrides are denied."""
    first: PlacedRule | None = None
    for placed in rules:
        if placed.action != "DENY":
            continue
        if any(_denies_overrides(clause) for clause in placed.rule.clauses):
            return None
        if first is None and any(_leaves_post(clause) for clause in _clauses(placed.rule)):
            first = placed
    return first


def _clauses(rule: Rule) -> Iterator[Clause]:
    yield from rule.clauses
    for group in rule.groups:
        for alternative in group:
            yield from alternative


def _is_on_method(clause: Clause) -> bool:
    return isinstance(clause, TextClause) and is_method(clause.dimension)


def is_method(dimension: Dimension) -> bool:
    """Whether the dimension is the method, by whichever field name."""
    return dimension is METHOD or (isinstance(dimension, HeaderDimension) and dimension.header == ":method")


def _written(rule: Rule) -> Iterator[str]:
    for clause in _clauses(rule):
        if isinstance(clause, TextClause) and _is_on_method(clause):
            for matcher in clause.matchers:
                if isinstance(matcher, (Exact, Prefix, Suffix)):
                    yield matcher.text


def _leaves_post(clause: Clause) -> bool:
    if not isinstance(clause, TextClause) or not _is_on_method(clause) or clause.negated:
        return False
    return not any(matcher.matches("POST") for matcher in clause.matchers)


def _denies_overrides(clause: Clause) -> bool:
    if not isinstance(clause, TextClause) or clause.negated:
        return False
    return isinstance(clause.dimension, HeaderDimension) and clause.dimension.header in OVERRIDE_HEADERS

"""What rules on methods can't mean: methods in lower case, and a denial that a header may get round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.policy.clauses import TextClause
from zta_authz.policy.dimensions import METHOD, HeaderDimension
from zta_authz.policy.matchers import Exact, Prefix, Suffix

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.policy.clauses import Clause
    from zta_authz.policy.rule import Rule
    from zta_authz.policy.shadows import Placed

OVERRIDE_HEADERS: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers from which frameworks take the method of a POST request, if they are told to or by default."""


def lower_case_methods(rules: Iterable[Placed]) -> Iterator[tuple[Placed, str, str]]:
    """Each rule with a method in lower case: the rule, the value as written, and the value that was probably meant."""
    for placed in rules:
        for value in _written(placed.rule):
            if value != value.upper():
                yield placed, value, value.upper()
                break


def overridable(rules: Iterable[Placed]) -> Placed | None:
    """The first DENY rule on methods that leaves POST through; None without one, or where overrides are denied."""
    found: Placed | None = None
    for placed in rules:
        if placed.action != "DENY":
            continue
        if any(_denies_overrides(clause) for clause in placed.rule.clauses):
            return None
        if found is None and any(_leaves_post(clause) for clause in _clauses(placed.rule)):
            found = placed
    return found


def _clauses(rule: Rule) -> Iterator[Clause]:
    yield from rule.clauses
    for group in rule.groups:
        for alternative in group:
            yield from alternative


def _is_on_method(clause: Clause) -> bool:
    if not isinstance(clause, TextClause):
        return False
    dimension = clause.dimension
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

"""What rules on methods can't mean: methods in lower case, and a denial that a header may get round."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import METHOD, HeaderDimension
from zta_authz.policy.rules.matchers import Exact, Prefix, Suffix
from zta_authz.policy.rules.spellings import PSEUDO_HEADERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.policy.lint.shadows import Placed
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.dimensions import Dimension
    from zta_authz.policy.rules.matchers import Matcher
    from zta_authz.policy.rules.rule import Rule

OVERRIDE_HEADERS: Final = ("x-http-method-override", "x-http-method", "x-method-override")
"""Headers from which frameworks take the method of a POST request, if they are told to or by default."""


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # RFC 9110 section 5.6.2


def several_methods(matcher: Matcher, *, strict: bool) -> tuple[str, str, bool] | None:
    """Why a value that names several methods matches none: the reason, what to write, and whether it is certain."""
    value = matcher.value if isinstance(matcher, (Exact, Prefix, Suffix)) else None
    several = [] if value is None else re.findall(r"[A-Za-z]+", value)
    if value is None or len(several) < 2 or not re.search(r"[|,;/()\s]", value):
        return None
    hint = f"write several values: {', '.join(f'`{each}`' for each in several)}"
    return "a value is one method", hint, strict and re.search(r"[,;/()\s]", value) is not None


def unknown_pseudo_header(dimension: object) -> tuple[str, str, bool] | None:
    """Why a rule on this header matches nothing: the reason, what to write, and that it is certain."""
    header = dimension.header if isinstance(dimension, HeaderDimension) else ""
    if not header.startswith(":") or header in PSEUDO_HEADERS:
        return None
    return "no request has such a pseudo header", "known: `:authority`, `:method`, `:path`, `:scheme`", True


def lower_case_methods(rules: Iterable[Placed]) -> Iterator[tuple[Placed, str, str]]:
    """Each rule with a method in lower case: the rule, the value as written, and the value that was probably meant."""
    for placed in rules:
        for value in _written(placed.rule):
            if value != value.upper() and _TOKEN.fullmatch(value):
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
    return isinstance(clause, TextClause) and is_method(clause.dimension)


def is_method(dimension: Dimension) -> bool:
    """Whether this is the method, by whichever field it is named."""
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

"""The possible values of an expression, given those of its clauses: true, false, or None for Unknown.

As in the runtime, one false operand decides `&&` and one true operand decides `||`, whatever the others are.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from zta_authz.policy.cel.tokens import Op, Outline

if TYPE_CHECKING:
    from collections.abc import Callable

Outcomes = frozenset[bool | None]
ANY: Outcomes = frozenset((True, False, None))
UNKNOWN: Outcomes = frozenset((None,))


def outcomes(expression: Outline, clause: Callable[[str], Outcomes]) -> Outcomes:
    """All possible values of `expression`; `clause` returns those of a clause's text."""
    if expression.op is Op.CLAUSE:
        return clause(expression.text)
    operands = [outcomes(operand, clause) for operand in expression.parts]
    if expression.op is Op.NOT:
        return frozenset(None if value is None else not value for value in operands[0])
    if expression.op is Op.CHOICE:
        branches = {True: operands[1], False: operands[2], None: UNKNOWN}
        return frozenset(value for condition in operands[0] for value in branches[condition])
    decisive = expression.op is Op.OR  # a true operand decides an OR, a false one an AND
    results = operands[0]
    for other in operands[1:]:
        results = frozenset(joined(one, two, decisive=decisive) for one, two in product(results, other))
    return results


def joined(one: bool | None, two: bool | None, *, decisive: bool) -> bool | None:
    """`one || two` if `decisive` is true, else `one && two`."""
    if decisive in (one, two):
        return decisive
    return None if None in (one, two) else not decisive

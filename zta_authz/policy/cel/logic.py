"""What an expression may come to, from what its clauses may: true, false, or None for Unknown.

`&&` and `||` are decided by one false or one true part whatever the others are, as the runtime decides them.
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


def outcomes(part: Outline, clause: Callable[[str], Outcomes]) -> Outcomes:
    """All that `part` may come to; `clause` says it of one clause's text."""
    if part.op is Op.CLAUSE:
        return clause(part.text)
    below = [outcomes(each, clause) for each in part.parts]
    if part.op is Op.NOT:
        return frozenset(None if value is None else not value for value in below[0])
    if part.op is Op.CHOICE:
        branches = {True: below[1], False: below[2], None: UNKNOWN}
        return frozenset(value for asked in below[0] for value in branches[asked])
    decisive = part.op is Op.OR  # one true part makes an OR true, one false part an AND false
    found = below[0]
    for other in below[1:]:
        found = frozenset(joined(one, two, decisive=decisive) for one, two in product(found, other))
    return found


def joined(one: bool | None, two: bool | None, *, decisive: bool) -> bool | None:
    """`one || two` where `decisive` is true, else `one && two`."""
    if decisive in (one, two):
        return decisive
    return None if None in (one, two) else not decisive

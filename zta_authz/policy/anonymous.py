"""Whether an ALLOW rule lets in callers without any identity, proved from what its clauses require.

A condition in CEL is judged by its outline: clauses on nothing but the caller's identity are evaluated for a caller
without any, and clauses on the request may come out either way.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from zta_authz.model.identity import ANONYMOUS
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.policy.cel import evaluate_text, variables_in
from zta_authz.policy.cel_tokens import Op, Outline, outline, tokens_of
from zta_authz.policy.clauses import RequestPrincipalClause, TextClause
from zta_authz.policy.dimensions import API_CLIENT, API_SCOPES, PEER, ClaimDimension, MetadataDimension
from zta_authz.policy.extra_clauses import ConditionClause
from zta_authz.policy.implication import members_of
from zta_authz.policy.inputs import Inputs
from zta_authz.policy.require import BoundClause, MaxAgeClause

if TYPE_CHECKING:
    from zta_authz.policy.clauses import Clause

_IDENTITY: Final = frozenset(
    (
        "source.principal", "source.trustDomain", "source.namespace", "source.serviceAccount", "claims",
        "token.subject", "token.issuer", "apiClient.name", "apiClient.scopes",
    )
)  # fmt: skip
_ABSORBING: Final = frozenset(("has", "exists", "exists_one", "all"))
"""Calls that can turn a missing claim into true or false."""
_ANY: Final[frozenset[bool | None]] = frozenset((True, False, None))


def asks_for_identity(clause: Clause) -> bool:
    """Whether only a caller with some identity satisfies the clause; filter metadata may stand for one."""
    if isinstance(clause, ConditionClause):
        return True not in _outcomes(outline(clause.condition.text))
    if isinstance(clause, (BoundClause, MaxAgeClause)):
        return True
    return reads_identity(clause) and not clause.negated


def excludes_identities(clause: Clause) -> bool:
    """Whether the clause holds for every caller without identity because it only excludes some identities."""
    reads_metadata = isinstance(clause, TextClause) and isinstance(clause.dimension, MetadataDimension)
    return clause.negated and reads_identity(clause) and not reads_metadata and bool(members_of(clause))


def reads_identity(clause: Clause) -> bool:
    """Whether the clause looks at who calls."""
    if isinstance(clause, RequestPrincipalClause):
        return True
    if not isinstance(clause, TextClause):
        return False
    dimension = clause.dimension
    return dimension in (PEER, API_CLIENT, API_SCOPES) or isinstance(dimension, (ClaimDimension, MetadataDimension))


def _outcomes(part: Outline) -> frozenset[bool | None]:
    """What an expression may come to for a caller without identity; None is Unknown."""
    if part.op is Op.CLAUSE:
        return _clause_outcomes(part.text)
    below = [_outcomes(each) for each in part.parts]
    if part.op is Op.NOT:
        return frozenset(None if value is None else not value for value in below[0])
    if part.op is Op.CHOICE:
        branches = {True: below[1], False: below[2], None: frozenset((None,))}
        return frozenset(value for asked in below[0] for value in branches[asked])
    decisive = part.op is Op.OR  # one true part makes an OR true, one false part an AND false
    found = below[0]
    for other in below[1:]:
        found = frozenset(_joined(one, two, decisive=decisive) for one, two in product(found, other))
    return found


def _joined(one: bool | None, two: bool | None, *, decisive: bool) -> bool | None:
    if decisive in (one, two):
        return decisive
    return None if None in (one, two) else not decisive


def _clause_outcomes(text: str) -> frozenset[bool | None]:
    variables = set(variables_in(text))
    if variables <= _IDENTITY:
        return frozenset((evaluate_text(text, Inputs(RequestAttributes(), ANONYMOUS, Options())),))
    words = {token.group() for token in tokens_of(text) if token.lastgroup == "name"}
    if _reads_claim(text) and not words & _ABSORBING:
        return frozenset((None,))  # the claim is not there, and nothing in the clause asks whether it is
    return _ANY


def _reads_claim(text: str) -> bool:
    words = [token.group() for token in tokens_of(text)]
    return any(
        word == "claims" and words[at - 1 : at] != ["."] and words[at + 1 : at + 2] in (["."], ["["])
        for at, word in enumerate(words)
    )

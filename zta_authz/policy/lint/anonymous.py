"""Prove from its clauses whether an ALLOW rule allows callers without any identity.

A CEL condition is judged by its outline: clauses that read only the caller's identity are evaluated for a caller
without any; clauses that read the request may be true or false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.model.identity import ANONYMOUS
from zta_authz.model.options import Options
from zta_authz.model.request import RequestAttributes
from zta_authz.policy.cel.condition import evaluate_text, variables_in
from zta_authz.policy.cel.logic import ANY, UNKNOWN, outcomes
from zta_authz.policy.cel.tokens import outline, tokens_of
from zta_authz.policy.lint.implication import members_of
from zta_authz.policy.rules.clauses import RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import API_CLIENT, API_SCOPES, PEER, ClaimDimension, MetadataDimension
from zta_authz.policy.rules.extra_clauses import ConditionClause
from zta_authz.policy.rules.fact_clauses import FactClause, Is
from zta_authz.policy.rules.fact_values import DeviceField, OsAtLeast, SeenWithin
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require import BoundClause, MaxAgeClause
from zta_authz.policy.rules.require_authentication import AuthenticationClause
from zta_authz.policy.rules.require_grant import GrantClause

if TYPE_CHECKING:
    from zta_authz.policy.cel.logic import Outcomes
    from zta_authz.policy.rules.clauses import Clause

_IDENTITY: Final = frozenset(
    (
        "source.principal", "source.trustDomain", "source.namespace", "source.serviceAccount", "claims",
        "token.subject", "token.issuer", "apiClient.name", "apiClient.scopes",
    )
)  # fmt: skip
ABSORBING: Final = frozenset(("has", "exists", "exists_one", "all", "?", "&&", "||"))
"""Calls and operators within a clause that can turn a missing value into true or false."""


def asks_for_identity(clause: Clause) -> bool:
    """Whether only a caller with some identity satisfies the clause; filter metadata counts as identity."""
    if isinstance(clause, ConditionClause):
        return True not in outcomes(outline(clause.condition.text), _clause_outcomes)
    if isinstance(clause, (BoundClause, MaxAgeClause, AuthenticationClause, GrantClause)):
        return True
    if isinstance(clause, FactClause) and isinstance(clause.read, (DeviceField, SeenWithin, OsAtLeast)):
        return clause.comparison == Is(value=True) and not clause.negated  # a device is known by a verified credential
    return reads_identity(clause) and not clause.negated


def excludes_identities(clause: Clause) -> bool:
    """Whether every caller without identity satisfies the clause, because it only excludes identities."""
    reads_metadata = isinstance(clause, TextClause) and isinstance(clause.dimension, MetadataDimension)
    return clause.negated and reads_identity(clause) and not reads_metadata and bool(members_of(clause))


def reads_identity(clause: Clause) -> bool:
    """Whether the clause reads the caller's identity."""
    if isinstance(clause, RequestPrincipalClause):
        return True
    if not isinstance(clause, TextClause):
        return False
    dimension = clause.dimension
    return dimension in (PEER, API_CLIENT, API_SCOPES) or isinstance(dimension, (ClaimDimension, MetadataDimension))


def _clause_outcomes(text: str) -> Outcomes:
    variables = set(variables_in(text))
    if variables <= _IDENTITY:
        return frozenset((evaluate_text(text, Inputs(RequestAttributes(), ANONYMOUS, Options())),))
    words = {token.group() for token in tokens_of(text)}
    if reads_claim(text) and not words & ABSORBING:
        return UNKNOWN  # the claim is missing, and the clause does not test for it
    return ANY


def reads_claim(text: str) -> bool:
    """Whether an expression reads a claim by its name."""
    words = [token.group() for token in tokens_of(text)]
    return any(
        word == "claims" and words[at - 1 : at] != ["."] and words[at + 1 : at + 2] in (["."], ["["])
        for at, word in enumerate(words)
    )

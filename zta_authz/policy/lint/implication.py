"""Proofs about clauses: that one implies another, or that two can't hold together.

True is a proof; False only means that no proof was found, so callers may report only on True. In strict mode the action
matters: an unknown value (a joined header, an authority with a port) matches for a DENY and not for an ALLOW; see
`clauses`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Final

from zta_authz.model.spiffe import SCHEME as SPIFFE
from zta_authz.policy.rules.clauses import AddressClause, PortClause, RequestPrincipalClause, TextClause
from zta_authz.policy.rules.dimensions import (
    HOST,
    METHOD,
    PATH,
    PEER,
    PORT,
    REQUEST_PRINCIPAL,
    SNI,
    AddressDimension,
    ClaimDimension,
    FactDimension,
    HeaderDimension,
    MetadataDimension,
)
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.fact_clauses import FactClause, Is, OneOf
from zta_authz.policy.rules.fact_values import SeenWithin, anonymous, asn, corporate, country, reputation
from zta_authz.policy.rules.identity_matchers import InTrustDomain, NamespaceMatcher, RequestPrincipal, ServiceAccount
from zta_authz.policy.rules.matchers import Exact, Matcher, Prefix, Present, Suffix
from zta_authz.policy.rules.path_templates import Template
from zta_authz.policy.rules.require_authentication import AuthenticationClause
from zta_authz.policy.rules.require_trust import TrustClause

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.schedule import TimeWindow

Member = Matcher | RequestPrincipal | IPv4Network | IPv6Network
_MAX_COMPARED: Final = 10_000
"""The maximum number of value pairs of two clauses; beyond it nothing is proved."""
_ONE_VALUE: Final = frozenset((METHOD, PATH, SNI, PORT, HOST, REQUEST_PRINCIPAL))
_TRUE: Final = (Exact("true"),)
_NOT_OF_CORPORATE: Final = frozenset(("fact", read) for read in (country, asn, anonymous, reputation))
_ALWAYS_KNOWN: Final = frozenset((METHOD, PATH, SNI, PORT, PEER, REQUEST_PRINCIPAL))


def dimension_of(clause: Clause) -> object:
    """The clause's dimension: equal for clauses that read the same values, by whichever field name."""
    if is_fact(clause):
        return _fact_of(clause)
    match clause:
        case TextClause():
            return _text_dimension(clause)
        case AddressClause():
            return clause.dimension
        case PortClause():
            return PORT
        case RequestPrincipalClause():
            return REQUEST_PRINCIPAL
        case ConditionClause():
            return ("condition", clause.condition.text)
        case TimeClause():
            return "time"
    return ("clause", id(clause))


def _text_dimension(clause: TextClause) -> object:
    match clause.dimension:
        case ClaimDimension() as claim:
            return ("claim", claim.path)
        case HeaderDimension() as header:
            return ("header", header.header)
        case MetadataDimension() as metadata:
            return ("metadata", metadata.filter, metadata.path, metadata.listed)
    return clause.dimension


def members_of(clause: Clause) -> tuple[Member, ...]:
    """The values of which one must match; () for a clause without a list of values."""
    match clause:
        case FactClause(read=SeenWithin()):
            return ()
        case FactClause(comparison=Is(value=value)):
            return (Exact(str(value).lower()),)
        case FactClause(comparison=OneOf(values=values)):
            return tuple(Exact(text) for text in sorted(map(str, values)))
        case TextClause() | RequestPrincipalClause():
            return clause.matchers
        case PortClause():
            return tuple(Exact(str(port)) for port in sorted(clause.ports))
        case AddressClause():
            return clause.networks
    return ()


def key_of(clause: Clause) -> Hashable:
    """A key that is equal only for clauses that hold for the same requests; it may differ for some of them."""
    if isinstance(clause, TimeClause):
        times = clause.times
        return ("time", times.start, times.end, times.zone and times.zone.key, times.windows)
    if isinstance(clause, TrustClause):
        return ("trust", clause.demand, clause.step_up, clause.show_components)
    if isinstance(clause, AuthenticationClause):
        return ("authentication", clause.acr, clause.at_least, clause.amr, clause.max_age, clause.login)
    if isinstance(clause, FactClause) and not members_of(clause):
        return ("fact", clause.read, clause.negated, clause.comparison)
    return (dimension_of(clause), clause.negated, frozenset(members_of(clause)))


def covers(wide: Member, narrow: Member) -> bool:
    """Whether `wide` matches every value that `narrow` matches."""
    if wide == narrow:
        return True
    if isinstance(wide, RequestPrincipal) and isinstance(narrow, RequestPrincipal):
        return covers(wide.issuer, narrow.issuer) and covers(wide.subject, narrow.subject)
    if isinstance(wide, IPv4Network):
        return isinstance(narrow, IPv4Network) and narrow.subnet_of(wide)
    if isinstance(wide, IPv6Network):
        return isinstance(narrow, IPv6Network) and narrow.subnet_of(wide)
    if isinstance(narrow, Exact) and not isinstance(wide, RequestPrincipal):
        return wide.matches(narrow.value)
    return _text_covers(wide, narrow)


def _text_covers(wide: Member, narrow: Member) -> bool:
    """`covers` for text matchers; `narrow` is not exact."""
    start, end = start_of(narrow), end_of(narrow)
    match wide:
        case Prefix():
            return start.startswith(wide.value)
        case Suffix():
            return end.endswith(wide.value) and start.startswith(wide.after)
        case Present():
            return wide.even_empty or bool(start or end) or isinstance(narrow, NamespaceMatcher)
        case InTrustDomain():
            return "/" in start.removeprefix(SPIFFE) and wide.matches(start)
        case NamespaceMatcher():
            return wide.matches(start) or (isinstance(narrow, ServiceAccount) and narrow.namespace == wide.namespace)
    return False


def apart(one: Member, other: Member) -> bool:
    """Whether no single value matches both."""
    if isinstance(one, RequestPrincipal) and isinstance(other, RequestPrincipal):
        return apart(one.issuer, other.issuer) or apart(one.subject, other.subject)
    if isinstance(one, (IPv4Network, IPv6Network)) or isinstance(other, (IPv4Network, IPv6Network)):
        return not (covers(one, other) or covers(other, one))  # blocks are nested or disjoint
    if isinstance(one, RequestPrincipal) or isinstance(other, RequestPrincipal):
        return False
    if isinstance(one, Exact):
        return not other.matches(one.value)
    if isinstance(other, Exact):
        return not one.matches(other.value)
    starts, ends = sorted((start_of(one), start_of(other)), key=len), sorted((end_of(one), end_of(other)), key=len)
    return not starts[1].startswith(starts[0]) or not ends[1].endswith(ends[0])


def start_of(member: Member) -> str:
    """The common start of all texts that the matcher matches, "" if unknown."""
    match member:
        case Exact() | Prefix():
            return member.value
        case Suffix():
            return member.after
        case ServiceAccount():
            return SPIFFE
        case InTrustDomain():
            return f"{SPIFFE}{member.before}" + ("/" if member.after is None else "")
        case Template():
            return member.text.partition("{")[0]
    return ""


def end_of(member: Member) -> str:
    """The common end of all texts that the matcher matches, "" if unknown."""
    return member.value if isinstance(member, (Exact, Suffix)) else ""


def implies(narrow: Clause, wide: Clause, *, strict: bool) -> bool:
    """Whether `wide` holds for a DENY whenever `narrow` holds for an ALLOW."""
    if dimension_of(narrow) != dimension_of(wide) or (
        is_fact(narrow) and not (members_of(narrow) and members_of(wide))
    ):
        return False
    if isinstance(narrow, TimeClause) and isinstance(wide, TimeClause):
        return _times_imply(narrow.times, wide.times)
    if isinstance(narrow, ConditionClause):
        return True  # the same text, so both have the same value
    if narrow.negated:
        return wide.negated and _all_covered(members_of(wide), members_of(narrow))
    if wide.negated:
        return _one_value(narrow, strict=strict) and _all_apart(members_of(narrow), members_of(wide))
    return key_of(narrow) == key_of(wide) or _all_covered(members_of(narrow), members_of(wide))


def contradict(one: Clause, other: Clause, *, strict: bool, deny: bool) -> bool:
    """Whether two clauses of a rule never hold together; `deny` is whether it is a DENY rule."""
    if is_fact(one) and is_fact(other) and (deny or not (members_of(one) and members_of(other))):
        return False  # an unknown fact satisfies every clause of a DENY
    if not deny and (_only_corporate(one, other) or _only_corporate(other, one)):
        return True
    if dimension_of(one) != dimension_of(other):
        return False
    if isinstance(one, TimeClause) and isinstance(other, TimeClause):
        return max(one.times.start, other.times.start) >= min(one.times.end, other.times.end)
    if deny and strict and not _always_known(one):
        return False  # an unknown value satisfies both
    if one.negated and other.negated:
        return False
    if one.negated or other.negated:
        positive, negative = (other, one) if one.negated else (one, other)
        return bool(members_of(positive)) and _all_covered(members_of(positive), members_of(negative))
    return _one_value(one, strict=strict) and _all_apart(members_of(one), members_of(other))


def is_fact(clause: Clause) -> bool:
    """Whether the clause reads a fact."""
    return isinstance(clause, FactClause) or (
        isinstance(clause, TextClause) and isinstance(clause.dimension, FactDimension)
    )


def _fact_of(clause: Clause) -> object:
    """The dimension of a clause on a fact."""
    match clause:
        case TextClause(dimension=FactDimension() as fact):
            return ("fact", fact.read)
        case FactClause() if not isinstance(clause.read, SeenWithin):
            return ("fact", clause.read)
    return ("fact", "seenWithin")


def _only_corporate(one: Clause, other: Clause) -> bool:
    """Whether `one` asks for a corporate address, of which nothing else is known, and `other` for something else."""
    if dimension_of(one) != ("fact", corporate) or not is_fact(other):
        return False
    holds = _all_covered(members_of(one), _TRUE) is not one.negated
    return holds and dimension_of(other) in _NOT_OF_CORPORATE


def _times_imply(narrow: TimeWindow, wide: TimeWindow) -> bool:
    within = wide.start <= narrow.start and narrow.end <= wide.end
    same_week = (narrow.zone and narrow.zone.key) == (wide.zone and wide.zone.key) and narrow.windows == wide.windows
    return within and (not wide.windows or same_week)


def _one_value(clause: Clause, *, strict: bool) -> bool:
    """Whether a request has at most one value of the dimension. In Istio semantics a peer may have several names."""
    dimension = dimension_of(clause)
    return (
        dimension in _ONE_VALUE
        or is_fact(clause)
        or isinstance(dimension, AddressDimension)
        or (strict and dimension is PEER)
    )


def _always_known(clause: Clause) -> bool:
    """Whether ALLOW and DENY rules read the same values of every request."""
    dimension = clause.dimension if isinstance(clause, TextClause) else dimension_of(clause)
    return dimension in _ALWAYS_KNOWN or isinstance(dimension, MetadataDimension)


def _all_covered(narrow: Collection[Member], wide: Collection[Member]) -> bool:
    """Whether each member of `narrow` is covered by one of `wide`."""
    equal = frozenset(wide)
    rest = [member for member in narrow if member not in equal]
    patterns = [member for member in wide if not isinstance(member, Exact)]  # an exact one covers only itself
    if len(rest) * len(patterns) > _MAX_COMPARED:
        return False
    return all(any(covers(pattern, member) for pattern in patterns) for member in rest)


def _all_apart(some: Collection[Member], others: Collection[Member]) -> bool:
    if len(some) * len(others) > _MAX_COMPARED:
        return False
    return all(apart(one, other) for one in some for other in others)

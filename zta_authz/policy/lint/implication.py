"""What can be proved of clauses without any request: that one implies another, that two can't hold together.

Every answer is one-sided: True is a proof, False only means that none was found. So whoever reports what is proved
here never reports what is not so. Sides matter in the strict reading: what a request leaves undecided (a joined header,
an authority with a port) counts for a DENY and against an ALLOW, see `clauses`.
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
    HeaderDimension,
    MetadataDimension,
)
from zta_authz.policy.rules.extra_clauses import ConditionClause, TimeClause
from zta_authz.policy.rules.identity_matchers import InTrustDomain, NamespaceMatcher, RequestPrincipal, ServiceAccount
from zta_authz.policy.rules.matchers import Exact, Matcher, Prefix, Present, Suffix
from zta_authz.policy.rules.path_templates import Template

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.schedule import TimeWindow

Member = Matcher | RequestPrincipal | IPv4Network | IPv6Network
_MAX_COMPARED: Final = 10_000
"""Pairs of values that two clauses are compared by; beyond that nothing is proved."""
_ONE_VALUE: Final = frozenset((METHOD, PATH, SNI, PORT, HOST, REQUEST_PRINCIPAL))
_ALWAYS_TOLD: Final = frozenset((METHOD, PATH, SNI, PORT, PEER, REQUEST_PRINCIPAL))


def dimension_of(clause: Clause) -> object:
    """What the clause looks at: equal for clauses that read the same values, whatever the operator called it."""
    match clause:
        case TextClause(dimension=ClaimDimension() as claim):
            return ("claim", claim.path)
        case TextClause(dimension=HeaderDimension() as header):
            return ("header", header.header)
        case TextClause(dimension=MetadataDimension() as metadata):
            return ("metadata", metadata.filter, metadata.path, metadata.listed)
        case TextClause(dimension=dimension):
            return dimension
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


def members_of(clause: Clause) -> tuple[Member, ...]:
    """The values of which one must match; () for a clause that is no list of values."""
    match clause:
        case TextClause() | RequestPrincipalClause():
            return clause.matchers
        case PortClause():
            return tuple(Exact(str(port)) for port in sorted(clause.ports))
        case AddressClause():
            return clause.networks
    return ()


def key_of(clause: Clause) -> Hashable:
    """Equal for clauses that hold for the same requests: not for all such, but only for such."""
    if isinstance(clause, TimeClause):
        times = clause.times
        return ("time", times.start, times.end, times.zone and times.zone.key, times.windows)
    return (dimension_of(clause), clause.negated, frozenset(members_of(clause)))


def covers(wide: Member, narrow: Member) -> bool:
    """Whether everything that `narrow` matches is matched by `wide`."""
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
    """The same for matchers of texts, of which `narrow` is not exact."""
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
    """What every text that the matcher matches starts with, "" where that is not known."""
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
    """What every text that the matcher matches ends with, "" where that is not known."""
    return member.value if isinstance(member, (Exact, Suffix)) else ""


def implies(narrow: Clause, wide: Clause, *, strict: bool) -> bool:
    """Whether, where `narrow` holds for an ALLOW, `wide` holds for a DENY."""
    if dimension_of(narrow) != dimension_of(wide):
        return False
    if isinstance(narrow, TimeClause) and isinstance(wide, TimeClause):
        return _times_imply(narrow.times, wide.times)
    if isinstance(narrow, ConditionClause):
        return True  # the same text: true for one is true for the other
    if narrow.negated:
        return wide.negated and _all_covered(members_of(wide), members_of(narrow))
    if wide.negated:
        return _one_value(narrow, strict=strict) and _all_apart(members_of(narrow), members_of(wide))
    return key_of(narrow) == key_of(wide) or _all_covered(members_of(narrow), members_of(wide))


def contradict(one: Clause, other: Clause, *, strict: bool, deny: bool) -> bool:
    """Whether the two never hold together in a rule; `deny` tells the rule's side."""
    if dimension_of(one) != dimension_of(other):
        return False
    if isinstance(one, TimeClause) and isinstance(other, TimeClause):
        return max(one.times.start, other.times.start) >= min(one.times.end, other.times.end)
    if deny and strict and not _always_told(one):
        return False  # what can't be told holds for both
    if one.negated and other.negated:
        return False
    if one.negated or other.negated:
        meant, excluded = (other, one) if one.negated else (one, other)
        return bool(members_of(meant)) and _all_covered(members_of(meant), members_of(excluded))
    return _one_value(one, strict=strict) and _all_apart(members_of(one), members_of(other))


def _times_imply(narrow: TimeWindow, wide: TimeWindow) -> bool:
    within = wide.start <= narrow.start and narrow.end <= wide.end
    same_week = (narrow.zone and narrow.zone.key) == (wide.zone and wide.zone.key) and narrow.windows == wide.windows
    return within and (not wide.windows or same_week)


def _one_value(clause: Clause, *, strict: bool) -> bool:
    """Whether a request has at most one value there. In Istio's reading a peer may have several names."""
    dimension = dimension_of(clause)
    return dimension in _ONE_VALUE or isinstance(dimension, AddressDimension) or (strict and dimension is PEER)


def _always_told(clause: Clause) -> bool:
    """Whether both sides see the same values in every request."""
    dimension = clause.dimension if isinstance(clause, TextClause) else dimension_of(clause)
    return dimension in _ALWAYS_TOLD or isinstance(dimension, MetadataDimension)


def _all_covered(narrow: Collection[Member], wide: Collection[Member]) -> bool:
    """Whether each of `narrow` is covered by one of `wide`."""
    equal = frozenset(wide)
    rest = [member for member in narrow if member not in equal]
    patterns = [member for member in wide if not isinstance(member, Exact)]  # an exact one covers only its equal
    if len(rest) * len(patterns) > _MAX_COMPARED:
        return False
    return all(any(covers(pattern, member) for pattern in patterns) for member in rest)


def _all_apart(some: Collection[Member], others: Collection[Member]) -> bool:
    if len(some) * len(others) > _MAX_COMPARED:
        return False
    return all(apart(one, other) for one in some for other in others)

"""Clauses: the conditions that a rule joins with AND.

A clause holds if any of its matchers matches any value of its dimension; `not…` fields negate that. If strict mode
doesn't know a value (a joined header), the clause gives the result that never widens access: an ALLOW does not match, a
DENY does. `wide` is that result for the comparison before negation: `deny != negated`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.model.addresses import mapped_network
from zta_authz.policy.rules.dimensions import (
    PORT,
    REQUEST_PRINCIPAL,
    FactDimension,
    HeaderDimension,
    request_principal_texts,
)
from zta_authz.policy.rules.matchers import Exact, IndexKey, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from zta_authz.policy.rules.dimensions import AddressDimension, Dimension
    from zta_authz.policy.rules.identity_matchers import RequestPrincipal
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import Matcher

_SHOWN: Final = 5
_SHOWN_CHARACTERS: Final = 200


class Clause(Protocol):
    """One AND-part of a rule."""

    @property
    def cost(self) -> int:
        """Relative cost; cheap clauses are tried first."""
        ...

    @property
    def label(self) -> str:
        """The field as the operator wrote it."""
        ...

    @property
    def negated(self) -> bool:
        """True for `not…`."""
        ...

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the clause holds; `deny` is the result for a value that is unknown."""
        ...

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """The dimension and the lookups that find every request this clause holds for; None if no lookup does."""
        ...

    def actual(self, inputs: Inputs) -> str:
        """The request's values, for an operator."""
        ...

    @property
    def expected(self) -> str:
        """The rule's values, for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class TextClause:
    """Any matcher on any value of a dimension of texts."""

    dimension: Dimension
    matchers: tuple[Matcher, ...]
    negated: bool
    label: str
    cost: int
    # What the fast path needs, from `dimension` and `matchers`.
    attribute: str | None = field(init=False, repr=False, compare=False)
    only: str | None = field(init=False, repr=False, compare=False)
    """The value, if the only matcher is `Exact`."""
    exact: frozenset[str] = field(init=False, repr=False, compare=False)
    """The values of all `Exact` matchers, if they are several or there are other matchers."""
    prefixes: tuple[str, ...] = field(init=False, repr=False, compare=False)
    others: tuple[Matcher, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact = [matcher.value for matcher in self.matchers if isinstance(matcher, Exact)]
        only = exact[0] if len(exact) == len(self.matchers) == 1 else None
        object.__setattr__(self, "attribute", self.dimension.attribute)
        object.__setattr__(self, "only", only)
        object.__setattr__(self, "exact", frozenset(exact if only is None else ()))
        object.__setattr__(self, "prefixes", tuple(m.value for m in self.matchers if isinstance(m, Prefix)))
        object.__setattr__(self, "others", tuple(m for m in self.matchers if not isinstance(m, (Exact, Prefix))))

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether any matcher matches any value, negated for `not…`."""
        negated, attribute = self.negated, self.attribute
        if attribute is not None and deny is negated:
            values: tuple[str, ...] | None = getattr(inputs, attribute)
        else:
            values = self.dimension.values(inputs, deny is not negated)
        if values is None:
            return deny
        if not self._matches_any(values):
            return negated
        return not negated or (deny and self._other_readings_differ(inputs))

    def _matches_any(self, values: tuple[str, ...]) -> bool:
        if self.only is not None:
            return self.only in values
        for value in values:
            if value in self.exact or value.startswith(self.prefixes):
                return True
            for matcher in self.others:
                if matcher.matches(value):
                    return True
        return False

    def _other_readings_differ(self, inputs: Inputs) -> bool:
        """Whether an application may read a value of the header that no matcher matches (strict mode).

        `x-role: user` beside `x-role: admin` must not get past a DENY of everything but `user`.
        """
        if not (inputs.strict and isinstance(self.dimension, HeaderDimension) and self.dimension.may_repeat):
            return False
        values = self.dimension.values(inputs, wide=True)
        return values is None or not all(self._matches_any((value,)) for value in values)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """The lookups of all matchers, if every matcher has one."""
        if self.negated or isinstance(self.dimension, FactDimension):
            return None
        keys = [matcher.key for matcher in self.matchers]
        lookups = tuple(key for key in keys if key is not None)
        return (self.dimension, lookups) if len(lookups) == len(keys) else None

    def actual(self, inputs: Inputs) -> str:
        """The request's values."""
        if isinstance(self.dimension, FactDimension):
            return self.dimension.describe(inputs)
        values = self.dimension.values(inputs, False)
        if values is None:
            return "repeated values joined into one"
        return _shown(values) or "nothing"

    @property
    def expected(self) -> str:
        """The matchers' values."""
        return _shown(matcher.text for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class RequestPrincipalClause:
    """`requestPrincipals`: issuer and subject of the verified token, compared as a pair."""

    matchers: tuple[RequestPrincipal, ...]
    negated: bool
    label: str
    cost: int = 2
    only: tuple[str, str] | None = field(init=False, repr=False, compare=False)
    """The pair, if there is one matcher and it compares exactly, as in most clauses."""

    def __post_init__(self) -> None:
        single = self.matchers[0] if len(self.matchers) == 1 else None
        only = None
        if single is not None and isinstance(single.issuer, Exact) and isinstance(single.subject, Exact):
            only = single.issuer.value, single.subject.value
        object.__setattr__(self, "only", only)

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether any matcher matches the pair, negated for `not…`."""
        del deny
        pair = inputs.request_principal
        if pair is None:
            return self.negated
        if self.only is not None:
            return (pair == self.only) is not self.negated
        issuer, subject = pair
        for matcher in self.matchers:
            if matcher.matches_pair(issuer, subject):
                return not self.negated
        return self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on `issuer/subject`."""
        if self.negated:
            return None
        keys = tuple(m.key for m in self.matchers if m.key is not None)
        return (REQUEST_PRINCIPAL, keys) if len(keys) == len(self.matchers) else None

    def actual(self, inputs: Inputs) -> str:
        """Issuer and subject of the token."""
        return _shown(request_principal_texts(inputs)) or "no verified token"

    @property
    def expected(self) -> str:
        """The values as the operator wrote them."""
        return _shown(matcher.text for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class PortClause:
    """`ports`: the proxy's local port."""

    ports: frozenset[int]
    negated: bool
    label: str
    cost: int = 0

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the port is listed, negated for `not…`."""
        del deny
        return (inputs.port in self.ports) is not self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on the port as text."""
        return None if self.negated else (PORT, tuple(IndexKey("exact", str(port)) for port in sorted(self.ports)))

    def actual(self, inputs: Inputs) -> str:
        """The request's port."""
        return f"`{inputs.port}`"

    @property
    def expected(self) -> str:
        """The listed ports."""
        return _shown(str(port) for port in sorted(self.ports))


@dataclass(frozen=True, slots=True)
class AddressClause:
    """`ipBlocks` and similar fields. An address matches a block of the other family only if it embeds such an address.

    `mapped` are the IPv4 blocks that `networks` of IPv4-mapped addresses stand for. They are compared only for `wide`.
    """

    dimension: AddressDimension
    networks: tuple[IPv4Network | IPv6Network, ...]
    negated: bool
    label: str
    cost: int = 3
    mapped: tuple[IPv4Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mapped = (mapped_network(network) for network in self.networks)
        object.__setattr__(self, "mapped", tuple(network for network in mapped if network is not None))

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the address is in any block, negated for `not…`.

        A missing address is unknown in strict mode, and in no block in Istio's semantics.
        """
        wide = deny is not self.negated
        addresses = self.dimension.values(inputs, wide)
        if addresses is None:
            return deny if inputs.strict else self.negated
        networks = (*self.networks, *self.mapped) if self.mapped and wide and inputs.strict else self.networks
        for address in addresses:
            if any(address in network for network in networks):
                return not self.negated
        return self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """A lookup for each block, by its length and number."""
        if self.negated:
            return None
        return self.dimension, tuple(
            IndexKey(f"cidr{network.version}/{network.prefixlen}", str(int(network.network_address)))
            for network in (*self.networks, *self.mapped)
        )

    def actual(self, inputs: Inputs) -> str:
        """The address and the IPv4 address that it stands for, if any."""
        return ", which stands for ".join(f"`{address}`" for address in self.dimension.read(inputs)) or "no address"

    @property
    def expected(self) -> str:
        """The listed blocks."""
        return _shown(str(network) for network in self.networks)


def shortened(text: str) -> str:
    """Shorten `text` for a message: a client chooses its length."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _shown(values: Iterable[str]) -> str:
    """List a few values for a message and count the rest."""
    texts = [f"`{shortened(value)}`" for value in values if value]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more

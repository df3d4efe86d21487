"""Clauses: what a dimension of a request must be.

A clause is the AND-part of a rule: any of its matchers on any of the dimension's values, negated for `not…` fields.
Where the strict reading can't tell a value (a joined header), the clause takes the answer that never widens access:
an ALLOW does not match, a DENY does. `wide` is that answer for the un-negated comparison: `deny != negated`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.model.addresses import mapped_network
from zta_authz.policy.rules.dimensions import PORT, REQUEST_PRINCIPAL, HeaderDimension, request_principal_texts
from zta_authz.policy.rules.matchers import Exact, IndexKey

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
        """Cheap clauses are tried first."""
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
        """Whether it holds; `deny` tells the side on which an undecidable value falls."""
        ...

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """The dimension and lookups that find every request this clause holds for; None where there are none."""
        ...

    def seen(self, inputs: Inputs) -> str:
        """What the request has in this place, for an operator."""
        ...

    @property
    def wanted(self) -> str:
        """What the rule has in this place, for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class TextClause:
    """Any matcher on any value of a dimension of texts."""

    dimension: Dimension
    matchers: tuple[Matcher, ...]
    negated: bool
    label: str
    cost: int
    only: str | None = field(init=False, repr=False, compare=False)
    """The value, where it is one and compared as it is: what most clauses are."""

    def __post_init__(self) -> None:
        single = self.matchers[0] if len(self.matchers) == 1 else None
        object.__setattr__(self, "only", single.value if isinstance(single, Exact) else None)

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Any match, negated for `not…`."""
        negated = self.negated
        values = self.dimension.values(inputs, deny is not negated)
        if values is None:
            return deny
        if not self._meets_any(values):
            return negated
        return not negated or (deny and self._other_readings_differ(inputs))

    def _meets_any(self, values: tuple[str, ...]) -> bool:
        if self.only is not None:
            return self.only in values
        for value in values:
            for matcher in self.matchers:
                if matcher.matches(value):
                    return True
        return False

    def _other_readings_differ(self, inputs: Inputs) -> bool:
        """Whether an application may read a value of the header that no matcher meets.

        `x-role: user` beside `x-role: admin` must not pass a DENY of all that is not `user` (strict reading).
        """
        if not (inputs.strict and isinstance(self.dimension, HeaderDimension) and self.dimension.is_read_in_ways):
            return False
        values = self.dimension.values(inputs, wide=True)
        return values is None or not all(self._meets_any((value,)) for value in values)

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Every matcher's lookup, if each has one."""
        if self.negated:
            return None
        keys = [matcher.key for matcher in self.matchers]
        found = tuple(key for key in keys if key is not None)
        return (self.dimension, found) if len(found) == len(keys) else None

    def seen(self, inputs: Inputs) -> str:
        """The values."""
        values = self.dimension.values(inputs, False)
        if values is None:
            return "repeated values joined into one"
        return _shown(values) or "nothing"

    @property
    def wanted(self) -> str:
        """The matchers."""
        return _shown(matcher.text for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class RequestPrincipalClause:
    """`requestPrincipals`: issuer and subject of the verified token, compared as a pair."""

    matchers: tuple[RequestPrincipal, ...]
    negated: bool
    label: str
    cost: int = 2

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Any pair matches, negated for `not…`."""
        del deny
        pair = inputs.request_principal
        if pair is None:
            return self.negated
        issuer, subject = pair
        for matcher in self.matchers:
            if matcher.matches_pair(issuer, subject):
                return not self.negated
        return self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on `issuer/subject`."""
        if self.negated:
            return None
        found = tuple(m.key for m in self.matchers if m.key is not None)
        return (REQUEST_PRINCIPAL, found) if len(found) == len(self.matchers) else None

    def seen(self, inputs: Inputs) -> str:
        """Issuer and subject."""
        return _shown(request_principal_texts(inputs)) or "no verified token"

    @property
    def wanted(self) -> str:
        """The values as written."""
        return _shown(matcher.text for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class PortClause:
    """`ports`: the proxy's local port."""

    ports: frozenset[int]
    negated: bool
    label: str
    cost: int = 0

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Membership, negated for `not…`."""
        del deny
        return (inputs.port in self.ports) is not self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on the port's text."""
        return None if self.negated else (PORT, tuple(IndexKey("exact", str(port)) for port in sorted(self.ports)))

    def seen(self, inputs: Inputs) -> str:
        """The port."""
        return f"`{inputs.port}`"

    @property
    def wanted(self) -> str:
        """The ports."""
        return _shown(str(port) for port in sorted(self.ports))


@dataclass(frozen=True, slots=True)
class AddressClause:
    """`ipBlocks` and its like; an address of the other family never matches, unless it stands for one of this family.

    `mapped` are the IPv4 blocks that some of `networks` stand for, by IPv4-mapped addresses: compared where the clause
    is read widely.
    """

    dimension: AddressDimension
    networks: tuple[IPv4Network | IPv6Network, ...]
    negated: bool
    label: str
    cost: int = 3
    mapped: tuple[IPv4Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = (mapped_network(network) for network in self.networks)
        object.__setattr__(self, "mapped", tuple(network for network in found if network is not None))

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Membership in any block, negated for `not…`; an address that is not there is in no block, or undecidable."""
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
        """Lookups on the network of each block's length."""
        if self.negated:
            return None
        return self.dimension, tuple(
            IndexKey(f"cidr{network.version}/{network.prefixlen}", str(int(network.network_address)))
            for network in (*self.networks, *self.mapped)
        )

    def seen(self, inputs: Inputs) -> str:
        """The address, and what it stands for."""
        return ", which stands for ".join(f"`{address}`" for address in self.dimension.read(inputs)) or "no address"

    @property
    def wanted(self) -> str:
        """The blocks."""
        return _shown(str(network) for network in self.networks)


def shortened(text: str) -> str:
    """The text for a message: a long one is cut, because a client chooses its length."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _shown(values: Iterable[str]) -> str:
    """A few values for a message; the rest are counted."""
    texts = [f"`{shortened(value)}`" for value in values if value]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more

"""Clauses: what of a request is looked at (`Dimension`), and what it must be (`Clause`).

A clause is the AND-part of a rule: any of its matchers on any of the dimension's values, negated for `not…` fields.
Where the strict reading can't tell a value (a joined header), the clause takes the answer that never widens access:
an ALLOW does not match, a DENY does. `wide` is that answer for the un-negated comparison: `deny != negated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.policy.matchers import IndexKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network

    from zta_authz.policy.inputs import Inputs, Ip
    from zta_authz.policy.matchers import Matcher, RequestPrincipal

_NONE: Final[tuple[str, ...]] = ()


class Dimension(Protocol):
    """Where texts of a request come from. Equal dimensions are one object; `cost` orders clauses, cheap first."""

    name: str
    cost: int

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The texts to compare; None where they can't be told."""
        ...


class Simple:
    """A dimension read by one function."""

    __slots__ = ("_read", "cost", "name")

    def __init__(self, name: str, cost: int, read: Callable[[Inputs], tuple[str, ...]]) -> None:
        self.name = name
        self.cost = cost
        self._read = read

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """What the function reads."""
        del wide
        return self._read(inputs)


class _Hosts:
    name = "host"
    cost = 1

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        return inputs.hosts(wide)


def _request_principal(inputs: Inputs) -> tuple[str, ...]:
    pair = inputs.request_principal
    return (f"{pair[0]}/{pair[1]}",) if pair is not None else _NONE


METHOD: Final = Simple("method", 0, lambda inputs: (inputs.method,))
PATH: Final = Simple("path", 1, lambda inputs: (inputs.path,))
HOST: Final = _Hosts()
PEER: Final = Simple("principal", 1, lambda inputs: inputs.names)
SNI: Final = Simple("sni", 1, lambda inputs: (inputs.sni,))
REQUEST_PRINCIPAL: Final = Simple("request principal", 2, _request_principal)


class HeaderDimension:
    """The values of one request header, each on its own."""

    __slots__ = ("cost", "header", "name")

    def __init__(self, header: str) -> None:
        self.header = header
        self.name = f"header {header}"
        self.cost = 2

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The header's values; None where repeats were joined."""
        del wide
        return None if inputs.ambiguous_header(self.header) else inputs.header(self.header)


class ClaimDimension:
    """The strings at one path in the verified token's payload."""

    __slots__ = ("cost", "name", "path")

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        self.name = "claim " + "".join(f"[{step}]" for step in path)
        self.cost = 2

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The claim's strings."""
        del wide
        return inputs.claim(self.path)


class MetadataDimension:
    """Dynamic metadata of one filter; `listed` reads the strings of a list, else one string."""

    __slots__ = ("cost", "filter", "listed", "name", "path")

    def __init__(self, filter_name: str, path: tuple[str, ...], listed: bool) -> None:
        self.filter = filter_name
        self.path = path
        self.listed = listed
        self.name = f"metadata {filter_name}" + "".join(f"[{step}]" for step in path)
        self.cost = 3

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The metadata's strings."""
        del wide
        value = inputs.metadata(self.filter, self.path)
        if self.listed:
            return tuple(v for v in value if isinstance(v, str)) if isinstance(value, (list, tuple)) else _NONE
        return (value,) if isinstance(value, str) else _NONE


class Clause(Protocol):
    """One AND-part of a rule. `label` names the field as the operator wrote it, with its values."""

    cost: int
    label: str
    negated: bool

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether it holds; `deny` tells the side on which an undecidable value falls."""
        ...

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """The dimension and lookups that find every request this clause holds for; None where there are none."""
        ...

    def seen(self, inputs: Inputs) -> str:
        """What the request has in this place, for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class TextClause:
    """Any matcher on any value of a dimension of texts."""

    dimension: Dimension
    matchers: tuple[Matcher, ...]
    negated: bool
    label: str
    cost: int

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Any match, negated for `not…`."""
        negated = self.negated
        values = self.dimension.values(inputs, deny is not negated)
        if values is None:
            return deny
        for value in values:
            for matcher in self.matchers:
                if matcher.matches(value):
                    return not negated
        return negated

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
        return ", ".join(f"`{value}`" for value in values if value) or "nothing"


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
        return any(m.matches_pair(pair[0], pair[1]) for m in self.matchers) is not self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on `issuer/subject`."""
        if self.negated:
            return None
        found = tuple(m.key for m in self.matchers if m.key is not None)
        return (REQUEST_PRINCIPAL, found) if len(found) == len(self.matchers) else None

    def seen(self, inputs: Inputs) -> str:
        """Issuer and subject."""
        return ", ".join(f"`{text}`" for text in _request_principal(inputs)) or "no verified token"


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


PORT: Final = Simple("port", 0, lambda inputs: (str(inputs.port),))


@dataclass(frozen=True, slots=True)
class AddressDimension:
    """One of the addresses of a connection."""

    name: str
    read: Callable[[Inputs], Ip | None]
    cost: int = 3


SOURCE_IP: Final = AddressDimension("source.ip", lambda inputs: inputs.source_ip)
REMOTE_IP: Final = AddressDimension("remote.ip", lambda inputs: inputs.remote_ip)
DESTINATION_IP: Final = AddressDimension("destination.ip", lambda inputs: inputs.destination_ip)


@dataclass(frozen=True, slots=True)
class AddressClause:
    """`ipBlocks` and its like; an address of the other family never matches."""

    dimension: AddressDimension
    networks: tuple[IPv4Network | IPv6Network, ...]
    negated: bool
    label: str
    cost: int = 3

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Membership in any block, negated for `not…`; an address that is not there is in no block, or undecidable."""
        address = self.dimension.read(inputs)
        if address is None:
            return deny if inputs.strict else self.negated
        return any(address in network for network in self.networks) is not self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """Lookups on the network of each block's length."""
        if self.negated:
            return None
        return self.dimension, tuple(
            IndexKey(f"cidr{network.version}/{network.prefixlen}", str(int(network.network_address)))
            for network in self.networks
        )

    def seen(self, inputs: Inputs) -> str:
        """The address."""
        address = self.dimension.read(inputs)
        return f"`{address}`" if address is not None else "no address"

"""Dimensions: the part of a request that a clause reads. Equal ones are one object, so that an index can group them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.model.changed_headers import folded_name
from zta_authz.model.facts import describe
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.addresses import Ip
    from zta_authz.model.facts import Fact

AUTHORITY_HEADERS: Final = frozenset((":authority", "host"))
_NONE: Final[tuple[str, ...]] = ()


class Dimension(Protocol):
    """A source of texts in a request. Equal dimensions are one object."""

    @property
    def name(self) -> str:
        """The name that operators see."""
        ...

    @property
    def cost(self) -> int:
        """Relative cost of reading it; cheap clauses are tried first."""
        ...

    @property
    def attribute(self) -> str | None:
        """The attribute of `Inputs` that has the texts without `wide`, if one does: reading it costs less."""
        ...

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The texts to compare; None if they are unknown. `wide` adds readings that an upstream may use."""
        ...


class FunctionDimension:
    """A dimension whose `values` is a plain function. Most rules read only these."""

    __slots__ = ("attribute", "cost", "name", "values")

    def __init__(
        self,
        name: str,
        cost: int,
        values: Callable[[Inputs, bool], tuple[str, ...] | None],
        attribute: str | None = None,
    ) -> None:
        self.name = name
        self.cost = cost
        self.values = values
        self.attribute = attribute


def request_principal_texts(inputs: Inputs, _wide: bool = False) -> tuple[str, ...]:
    """`issuer/subject` of the verified token, for lookups and messages; () without one."""
    pair = inputs.request_principal
    return (f"{pair[0]}/{pair[1]}",) if pair is not None else _NONE


METHOD: Final = FunctionDimension("method", 0, lambda inputs, _: inputs.methods, "methods")
PATH: Final = FunctionDimension("path", 1, Inputs.paths, "path_as_received")
HOST: Final = FunctionDimension("host", 1, Inputs.hosts)
PEER: Final = FunctionDimension("principal", 1, lambda inputs, _: inputs.names, "names")
SNI: Final = FunctionDimension("sni", 1, lambda inputs, _: (inputs.sni,))
REQUEST_PRINCIPAL: Final = FunctionDimension("request principal", 2, request_principal_texts)


def _api_client(inputs: Inputs, _wide: bool) -> tuple[str, ...]:
    client = inputs.identity.api_client
    return (client.name,) if client is not None else _NONE


def _api_scopes(inputs: Inputs, _wide: bool) -> tuple[str, ...]:
    client = inputs.identity.api_client
    return client.scopes if client is not None else _NONE


API_CLIENT: Final = FunctionDimension("API client", 1, _api_client)
API_SCOPES: Final = FunctionDimension("API scopes", 1, _api_scopes)


class HeaderDimension:
    """The single values of one request header. `folded` is its name as applications may read it."""

    __slots__ = ("cost", "folded", "header", "name")
    attribute = None

    def __init__(self, header: str) -> None:
        self.header = header
        self.folded = folded_name(header)
        self.name = f"header {header}"
        self.cost = 2

    @property
    def may_repeat(self) -> bool:
        """Whether a request may carry several values, of which an application reads any."""
        return self.header != "host" and not self.header.startswith(":")

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The header's values; None if repeats may have been joined.

        With `wide` in strict mode, the authority is widened like `hosts`, and other headers include those whose names
        an application may read as the same name.
        """
        if wide and self.header in AUTHORITY_HEADERS:
            return (*inputs.header(self.header), *inputs.hosts(wide))
        if inputs.ambiguous_header(self.header):
            return None
        if not (wide and inputs.strict):
            return inputs.header(self.header)
        values = inputs.trimmed_header(self.header)
        others = inputs.other_spellings(self.header, self.folded)
        if not others:
            return values
        if any(inputs.ambiguous_header(other) for other in others):
            return None
        return (*values, *(value for other in others for value in inputs.trimmed_header(other)))


class ClaimDimension:
    """The strings at one path of the verified token's payload."""

    __slots__ = ("cost", "name", "path")
    attribute = None

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        self.name = "claim " + "".join(f"[{step}]" for step in path)
        self.cost = 2

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The claim's strings; with `wide` in strict mode also numbers, `true` and `false` as text."""
        return inputs.claim_as_text(self.path) if wide and inputs.strict else inputs.claim(self.path)


class MetadataDimension:
    """Dynamic metadata of one filter: one string or, if `listed`, the strings of a list."""

    __slots__ = ("cost", "filter", "listed", "name", "path")
    attribute = None

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


PORT: Final = FunctionDimension("port", 0, lambda inputs, _: (str(inputs.port),))


class FactDimension:
    """A fact as text: `true` and `false` for booleans. An unknown fact has no text that could be compared."""

    __slots__ = ("cost", "name", "read")
    attribute = None

    def __init__(self, name: str, read: Callable[[Inputs], Fact]) -> None:
        self.name = name
        self.read = read
        self.cost = 20

    def values(self, inputs: Inputs, wide: bool) -> tuple[str, ...] | None:
        """The fact's text; None for an unknown one."""
        del wide
        fact = self.read(inputs)
        if fact.unknown is not None:
            return None
        value = fact.value
        return (str(value).lower() if isinstance(value, bool) else str(value),)

    def describe(self, inputs: Inputs) -> str:
        """The fact with its state, age and source."""
        return describe(self.read(inputs), inputs.now)


@dataclass(frozen=True, slots=True)
class AddressDimension:
    """An address of the connection. `read` returns it and the IPv4 address that it embeds, if any."""

    name: str
    read: Callable[[Inputs], tuple[Ip, ...]]
    cost: int = 3

    def values(self, inputs: Inputs, wide: bool) -> tuple[Ip, ...] | None:
        """The address; with `wide` in strict mode also the IPv4 address that it embeds; None if it is unknown."""
        addresses = self.read(inputs)
        if not addresses:
            return None
        return addresses if wide and inputs.strict else addresses[:1]


SOURCE_IP: Final = AddressDimension("source.ip", lambda inputs: inputs.source_ips)
REMOTE_IP: Final = AddressDimension("remote.ip", lambda inputs: inputs.remote_ips)
DESTINATION_IP: Final = AddressDimension("destination.ip", lambda inputs: inputs.destination_ips)

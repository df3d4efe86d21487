"""The request as the proxy describes it (`RequestAttributes`), and the peer's unverified `Evidence`."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Headers:
    """Request headers by lower-case name, each with its values in order of arrival.

    `exact` is true if repeated headers arrived separately (Envoy's `encode_raw_headers`, `header_map`). Otherwise each
    name has one value, in which Envoy joined repeats with commas, and a comma may also belong to a value.
    `listing` has the names, one a line; a name that contains a line break looks like two.
    Bytes that are not UTF-8 are surrogate escapes, so that equal text means equal bytes.
    """

    __slots__ = ("_values", "exact", "listing")

    def __init__(self, values: dict[str, tuple[str, ...]], *, exact: bool) -> None:
        """Wrap `values` without a copy: names are in lower case, and each has at least one value."""
        self._values = values
        self.exact = exact
        self.listing = "\n".join(values)

    def all(self, name: str) -> tuple[str, ...]:
        """All values of the header, () if absent. `name` is in lower case."""
        return self._values.get(name, ())

    def joined(self, name: str) -> str | None:
        """The values joined with `,` as in Envoy's header map; None if the header is absent."""
        values = self._values.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else ",".join(values)

    def names(self) -> Iterable[str]:
        """Every header name that is present."""
        return self._values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:  # values may be secrets
        return f"Headers({len(self._values)} names, exact={self.exact})"


NO_HEADERS = Headers({}, exact=True)


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection. For a Unix socket `ip` is "" and `port` is 0."""

    ip: str = ""
    port: int = 0
    text: str = field(init=False, repr=False, compare=False)
    """`ip:port`, with an IPv6 address in brackets; "" for a Unix socket."""

    def __post_init__(self) -> None:
        shown = f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"
        object.__setattr__(self, "text", shown if self.ip else "")


NO_ADDRESS = Address()


class RequestAttributes(msgspec.Struct, frozen=True):
    """One request as the proxy describes it; nothing is verified.

    A Struct, like every object created for each request: creating a frozen dataclass takes six times as long.

    `path` is `:path` as received, with query and fragment and without decoding.
    `request_id` is Envoy's stream id. `metadata` is dynamic metadata by filter name.
    """

    method: str = ""
    path: str = ""
    host: str = ""
    scheme: str = ""
    protocol: str = ""
    headers: Headers = NO_HEADERS
    source: Address = NO_ADDRESS
    destination: Address = NO_ADDRESS
    destination_principal: str = ""
    sni: str = ""
    request_id: str = ""
    context_extensions: Mapping[str, str] = msgspec.field(default_factory=lambda: _EMPTY)
    metadata: Mapping[str, object] = msgspec.field(default_factory=lambda: _EMPTY)


class Evidence(msgspec.Struct, frozen=True):
    """Unverified evidence of the peer's identity; tokens stay in the request's headers and query.

    `principal` is the proxy's name for the peer (first URI SAN, else first DNS SAN, else subject).
    `certificate` is the leaf as Envoy sends it: URL-encoded PEM, "" if absent.
    """

    principal: str = ""
    certificate: str = ""

    def __repr__(self) -> str:
        return f"Evidence(principal={self.principal!r}, certificate of {len(self.certificate)} characters)"


NO_EVIDENCE = Evidence()

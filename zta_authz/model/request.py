"""What the proxy saw (`RequestAttributes`) and what was presented, still unverified (`Evidence`)."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Headers:
    """Request headers by lower-case name, each with its values in the order of arrival.

    `exact` tells whether repeats arrived apart (Envoy's `encode_raw_headers`, `header_map`). Where they did not, each
    name has one value in which Envoy joined repeats with commas, and a comma may stand for either.
    Values are text in which bytes that are not UTF-8 are surrogate escapes, so that equal text means equal bytes.
    """

    __slots__ = ("_values", "exact")

    def __init__(self, values: dict[str, tuple[str, ...]], *, exact: bool) -> None:
        """Take `values` as they are: names in lower case, no name without a value."""
        self._values = values
        self.exact = exact

    def all(self, name: str) -> tuple[str, ...]:
        """Each value of the header, () where it is absent. `name` is in lower case."""
        return self._values.get(name, ())

    def joined(self, name: str) -> str | None:
        """The values joined with `,` as Envoy's header map shows them; None where the header is absent."""
        values = self._values.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else ",".join(values)

    def names(self) -> Iterable[str]:
        """Every header name that is present."""
        return self._values

    def listing(self) -> str:
        """The names, a line each; there may be others in it."""
        return "\n".join(self._values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:  # values may be secrets
        return f"Headers({len(self._values)} names, exact={self.exact})"


NO_HEADERS = Headers({}, exact=True)


@dataclass(frozen=True, slots=True)
class Address:
    """One end of a connection. `ip` is "" where the proxy gave none (a Unix socket), `port` is 0 then."""

    ip: str = ""
    port: int = 0


NO_ADDRESS = Address()


class RequestAttributes(msgspec.Struct, frozen=True):
    """One request as the proxy describes it: facts of the wire, nothing verified.

    A Struct, like all that is made for each request: a frozen dataclass takes six times as long to make.

    `path` is `:path` as it came: query and fragment included, no decoding.
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
    """What was presented for the peer's identity; tokens stay in the request's headers and query.

    `principal` is the proxy's word for the peer (first URI SAN, else first DNS SAN, else subject).
    `certificate` is the leaf as Envoy sends it: URL-encoded PEM, "" where there is none.
    """

    principal: str = ""
    certificate: str = ""

    def __repr__(self) -> str:
        return f"Evidence(principal={self.principal!r}, certificate of {len(self.certificate)} characters)"


NO_EVIDENCE = Evidence()

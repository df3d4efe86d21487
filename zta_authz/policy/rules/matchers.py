"""Matchers: compare one value of a rule with one value of a request.

Istio's string forms (security.istio.io AuthorizationPolicy, "value matching"), tested in this order, case-sensitive:
`*` any non-empty text, `*x` suffix, `x*` prefix, else exact. Other `*` are literal.

Matchers are immutable and interned by the compiler, so that equal ones are one object.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Protocol


@dataclass(frozen=True, slots=True)
class IndexKey:
    """The index entry that finds a matcher without trying it: `form` names the kind of lookup, `text` the key.

    Forms: `exact`, `prefix` and `suffix` of the whole value; `namespace` and `account`, segments of a SPIFFE ID;
    `template`, a path template's text; `cidr<version>/<length>`, an address block's number.
    """

    form: str
    text: str


class Matcher(Protocol):
    """Compares one text."""

    @property
    def text(self) -> str:
        """The value about as the operator wrote it."""
        ...

    @property
    def key(self) -> IndexKey | None:
        """The lookup that finds every text this matcher can match; None if it can only be tried."""
        ...

    def matches(self, text: str) -> bool:
        """Whether `text` matches."""
        ...


@dataclass(frozen=True, slots=True)
class Exact:
    """Equal to `value`."""

    value: str

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return self.value

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the value."""
        return IndexKey("exact", self.value)

    def matches(self, text: str) -> bool:
        """Whether `text` equals the value."""
        return text == self.value


@dataclass(frozen=True, slots=True)
class Prefix:
    """Starts with `value`."""

    value: str

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return f"{self.value}*"

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the prefix."""
        return IndexKey("prefix", self.value)

    def matches(self, text: str) -> bool:
        """Whether `text` starts with the value."""
        return text.startswith(self.value)


@dataclass(frozen=True, slots=True)
class Suffix:
    """Ends with `value`; `after` must come before it without overlap (`spiffe://` for principals)."""

    value: str
    after: str = ""

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return f"*{self.value}"

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the suffix."""
        return IndexKey("suffix", self.value)

    def matches(self, text: str) -> bool:
        """Whether `text` starts with `after` and ends with the value, without overlap."""
        return (
            text.endswith(self.value) and text.startswith(self.after) and len(text) >= len(self.value) + len(self.after)
        )


@dataclass(frozen=True, slots=True)
class Present:
    """Any text; the empty one only if `even_empty` (headers, hosts).

    `one_line` excludes texts with a line feed, as Istio's `.+` does in RE2.
    """

    even_empty: bool = False
    one_line: bool = False

    @property
    def text(self) -> str:
        """The value as the operator wrote it."""
        return "*"

    @property
    def key(self) -> IndexKey | None:
        """No lookup: nearly every text matches."""
        return None

    def matches(self, text: str) -> bool:
        """Whether `text` is not empty, or may be empty."""
        return self.even_empty or (bool(text) and not (self.one_line and "\n" in text))


def string_matcher(value: str) -> Matcher:
    """The matcher for Istio's generic string form; `value` is not empty."""
    if value == "*":
        return Present()
    if value.startswith("*"):
        return Suffix(value[1:])
    if value.endswith("*"):
        return Prefix(value[:-1])
    return Exact(value)


def header_matcher(value: str) -> Matcher:
    """The generic form, in which `*` also matches an empty value."""
    return Present(even_empty=True) if value == "*" else string_matcher(value)


def host_matcher(value: str) -> Matcher:
    """The generic form, ignoring case: the texts to compare are in lower case. `*` means present."""
    return header_matcher(ascii_lower(value))


def ascii_lower(text: str) -> str:
    """Lower only A-Z: `str.lower` would also turn the Kelvin sign into `k`."""
    return (
        text.lower()
        if text.isascii()
        else text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    )


def parse_network(value: str) -> IPv4Network | IPv6Network:
    """Parse an address or CIDR block; host bits are cleared, as Envoy does.

    Raises:
        ValueError: with a message for the operator.
    """
    if "%" in value:
        raise ValueError("an address block has no zone")
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("not an IP address or CIDR block") from None


def parse_port(value: str) -> int:
    """Parse a decimal port.

    Raises:
        ValueError: with a message for the operator.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise ValueError("a port is a decimal number from 0 to 65535")
    return int(value)

"""How one value of a rule is compared with one value of a request.

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
    """How a matcher can be found by looking up instead of trying: `form` names the lookup, `text` the entry.

    Forms: `exact`, `prefix`, `suffix` on the whole value; `template` with the template's text.
    """

    form: str
    text: str


class Matcher(Protocol):
    """Compares one text. `key` is None where only trying helps."""

    @property
    def text(self) -> str:
        """About as the operator wrote it."""
        ...

    @property
    def key(self) -> IndexKey | None:
        """The lookup that finds every text this matcher can match."""
        ...

    def matches(self, text: str) -> bool:
        """True where the text is meant."""
        ...


@dataclass(frozen=True, slots=True)
class Exact:
    """Equal to `value`."""

    value: str

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return self.value

    @property
    def key(self) -> IndexKey | None:
        """Found by its value."""
        return IndexKey("exact", self.value)

    def matches(self, text: str) -> bool:
        """Equality."""
        return text == self.value


@dataclass(frozen=True, slots=True)
class Prefix:
    """Starts with `value`."""

    value: str

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return f"{self.value}*"

    @property
    def key(self) -> IndexKey | None:
        """Found by its prefix."""
        return IndexKey("prefix", self.value)

    def matches(self, text: str) -> bool:
        """Starts with."""
        return text.startswith(self.value)


@dataclass(frozen=True, slots=True)
class Suffix:
    """Ends with `value`; `after` must come before it without overlap (`spiffe://` for principals)."""

    value: str
    after: str = ""

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return f"*{self.value}"

    @property
    def key(self) -> IndexKey | None:
        """Found by its suffix."""
        return IndexKey("suffix", self.value)

    def matches(self, text: str) -> bool:
        """Ends with, and starts with `after` before that."""
        return (
            text.endswith(self.value) and text.startswith(self.after) and len(text) >= len(self.value) + len(self.after)
        )


@dataclass(frozen=True, slots=True)
class Present:
    """Any text; the empty one only if `even_empty` (headers, hosts).

    With `one_line` it is Istio's `.+` as RE2 reads it, to which a line feed is not a `.`.
    """

    even_empty: bool = False
    one_line: bool = False

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return "*"

    @property
    def key(self) -> IndexKey | None:
        """Nearly everything is present: no lookup narrows it."""
        return None

    def matches(self, text: str) -> bool:
        """Not empty, or empty where that counts."""
        return self.even_empty or (bool(text) and not (self.one_line and "\n" in text))


def string_matcher(value: str) -> Matcher:
    """Istio's generic string form; `value` is not empty."""
    if value == "*":
        return Present()
    if value.startswith("*"):
        return Suffix(value[1:])
    if value.endswith("*"):
        return Prefix(value[:-1])
    return Exact(value)


def header_matcher(value: str) -> Matcher:
    """The generic form, but `*` is met by an empty value too."""
    return Present(even_empty=True) if value == "*" else string_matcher(value)


def host_matcher(value: str) -> Matcher:
    """The generic form without regard to case; texts are given in lower case. `*` means present."""
    return header_matcher(ascii_lower(value))


def ascii_lower(text: str) -> str:
    """`text` with A-Z in lower case and nothing else changed: `str.lower` takes the Kelvin sign for a `k`."""
    return (
        text.lower()
        if text.isascii()
        else text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")
    )


def parse_network(value: str) -> IPv4Network | IPv6Network:
    """An address or CIDR block; host bits are cut off, as Envoy does. Raises ValueError saying what is wrong."""
    if "%" in value:
        raise ValueError("an address here has no zone")
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("not an IP address or CIDR block") from None


def parse_port(value: str) -> int:
    """A port in decimal. Raises ValueError saying what is wrong."""
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise ValueError("a port is a decimal number from 0 to 65535")
    return int(value)


def cut_query(path: str) -> str:
    """The path without query and fragment."""
    if "?" in path:
        path = path[: path.index("?")]
    return path[: path.index("#")] if "#" in path else path

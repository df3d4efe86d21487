"""Header lines as they came in a CheckRequest, each read when it is first asked for: rules look at few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.model.request import Headers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from zta_authz._proto.ext_authz_pb2 import HeaderValue

    Value = tuple[str, ...] | HeaderValue
    """The values of a name or, where it came once and nobody has asked yet, its line."""

_NONE: tuple[str, ...] = ()


class HeaderLines(Headers):
    """Exact headers, some of them still to be read."""

    __slots__ = ("_listing",)

    def __init__(self, values: dict[str, Value], listing: str) -> None:
        """Take `values` as they are: names in lower case. `listing` has those names, and may have others."""
        self._values = values  # type: ignore[assignment]  # what is read through `all` is text
        self._listing = listing
        self.exact = True

    def listing(self) -> str:
        """Every header name that is present, and perhaps others, a line each."""
        return self._listing

    def all(self, name: str) -> tuple[str, ...]:
        """Each value of the header, () where it is absent. `name` is in lower case."""
        found: Value | None = self._values.get(name)
        if found is None:
            return _NONE
        if not isinstance(found, tuple):
            found = self._values[name] = (text_of(found),)
        return found

    def joined(self, name: str) -> str | None:
        """The values joined with `,` as Envoy's header map shows them; None where the header is absent."""
        if name not in self._values:
            return None
        values = self.all(name)
        return values[0] if len(values) == 1 else ",".join(values)


def lines_by_name(lines: Collection[HeaderValue]) -> tuple[dict[str, Value], str]:
    """Header lines by lower-case name, and the names, a line each.

    Nearly all requests repeat no name and write all in lower case: then nothing is done name by name.
    """
    values: dict[str, Value] = {line.key: line for line in lines}
    listing = "\n".join(values)
    if len(values) == len(lines) and listing.lower() == listing:
        return values, listing
    values = {**grouped((line.key, text_of(line)) for line in lines)}
    return values, "\n".join(values)


def grouped(lines: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Values by lower-case name in the order of arrival; linear in the number of lines, however they repeat."""
    values: dict[str, list[str]] = {}
    for name, value in lines:
        values.setdefault(name.lower(), []).append(value)
    return {name: tuple(each) for name, each in values.items()}


def first_text(value: Value) -> str:
    """The first of a name's values."""
    return value[0] if isinstance(value, tuple) else text_of(value)


def text_of(line: HeaderValue) -> str:
    """A line's value; bytes that are not UTF-8 become surrogate escapes."""
    raw = line.raw_value
    try:
        return raw.decode() or line.value
    except UnicodeDecodeError:
        return raw.decode("utf-8", "surrogateescape")

"""Write readable YAML: with comments, a deliberate order of keys, and short mappings on one line.

Comments and orders are looked up by path. A path has the keys to a value, joined by dots, starting at the nearest named
message: `ExtAuthz.grpc_service.timeout`, `Cluster[zta_authz].health_checks`.
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WIDTH: Final = 118
_FLOW_WIDTH: Final = 100
_PLAIN: Final = re.compile(r"(?:[A-Za-z/][A-Za-z0-9_./-]*|[0-9]+(?:\.[0-9]+)?s)\Z")
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_NAMED: Final = {"clusters": "Cluster", "listeners": "Listener", "filters": "Filter", "http_filters": "HttpFilter"}
"""Lists whose items start a new path."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """Comments by path, and the keys that come first in some mappings."""

    notes: Mapping[str, str]
    order: Mapping[str, tuple[str, ...]]


def render(mapping: Mapping[str, Any], path: str, annotations: Annotations, indent: int = 0) -> str:
    """Write `mapping`, whose path is `path`, as YAML text. The result is deterministic and ends with a line end."""
    return "".join(f"{line}\n" for line in _Writer(annotations).mapping(mapping, path, indent))


def comment(text: str, indent: int = 0) -> list[str]:
    """Return comment lines. Lines of `text` that start with a space are kept, the others are wrapped."""
    start = " " * indent + "#"
    lines: list[str] = []
    for line in text.splitlines():
        width = _WIDTH - len(start) - 1
        kept = [line] if not line or line.startswith(" ") else _wrapped(line, width)
        lines += [f"{start} {line}".rstrip() for line in kept]
    return lines


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)


def scalar(value: object) -> str:
    """Write a scalar that YAML 1.1, YAML 1.2 and JSON parsers read alike. Text is quoted unless clearly safe."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return json.dumps(value)
    text = str(value)
    if _PLAIN.match(text) and text.lower() not in _WORDS:
        return text
    return f'"{"".join(map(_quoted, text))}"'


def _quoted(char: str) -> str:
    """Escape one character of a double-quoted scalar (YAML 1.2, section 5.7)."""
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


class _Writer:
    def __init__(self, annotations: Annotations) -> None:
        self._notes = annotations.notes
        self._order = annotations.order

    def mapping(self, mapping: Mapping[str, Any], path: str, indent: int) -> Iterator[str]:
        first = ("@type", "name", *self._order.get(path, ()))
        rank = {key: position for position, key in enumerate(first)}
        for key in sorted(mapping, key=lambda key: rank.get(key, len(rank))):
            here = f"{path}.{key}"
            yield from comment(self._notes.get(here, ""), indent)
            yield from self._entry(key, mapping[key], here, indent)

    def _entry(self, key: str, value: Any, here: str, indent: int) -> Iterator[str]:
        start = f"{' ' * indent}{scalar(key)}:"
        flow = self._flow(value, here)
        fits = flow and len(start) + len(flow) < _FLOW_WIDTH
        if fits or not value or not isinstance(value, dict | list):
            yield f"{start} {flow}"
        elif isinstance(value, dict):
            yield start
            yield from self.mapping(value, _path_of(value, here), indent + 2)
        else:
            yield start
            for item in value:
                yield from self._item(item, _path_of_item(item, here, key), indent + 2)

    def _item(self, item: Any, path: str, indent: int) -> Iterator[str]:
        if not isinstance(item, dict):
            yield f"{' ' * indent}- {scalar(item)}"
            return
        yield from comment(self._notes.get(path, ""), indent)
        dashed = False
        for line in self.mapping(item, path, indent + 2):
            if dashed:
                yield line
            elif line.lstrip().startswith("#"):
                yield line[2:]
            else:
                yield f"{' ' * indent}- {line[indent + 2 :]}"
                dashed = True

    def _flow(self, value: Any, here: str) -> str:
        """Write the value on one line; "" if it has comments, a type or a list of mappings inside."""
        if isinstance(value, list):
            return "" if any(isinstance(item, dict) for item in value) else f"[{', '.join(map(scalar, value))}]"
        if not isinstance(value, dict):
            return scalar(value)
        if "@type" in value or any(note.startswith(f"{here}.") for note in self._notes):
            return ""
        items = {scalar(key): self._flow(item, f"{here}.{key}") for key, item in value.items()}
        return "" if "" in items.values() else "{" + ", ".join(f"{key}: {item}" for key, item in items.items()) + "}"


def _path_of(value: Mapping[str, Any], here: str) -> str:
    kind = str(value.get("@type", "")).rpartition(".")[2]
    return kind or here


def _path_of_item(item: Any, here: str, key: str) -> str:
    named = _NAMED.get(key)
    return f"{named}[{item.get('name', '')}]" if named and isinstance(item, dict) else f"{here}[]"

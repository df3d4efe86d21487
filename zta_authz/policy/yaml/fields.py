"""Typed access to YAML nodes: each accessor returns the value or reports a fault with its position and a hint."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from zta_authz.errors import Fault
from zta_authz.model.documents import Position
from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Reader:
    """Reads the nodes of one source and collects their faults.

    The shifts are added to lines and columns: a document in a ConfigMap's block text starts lower and further right.
    """

    __slots__ = ("_column_shift", "_line_shift", "faults", "source")

    def __init__(self, source: str, faults: list[Fault], line_shift: int = 0, column_shift: int = 0) -> None:
        self.source = source
        self.faults = faults
        self._line_shift = line_shift
        self._column_shift = column_shift

    def position(self, node: Node) -> Position:
        """The node's position in the file."""
        return Position(self.source, node.line + self._line_shift, node.column + self._column_shift)

    def fault(self, node: Node, message: str, hint: str = "") -> None:
        """Report a fault of `node`."""
        at = self.position(node)
        self.faults.append(Fault(at.source, at.line, at.column, message, hint))

    def mapping(self, node: Node, name: str, known: Collection[str]) -> Mapping | None:
        """A mapping; None, with a fault, for any other node. Keys that are not `known` are faults."""
        if not isinstance(node, Mapping):
            self._wrong_kind(node, name, "a mapping of fields")
            return None
        for text, (key, _) in node.entries.items():
            if text not in known:
                near = [name for name in known if name.lower() == text.lower()] or get_close_matches(text, known, 1)
                hint = f"did you mean `{near[0]}`?" if near else f"known fields: {', '.join(sorted(known)) or 'none'}"
                self.fault(key, f"unknown field `{text}` in {name}", hint)
        return node

    def string(self, node: Node, name: str, *, empty: bool = False) -> str | None:
        """A string; None, with a fault, for any other node."""
        if not isinstance(node, Scalar) or node.kind != "string":
            self._wrong_kind(node, name, "a string")
            return None
        if not node.value and not empty:
            self.fault(node, f"`{name}` is empty", "write a value or remove the field")
            return None
        return node.value

    def boolean(self, node: Node, name: str) -> bool | None:
        """`true` or `false`; None, with a fault, for any other node."""
        if isinstance(node, Scalar) and node.plain and node.value in ("true", "false"):
            return node.value == "true"
        self._wrong_kind(node, name, "`true` or `false`")
        return None

    def items(self, node: Node, name: str, what: str) -> list[Node]:
        """The items of a non-empty list; [], with a fault, for any other node."""
        if not isinstance(node, Sequence):
            self._wrong_kind(node, name, f"a list of {what}")
            return []
        if not node.items:
            self.fault(node, f"`{name}` is an empty list", f"list at least one of the {what}, or remove the field")
        return node.items

    def strings(self, node: Node, name: str) -> list[Scalar]:
        """The nodes of a list of non-empty strings; any other item is a fault and skipped."""
        return [
            item
            for item in self.items(node, name, "strings")
            if self.string(item, name) is not None and isinstance(item, Scalar)
        ]

    def string_map(self, node: Node, name: str) -> dict[str, str]:
        """A mapping of strings to strings; any other value is a fault and skipped."""
        if not isinstance(node, Mapping):
            self._wrong_kind(node, name, "a mapping of strings")
            return {}
        for text, (key, _) in node.entries.items():
            if key.kind != "string":  # Kubernetes would rename it: `on` becomes "true"
                self.fault(key, f"`{name}` has the {key.kind} `{text}` as a key", f'write it in quotes: "{text}"')
        values = ((key, self.string(value, f"{name}.{key}", empty=True)) for key, value in entries(node))
        return {key: value for key, value in values if value is not None}

    def required(self, node: Mapping, field: str, name: str) -> Node | None:
        """The value of a required field; None, with a fault, if it is missing."""
        value = node.get(field)
        if value is None:
            self.fault(node, f"{name} has no `{field}`", f"add `{field}`")
        return value

    def _wrong_kind(self, node: Node, name: str, expected: str) -> None:
        label = name if "`" in name else f"`{name}`"
        if isinstance(node, Scalar) and node.kind == "null":
            self.fault(
                node, f"{label} has no value where {expected} is expected", "write the value or remove the field"
            )
        elif isinstance(node, Scalar) and node.kind != "string" and expected == "a string":
            message = f"{label} has the {node.kind} `{_shown(node.value)}` where a string is expected"
            self.fault(node, message, f'write it in quotes: "{_shown(node.value)}"')
        elif isinstance(node, Scalar) and node.kind == "boolean":
            self.fault(node, f"{label} is `{_shown(node.value)}` where {expected} is expected", f"write {expected}")
        else:
            self.fault(node, f"{label} is {with_article(node.kind)} where {expected} is expected", f"write {expected}")


def entries(node: Mapping) -> Iterator[tuple[str, Node]]:
    """The keys and values of a mapping."""
    for key, (_, value) in node.entries.items():
        yield key, value


def _shown(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def with_article(kind: str) -> str:
    """Prefix `kind` with its article: `a string`, `an integer`."""
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"

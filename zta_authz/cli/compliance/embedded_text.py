"""Texts inside ConfigMaps (settings, policies, Envoy configurations), with their places in the file around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zta_authz.cli.compliance.values import FieldLocation
from zta_authz.errors import Fault
from zta_authz.policy.yaml.nodes import Scalar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.cli.compliance.values import Document, Value


@dataclass(frozen=True, slots=True)
class EmbeddedText:
    """The text of one key. `name` is what it is called while it is read on its own.

    `exact`: it is written as a block, so that its first line stands `shift` lines and `indent` columns into the file.
    """

    name: str
    source: str
    text: str
    exact: bool
    shift: int
    indent: int

    @property
    def shown_source(self) -> str:
        """The file, with the key in brackets where lines of the text can't be told in it."""
        return self.source if self.exact else self.name

    def fault(self, fault: Fault) -> Fault:
        """A fault that was found in the text alone, at its place in the file."""
        if not self.exact or not fault.line:
            return Fault(self.shown_source, fault.line, fault.column, fault.message, fault.hint)
        return Fault(self.source, fault.line + self.shift, fault.column + self.indent, fault.message, fault.hint)


def embedded_text(document: Document, key: str, value: Value, lines: Mapping[str, list[str]]) -> EmbeddedText:
    """The text of `value`, which stands under `key` of ConfigMap `document`; `lines` are those of each file."""
    node = value.node
    name = f"{value.source}[{document.namespace}/{document.name}/{key}]"
    text = node.value if isinstance(node, Scalar) else ""
    written = lines.get(value.source, [])
    if not written[node.line - 1 : node.line] or not written[node.line - 1][node.column - 1 :].startswith("|"):
        return EmbeddedText(name, value.source, text, False, 0, 0)
    first = next((line for line in written[node.line :] if line.strip()), "")
    return EmbeddedText(name, value.source, text, True, node.line, len(first) - len(first.lstrip(" ")))


class EmbeddedTexts:
    """All texts that were read on their own, to find their places again."""

    def __init__(self) -> None:
        self._by_name: dict[str, EmbeddedText] = {}

    def add(self, embedded: EmbeddedText) -> EmbeddedText:
        """Remember `inner`."""
        self._by_name[embedded.name] = embedded
        return embedded

    def location(self, source: str, line: int, field: str) -> FieldLocation:
        """The place of line `line` of `source`, which may be one of the texts."""
        embedded = self._by_name.get(source)
        if embedded is None:
            return FieldLocation(source, line, field)
        return FieldLocation(embedded.shown_source, line + embedded.shift, field)

    def faults(self, faults: Iterable[Fault]) -> list[Fault]:
        """The faults with their places in files."""
        return [
            self._by_name[fault.source].fault(fault) if fault.source in self._by_name else fault for fault in faults
        ]

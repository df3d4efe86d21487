"""Texts inside ConfigMaps (settings, policies, Envoy configurations), with their locations in the manifest."""

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
    """The text of one key. `name` is its source name while the text is parsed.

    `exact`: the text is a YAML block, so its first line is at `shift` lines and `indent` columns of the file.
    """

    name: str
    source: str
    text: str
    exact: bool
    shift: int
    indent: int

    @property
    def shown_source(self) -> str:
        """The file, with the key in brackets if lines of the text can't be mapped to lines of the file."""
        return self.source if self.exact else self.name

    def fault(self, fault: Fault) -> Fault:
        """Map a fault in the text to its location in the file."""
        if not self.exact or not fault.line:
            return Fault(self.shown_source, fault.line, fault.column, fault.message, fault.hint)
        return Fault(self.source, fault.line + self.shift, fault.column + self.indent, fault.message, fault.hint)


def embedded_text(document: Document, key: str, value: Value, lines: Mapping[str, list[str]]) -> EmbeddedText:
    """Return the text `value` under `key` of ConfigMap `document`. `lines` are the lines of each file."""
    node = value.node
    name = f"{value.source}[{document.namespace}/{document.name}/{key}]"
    text = node.value if isinstance(node, Scalar) else ""
    written = lines.get(value.source, [])
    if not written[node.line - 1 : node.line] or not written[node.line - 1][node.column - 1 :].startswith("|"):
        return EmbeddedText(name, value.source, text, False, 0, 0)
    first = next((line for line in written[node.line :] if line.strip()), "")
    return EmbeddedText(name, value.source, text, True, node.line, len(first) - len(first.lstrip(" ")))


class EmbeddedTexts:
    """The texts that were parsed, to map their lines to files."""

    def __init__(self) -> None:
        self._by_name: dict[str, EmbeddedText] = {}

    def add(self, embedded: EmbeddedText) -> EmbeddedText:
        """Remember `inner`."""
        self._by_name[embedded.name] = embedded
        return embedded

    def location(self, source: str, line: int, field: str) -> FieldLocation:
        """Return the location of line `line` of `source`, which may be one of the texts."""
        embedded = self._by_name.get(source)
        if embedded is None:
            return FieldLocation(source, line, field)
        return FieldLocation(embedded.shown_source, line + embedded.shift, field)

    def faults(self, faults: Iterable[Fault]) -> list[Fault]:
        """Map faults to their locations in files."""
        return [
            self._by_name[fault.source].fault(fault) if fault.source in self._by_name else fault for fault in faults
        ]

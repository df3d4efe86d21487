"""Parse YAML text to nodes with positions. Strict and bounded.

Faults, each with its position: syntax errors, duplicate keys, keys that are not strings, tags, too many aliases, too
deep nesting, and texts that are too large. The parser reads PyYAML's events directly, because PyYAML's node tree costs
six times as much and its constructor drops positions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence as Seq

MAX_TEXT_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_ALIASES: Final = 256
"""Aliases per document. They are references, so this bounds the time of walks over the tree, not memory."""
MAX_ALIAS_NODES: Final = 100_000
"""Nodes that all aliases of a document may expand to, so that a "billion laughs" document is refused early."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)")
_TRUE = frozenset(("y", "yes", "true", "on"))
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9].*)?")


class Scalar:
    """A leaf. `plain` is True if it has no quotes, so that YAML may read it as another type than a string."""

    __slots__ = ("column", "line", "plain", "value")

    def __init__(self, value: str, plain: bool, line: int, column: int) -> None:
        self.value = value
        self.plain = plain
        self.line = line
        self.column = column

    @property
    def kind(self) -> str:
        """The type in YAML 1.1: `string`, `null`, `boolean`, `integer`, `number` or `timestamp`."""
        return _plain_kind(self.value) if self.plain else "string"


class Sequence:
    """A list of nodes."""

    __slots__ = ("column", "items", "line")
    kind = "list"

    def __init__(self, line: int, column: int) -> None:
        self.items: list[Node] = []
        self.line = line
        self.column = column


class Mapping:
    """A mapping; `entries` has the (key, value) nodes by the key's text."""

    __slots__ = ("column", "entries", "line")
    kind = "mapping"

    def __init__(self, line: int, column: int) -> None:
        self.entries: dict[str, tuple[Scalar, Node]] = {}
        self.line = line
        self.column = column

    def get(self, key: str) -> Node | None:
        """The value of `key`, None if absent."""
        entry = self.entries.get(key)
        return None if entry is None else entry[1]


Node = Scalar | Sequence | Mapping


def _plain_kind(text: str) -> str:
    first = text[:1]
    if first.isalpha() or first in ("", "~"):
        if _NULL.fullmatch(text):
            return "null"
        return "boolean" if len(text) <= 5 and _BOOL.fullmatch(text) else "string"
    if first not in "+-.0123456789":
        return "string"
    if _INT.fullmatch(text):
        return "integer"
    if _FLOAT.fullmatch(text) or _SEXAGESIMAL.fullmatch(text):
        return "number"
    return "timestamp" if _TIMESTAMP.fullmatch(text) else "string"


def to_plain(node: Node) -> Any:
    """Convert the node to str, int, float, bool, None, list and dict. Timestamps and sexagesimals stay text."""
    if isinstance(node, Mapping):
        return {key: to_plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, Sequence):
        return [to_plain(item) for item in node.items]
    match node.kind:
        case "null":
            return None
        case "boolean":
            return node.value.lower() in _TRUE
        case "integer":
            return _to_int(node.value)
        case "number":
            return _to_float(node.value)
    return node.value


def _to_int(text: str) -> int | str:
    digits = text.replace("_", "")
    unsigned = digits.lstrip("+-")
    if len(unsigned) > 1 and unsigned[0] == "0" and unsigned[1] in "01234567":
        digits = digits.replace("0", "0o", 1)  # YAML 1.1 octal
    try:
        return int(digits, 0)
    except ValueError:
        return text


def _to_float(text: str) -> float | str:
    try:
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text


def locate(node: Node, path: Seq[str | int]) -> Node:
    """The deepest existing node on `path` (keys and indices) below `node`."""
    for step in path:
        below: Node | None = None
        if isinstance(node, Mapping):
            below = node.get(str(step))
        elif isinstance(node, Sequence) and isinstance(step, int) and 0 <= step < len(node.items):
            below = node.items[step]
        if below is None:
            break
        node = below
    return node


class _InvalidDocument(Exception):
    def __init__(self, event: Any, message: str, hint: str) -> None:
        self.line = event.start_mark.line + 1
        self.column = event.start_mark.column + 1
        self.message = message
        self.hint = hint


class _Builder:
    """Builds the nodes of one document from events."""

    def __init__(self, source: str, events: Iterator[Any], faults: list[Fault]) -> None:
        self._source = source
        self._events = events
        self._faults = faults
        self._anchors: dict[str, Node] = {}
        self._sizes: dict[str, int] = {}
        self._aliases = 0
        self._alias_nodes = 0
        self._nodes = 0

    def _fault(self, line: int, column: int, message: str, hint: str) -> None:
        self._faults.append(Fault(self._source, line, column, message, hint))

    def build(self, event: Any, depth: int) -> Node:
        kind = type(event)
        mark = event.start_mark
        self._nodes += 1
        before = self._nodes
        if kind is yaml.AliasEvent:
            return self._alias(event)
        if event.tag is not None and not (kind is yaml.ScalarEvent and event.tag == "!"):
            raise _InvalidDocument(event, f"tag `{event.tag}` is not allowed", "write the value without a tag")
        if depth > MAX_DEPTH:
            raise _InvalidDocument(event, f"nesting is deeper than {MAX_DEPTH} levels", "flatten the document")
        node: Node
        if kind is yaml.ScalarEvent:
            node = Scalar(event.value, event.implicit[0], mark.line + 1, mark.column + 1)
        elif kind is yaml.SequenceStartEvent:
            node = Sequence(mark.line + 1, mark.column + 1)
            self._fill_sequence(node, depth)
        else:
            node = Mapping(mark.line + 1, mark.column + 1)
            self._fill_mapping(node, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
            self._sizes[event.anchor] = self._nodes + self._alias_nodes - before + 1
        return node

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _InvalidDocument(event, f"alias `*{event.anchor}` has no anchor before it", "define the anchor first")
        self._aliases += 1
        self._alias_nodes += self._sizes[event.anchor]
        if self._aliases > MAX_ALIASES or self._alias_nodes > MAX_ALIAS_NODES:
            raise _InvalidDocument(
                event,
                f"aliases expand to too much (at most {MAX_ALIASES} a document, {MAX_ALIAS_NODES} nodes in all)",
                "write the values out",
            )
        return node

    def _fill_sequence(self, node: Sequence, depth: int) -> None:
        append = node.items.append
        for event in self._events:
            if type(event) is yaml.SequenceEndEvent:
                return
            append(self.build(event, depth + 1))

    def _fill_mapping(self, node: Mapping, depth: int) -> None:
        entries = node.entries
        for event in self._events:
            if type(event) is yaml.MappingEndEvent:
                return
            key = self.build(event, depth + 1)
            value = self.build(next(self._events), depth + 1)
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            if not isinstance(key, Scalar):
                self._fault(line, column, f"a key is a {key.kind}, not a string", "write a plain key")
            elif key.plain and key.value == "<<":
                self._fault(line, column, "merge keys (`<<`) are not allowed", "write the fields out")
            elif key.value in entries:
                first = entries[key.value][0]
                self._fault(
                    line, column, f"duplicate key `{key.value}` (first at line {first.line})", "remove one of the two"
                )
            else:
                entries[key.value] = (key, value)


def read_documents(source: str, text: str, faults: list[Fault]) -> list[Node]:
    """All non-empty documents of `text`; see `iter_documents`."""
    return list(iter_documents(source, text, faults))


def iter_documents(source: str, text: str, faults: list[Fault]) -> Iterator[Node]:
    """Yield the non-empty documents of `text` one at a time, so that a large file's nodes are not all in memory.

    Errors are appended to `faults`. Reading stops at a syntax error, and continues after other faults such as duplicate
    keys, so that one run reports as many as possible.
    """
    if len(text) > MAX_TEXT_BYTES:
        size = len(text) / 1_048_576
        limit = MAX_TEXT_BYTES // 1_048_576
        faults.append(
            Fault(
                source,
                1,
                1,
                f"the file has {size:.1f} MiB, more than the limit of {limit} MiB",
                "split it into several files",
            )
        )
        return
    try:
        events = iter(yaml.parse(text, Loader=_LOADER))
        for event in events:
            if type(event) is yaml.DocumentStartEvent:
                first = next(events)
                node = _Builder(source, events, faults).build(first, 0)
                if not (isinstance(node, Scalar) and node.kind == "null"):
                    yield node
    except _InvalidDocument as error:
        faults.append(Fault(source, error.line, error.column, error.message, error.hint))
    except yaml.MarkedYAMLError as error:
        faults.append(_syntax_fault(source, error))
    except yaml.reader.ReaderError as error:
        faults.append(_unreadable(source, text, error.character))
    except UnicodeEncodeError as error:  # libyaml reads UTF-8, which has no lone surrogates
        faults.append(_unreadable(source, text, text[error.start]))


def _syntax_fault(source: str, error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    what = " ".join(part for part in (error.problem, error.context) if part)
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return Fault(source, line, column, f"not valid YAML: {what}", "check indentation, quotes and brackets here")


def _unreadable(source: str, text: str, character: str | int) -> Fault:
    """A fault at the first position of a character that YAML forbids. libyaml's own position counts bytes."""
    shown = chr(character) if isinstance(character, int) else character
    at = max(text.find(shown), 0)
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    message = f"not valid YAML: character U+{ord(shown):04X} is not allowed"
    return Fault(source, line, column, message, "save the file as UTF-8 text")

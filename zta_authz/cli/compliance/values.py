"""Values of manifests with their location: file, line, object, and path in the object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zta_authz.policy.yaml.nodes import Mapping, Node, Scalar, Sequence, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_SHOWN: Final = 120
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|us|m|s)")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True)
class FieldLocation:
    """A location. `line` counts from 1 and is 0 if unknown; `field` names the object and the path."""

    source: str
    line: int
    field: str


@dataclass(frozen=True, slots=True)
class Value:
    """A node of a document. `shift` is the number of lines of the file before the parsed text."""

    source: str
    owner: str
    path: str
    node: Node
    shift: int = 0

    def get(self, *steps: str | int) -> Value | None:
        """Return the value at `steps`; None if it is absent or null."""
        value = self
        for step in steps:
            below: Node | None = None
            if isinstance(value.node, Mapping):
                below = value.node.get(str(step))
            elif isinstance(value.node, Sequence) and isinstance(step, int) and step < len(value.node.items):
                below = value.node.items[step]
            if below is None or (isinstance(below, Scalar) and below.kind == "null"):
                return None
            value = Value(self.source, self.owner, _joined(value.path, step), below, self.shift)
        return value

    def items(self, *steps: str | int) -> list[Value]:
        """Return the items of the list at `steps`; [] if there is no list."""
        value = self.get(*steps)
        count = len(value.node.items) if value is not None and isinstance(value.node, Sequence) else 0
        items = (value.get(number) for number in range(count)) if value is not None else ()
        return [item for item in items if item is not None]

    def fields(self, *steps: str | int) -> dict[str, Value]:
        """Return the values of the mapping at `steps` by name; {} if there is no mapping."""
        value = self.get(*steps)
        if value is None or not isinstance(value.node, Mapping):
            return {}
        fields = ((name, value.get(name)) for name in value.node.entries)
        return {name: value for name, value in fields if value is not None}

    def text(self, *steps: str | int) -> str:
        """Return the scalar at `steps` as text; "" if there is none."""
        value = self.get(*steps)
        return value.node.value if value is not None and isinstance(value.node, Scalar) else ""

    def flag(self, *steps: str | int) -> bool | None:
        """Return the boolean at `steps`; None if there is none."""
        plain = self.plain(*steps)
        return plain if isinstance(plain, bool) else None

    def plain(self, *steps: str | int) -> Any:
        """Return the value at `steps` as Python objects; None if there is none."""
        value = self.get(*steps)
        return None if value is None else to_plain(value.node)

    def seconds(self, *steps: str | int) -> float | None:
        """Return the duration at `steps` (`200ms`, `0.2s`) in seconds; None if there is none."""
        text = self.text(*steps)
        if not _DURATION.fullmatch(text):
            return None
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))

    @property
    def location(self) -> FieldLocation:
        """The location of this value."""
        field = f"{self.owner}: {self.path}" if self.path else self.owner
        return FieldLocation(self.source, self.node.line + self.shift, field)

    @property
    def shown(self) -> str:
        """The value as one line of text."""
        text = str(to_plain(self.node)) if not isinstance(self.node, Scalar) else self.node.value
        return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"

    def below(self) -> Iterator[Value]:
        """Yield this value and all mappings and lists below it. Aliased nodes are yielded once."""
        seen: set[int] = set()
        waiting = [self]
        while waiting:
            value = waiting.pop()
            if id(value.node) in seen or isinstance(value.node, Scalar):
                continue
            seen.add(id(value.node))
            yield value
            waiting += [*value.fields().values(), *value.items()][::-1]


def _joined(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not _PLAIN_KEY.fullmatch(step):
        return f'{path}["{step}"]'
    return f"{path}.{step}" if path else step


@dataclass(frozen=True, slots=True)
class Document:
    """One object of the installation. `group` is its API group without the version, "" for the core group."""

    root: Value
    kind: str
    group: str
    namespace: str
    name: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the object."""
        return {key: value.text() for key, value in self.root.fields("metadata", "labels").items()}

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations of the object."""
        return {key: value.text() for key, value in self.root.fields("metadata", "annotations").items()}


def matches(selector: Value | None, labels: dict[str, str]) -> bool:
    """Return whether a label selector selects `labels`. None and {} select everything, expressions nothing."""
    if selector is None:
        return True
    if selector.get("matchExpressions") is not None:
        return False
    required = selector.fields("matchLabels")
    return all(labels.get(key) == value.text() for key, value in required.items())

"""Finding the path templates that may match a path: a trie over segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("any_child", "children", "ends", "rest_ends", "rests")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.any_child: _Node[T] | None = None
        self.ends: list[T] = []
        self.rests: dict[str, list[T]] = {}
        """Templates that go on with `{**}` and literals, by their last literal segment."""
        self.rest_ends: list[T] = []
        """Templates that end with `{**}`."""


class TemplateTrie(Generic[T]):
    """Templates by their segments. `find` may give a value whose template does not match; it never leaves one out."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: str, value: T) -> None:
        """File `value` under a valid template."""
        node = self._root
        segments = template.split("/")
        for at, segment in enumerate(segments):
            if segment == "{**}":
                if at == len(segments) - 1:
                    node.rest_ends.append(value)
                else:
                    node.rests.setdefault(segments[-1], []).append(value)
                return
            if segment == "{*}":
                if node.any_child is None:
                    node.any_child = _Node()
                node = node.any_child
            else:
                node = node.children.setdefault(segment, _Node())
        node.ends.append(value)

    def find(self, path: str) -> Iterator[T]:
        """Every value whose template may match `path`."""
        segments = path.split("/")
        last = segments[-1]
        nodes = [self._root]
        for segment in segments:
            below: list[_Node[T]] = []
            for node in nodes:
                if node.rest_ends:
                    yield from node.rest_ends
                if node.rests:
                    yield from node.rests.get(last, ())
                child = node.children.get(segment)
                if child is not None:
                    below.append(child)
                if node.any_child is not None and segment:
                    below.append(node.any_child)
            nodes = below
            if not nodes:
                return
        for node in nodes:
            yield from node.ends

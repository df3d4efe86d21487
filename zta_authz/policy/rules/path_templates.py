"""Path templates as Envoy's `uri_template` matches them, and finding those that may match a path.

`{*}` is one non-empty run of path characters, `{**}` any run of them and `/`, also none. Istio's documentation gives
`/foo/{**}/` as matching `/foo/bar/baz.txt`; by Envoy's regular expression it does not, and neither does it here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from zta_authz.policy.rules.matchers import IndexKey, Matcher, string_matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

# Envoy 1.40 takes `*` and `=` too, beyond the characters its documentation lists (measured).
_TEMPLATE_SEGMENT = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=]+")
_TEMPLATE_REST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=/]*")
_TEMPLATE_LITERAL = re.compile(r"[A-Za-z0-9\-._~%!$&'()+,;:@=]*")


@dataclass(frozen=True, slots=True)
class Template:
    """A path template; `head` are the segments before `{**}` (None stands for `{*}`), `tail` the literal text after it.

    `tail` is None where there is no `{**}`. The first segment is "" because a path starts with `/`.
    """

    text: str
    head: tuple[str | None, ...]
    tail: str | None

    @property
    def key(self) -> IndexKey | None:
        """Found by walking the path's segments."""
        return IndexKey("template", self.text)

    def matches(self, text: str) -> bool:
        """Envoy's `uri_template` on the path without its query."""
        count = len(self.head)
        segments = text.split("/", count)  # one more than the head has: what is behind it, however much that is
        if len(segments) != (count if self.tail is None else count + 1):
            return False
        for wanted, found in zip(self.head, segments, strict=False):
            if found != wanted and (wanted is not None or _TEMPLATE_SEGMENT.fullmatch(found) is None):
                return False
        return self.tail is None or self._rest_matches(segments[count])

    def _rest_matches(self, rest: str) -> bool:
        tail = self.tail or ""
        if not rest.endswith(tail):
            return False
        return _TEMPLATE_REST.fullmatch(rest, 0, len(rest) - len(tail)) is not None


def parse_template(value: str) -> Template:
    """The template in `value`, checked as Istio does. Raises ValueError saying what is wrong."""
    if not value.startswith("/"):
        raise ValueError("a path template starts with `/`")
    head: list[str | None] = []
    tail: list[str] | None = None
    for segment in value.split("/"):
        operator = segment in ("{*}", "{**}")
        if not operator and ("{" in segment or "}" in segment):
            raise ValueError(f"`{segment}`: `{{*}}` and `{{**}}` stand for a whole path segment")
        if not operator and not _TEMPLATE_LITERAL.fullmatch(segment):
            raise ValueError(f"`{segment}` has characters that a path template can't hold")
        if tail is not None:
            if operator:
                raise ValueError("`{**}` is the last operator of a path template")
            tail.append(segment)
        elif segment == "{**}":
            tail = []
        else:
            head.append(None if operator else segment)
    if tail is None:
        return Template(value, tuple(head), None)
    return Template(value, tuple(head), "".join(f"/{segment}" for segment in tail))


def path_matcher(value: str) -> Matcher:
    """A path: the generic form, or a template where `{*}` or `{**}` is in it. Raises ValueError for a bad one."""
    if "{*}" in value or "{**}" in value:
        return parse_template(value)
    return string_matcher(value)


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

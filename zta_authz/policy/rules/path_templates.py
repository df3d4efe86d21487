"""Path templates as Envoy's `uri_template` matches them, and a trie that finds templates for a path.

`{*}` is one non-empty run of path characters; `{**}` is any run of them and `/`, possibly empty. Istio's documentation
says that `/foo/{**}/` matches `/foo/bar/baz.txt`. Envoy's regular expression does not match it, nor does this module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from zta_authz.policy.rules.matchers import IndexKey, Matcher, string_matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

# Envoy 1.40 also accepts `*` and `=`, which its documentation does not list (measured).
_TEMPLATE_SEGMENT = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=]+")
_TEMPLATE_REST = re.compile(r"[A-Za-z0-9\-._~%!$&'()*+,;:@=/]*")
_TEMPLATE_LITERAL = re.compile(r"[A-Za-z0-9\-._~%!$&'()+,;:@=]*")


@dataclass(frozen=True, slots=True)
class Template:
    """A path template. `head` has the segments before `{**}` (None for `{*}`), `tail` the literal text after it.

    `tail` is None if there is no `{**}`. The first segment is "" because a path starts with `/`.
    """

    text: str
    head: tuple[str | None, ...]
    tail: str | None

    @property
    def key(self) -> IndexKey | None:
        """Lookup by the path's segments."""
        return IndexKey("template", self.text)

    def matches(self, text: str) -> bool:
        """Whether Envoy's `uri_template` matches the path `text`, which has no query."""
        count = len(self.head)
        segments = text.split("/", count)  # one more than the head has, for the rest
        if len(segments) != (count if self.tail is None else count + 1):
            return False
        for expected, segment in zip(self.head, segments, strict=False):
            if segment != expected and (expected is not None or _TEMPLATE_SEGMENT.fullmatch(segment) is None):
                return False
        return self.tail is None or self._rest_matches(segments[count])

    def _rest_matches(self, rest: str) -> bool:
        tail = self.tail or ""
        if not rest.endswith(tail):
            return False
        return _TEMPLATE_REST.fullmatch(rest, 0, len(rest) - len(tail)) is not None


def parse_template(value: str) -> Template:
    """Parse a template with Istio's checks.

    Raises:
        ValueError: with a message for the operator.
    """
    if not value.startswith("/"):
        raise ValueError("a path template starts with `/`")
    head: list[str | None] = []
    tail: list[str] | None = None
    for segment in value.split("/"):
        operator = segment in ("{*}", "{**}")
        if not operator and ("{" in segment or "}" in segment):
            raise ValueError(f"`{segment}`: `{{*}}` and `{{**}}` stand for a whole path segment")
        if not operator and not _TEMPLATE_LITERAL.fullmatch(segment):
            raise ValueError(f"`{segment}` has characters that a path template can't contain")
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
    """The matcher for a path: a template if it has `{*}` or `{**}`, else the generic form.

    Raises:
        ValueError: if the template is invalid, with a message for the operator.
    """
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
        """Values of templates that continue with `{**}` and literals, by the last literal segment."""
        self.rest_ends: list[T] = []
        """Values of templates that end here with `{**}`."""


class TemplateTrie(Generic[T]):
    """Values by template segments. `find` may return a value whose template does not match, but never misses one."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, template: str, value: T) -> None:
        """Add `value` under a valid template."""
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

"""The trace that a call or a request is part of (W3C Trace Context): one parser for whoever asks.

A proxy copies what its client sent into `tracestate`, and a client writes the request's `traceparent` itself. So what
is malformed is as if it had not been sent, and each text is bounded before it is looked at.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARENT_CHARACTERS: Final = 512
"""A `traceparent` of version 00 has 55; later versions may add to it (section 4.3)."""
MAX_STATE_CHARACTERS: Final = 8192
MAX_STATE_MEMBERS: Final = 32
"""Section 3.3.1.1."""

_BLANKS: Final = " \t"
_SAMPLED: Final = 1
_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[^\0\r\n]*)?"
)
_KEY: Final = r"[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13}"
_MEMBER: Final = re.compile(rf"({_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
"""Sections 3.3.1.3.1 and 3.3.1.3.2."""


class TraceParent(NamedTuple):
    """A span of another party's: its trace (32 hexadecimal digits), itself (16), and whether it is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_trace_parent(text: str) -> TraceParent | None:
    """The parent that a `traceparent` names, None for a text that is not one (section 3.2)."""
    if len(text) > MAX_PARENT_CHARACTERS:
        return None
    match = _PARENT.fullmatch(text.strip(_BLANKS))
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceParent(match[2], match[3], bool(int(match[4], 16) & _SAMPLED))


def parse_trace_state(values: Iterable[str]) -> str:
    """The `tracestate` of one or more header values, without blanks and empty members; "" if any of it is malformed."""
    text = ",".join(values)
    if not text or len(text) > MAX_STATE_CHARACTERS:
        return ""
    members = [member for member in (part.strip(_BLANKS) for part in text.split(",")) if member]
    if len(members) > MAX_STATE_MEMBERS:
        return ""
    keys = [match[1] for match in map(_MEMBER.fullmatch, members) if match is not None]
    if len(keys) < len(members) or len(set(keys)) < len(keys):
        return ""
    return ",".join(members)


def call_parent(metadata: Iterable[tuple[str, str | bytes]]) -> TraceParent | None:
    """The parent that a gRPC call's metadata names; None where it names none, or several (section 3.2.1)."""
    parents = [value for name, value in metadata if name == "traceparent"]
    if len(parents) != 1 or not isinstance(parents[0], str):
        return None
    return parse_trace_parent(parents[0])


def call_state(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The `tracestate` of a gRPC call's metadata, "" for none."""
    return parse_trace_state([value for name, value in metadata if name == "tracestate" and isinstance(value, str)])

"""Parsers for the trace that a call or a request belongs to (W3C Trace Context).

Clients write both `traceparent` and `tracestate`: a proxy copies them. So a malformed value counts as absent, and each
length is checked before parsing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PARENT_CHARACTERS: Final = 512
"""A `traceparent` of version 00 has 55; later versions may be longer (section 4.3)."""
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
    """The caller's span: `trace_id` (32 hexadecimal digits), `span_id` (16), and whether it is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_trace_parent(text: str) -> TraceParent | None:
    """Parse a `traceparent` (section 3.2); None if it is malformed."""
    if len(text) > MAX_PARENT_CHARACTERS:
        return None
    match = _PARENT.fullmatch(text.strip(_BLANKS))
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceParent(match[2], match[3], bool(int(match[4], 16) & _SAMPLED))


def parse_trace_state(values: Iterable[str]) -> str:
    """Join `tracestate` header values without blanks and empty members; "" if any part is malformed."""
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
    """The `traceparent` of a gRPC call's metadata; None if absent, repeated (section 3.2.1) or malformed."""
    parents = [value for name, value in metadata if name == "traceparent"]
    if len(parents) != 1 or not isinstance(parents[0], str):
        return None
    return parse_trace_parent(parents[0])


def call_state(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The `tracestate` of a gRPC call's metadata, "" if absent or malformed."""
    return parse_trace_state([value for name, value in metadata if name == "tracestate" and isinstance(value, str)])

r"""The hash chain of a decision log's files: each line has a number and the SHA-256 of the previous line. Pure.

    {"seq":8,"prev":"<hash of line 7 without its \n>", ...the record...}

The files are segments of one chain. The first line of each segment is an `open` event with the previous segment's name
and last hash. The last line of a finished segment is a `seal` event. A `resume` event marks where a process continued a
file. Events contain the ID of the log, which is created with the log. Each worker has its own log.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

EVENT_SCHEMA: Final = "zta.dev/audit-log/v1"
ACCESS_SCHEMA: Final = "zta.dev/access-event/v1"
"""The schema of the lines of the access log; the other lines of a chain are decisions."""
GENESIS: Final = "0" * 64
"""The `prev` of the first line."""


class Event(StrEnum):
    """The events that the log records about itself."""

    OPEN = "open"
    RESUME = "resume"
    SEAL = "seal"


class Link(msgspec.Struct, frozen=True):
    """The fields of a line that the chain needs. All but `seq` and `prev` occur only in events."""

    seq: int
    prev: str
    schema: str = ""
    event: str = ""
    segment: int = 0
    previous_file: str | None = None
    count: int = 0
    head: str = ""
    torn_bytes: int = 0
    torn_sha256: str = ""
    log: str = ""

    @property
    def is_event(self) -> bool:
        """True for an event of the log itself, False for a decision or an access event."""
        return self.schema == EVENT_SCHEMA

    @property
    def is_access_event(self) -> bool:
        """True for a line of the access log that the log did not write about itself."""
        return self.schema == ACCESS_SCHEMA


class Position(msgspec.Struct, frozen=True):
    """A position in the chain: the number and the hash of its last line."""

    seq: int = 0
    head: str = GENESIS


_decoder = msgspec.json.Decoder(Link)


def read_link(line: bytes) -> Link | None:
    r"""Read the chain's fields from a line without its `\n`; None if it is not a line of a chain."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def digest(line: bytes) -> str:
    r"""Return the SHA-256 of a line without its `\n`, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def append(position: Position, *lines: bytes) -> tuple[Position, bytes]:
    r"""Link lines (JSON objects with `\n`) to the chain. Return the new position and the linked lines."""
    seq, head, linked = position.seq, position.head.encode(), []
    for line in lines:
        seq += 1
        link = b'{"seq":%d,"prev":"%b",%b' % (seq, head, line[1:-1])
        head = hashlib.sha256(link).hexdigest().encode()
        linked.append(link)
    linked.append(b"")
    return Position(seq, head.decode()), b"\n".join(linked)


def event_line(event: Event, segment: int, now: float, **fields: str | int | None) -> bytes:
    """Create the line of an event at `now`, in seconds since the epoch. It is not yet linked to the chain."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
    content = {"schema": EVENT_SCHEMA, "time": time, "event": str(event), "segment": segment, **fields}
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"

r"""The hash chain of a decision log's files: each line has a number and the SHA-256 of the one before. Pure.

    {"seq":8,"prev":"<hash of line 7 without its \n>", ...the record...}

Files are segments of one chain. The first line of each is an `open` event that names the segment before and its last
line's hash; the last line of a finished one is a `seal` event; a `resume` event is where a process went on with a file.
Events name the log by an id that it was given when it began: those of two workers are two logs.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

EVENT_SCHEMA: Final = "zta.dev/audit-log/v1"
GENESIS: Final = "0" * 64
"""What the very first line names as the one before it."""


class Event(StrEnum):
    """What the log says about itself."""

    OPEN = "open"
    RESUME = "resume"
    SEAL = "seal"


class Link(msgspec.Struct, frozen=True):
    """What the chain needs of a line; all but `seq` and `prev` is there in events only."""

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
        """True for a line that the log writes about itself, False for a decision."""
        return self.schema == EVENT_SCHEMA


class Position(msgspec.Struct, frozen=True):
    """How far the chain has come: the number and the hash of its last line."""

    seq: int = 0
    head: str = GENESIS


_decoder = msgspec.json.Decoder(Link)


def read_link(line: bytes) -> Link | None:
    r"""The chain's part of a line without its `\n`; None where it is no line of a chain."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def digest(line: bytes) -> str:
    r"""SHA-256 of a line without its `\n`, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def append(position: Position, *lines: bytes) -> tuple[Position, bytes]:
    r"""The lines as the next ones of the chain, and where the chain is then. Each is a JSON object and `\n`."""
    seq, head, linked = position.seq, position.head.encode(), []
    for line in lines:
        seq += 1
        made = b'{"seq":%d,"prev":"%b",%b' % (seq, head, line[1:-1])
        head = hashlib.sha256(made).hexdigest().encode()
        linked.append(made)
    linked.append(b"")
    return Position(seq, head.decode()), b"\n".join(linked)


def event_line(event: Event, segment: int, now: float, **fields: str | int | None) -> bytes:
    """A line about the log itself at `now`, seconds since the epoch; it has yet to be appended."""
    time = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
    said = {"schema": EVENT_SCHEMA, "time": time, "event": str(event), "segment": segment, **fields}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"

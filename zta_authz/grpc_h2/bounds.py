"""What a peer may ask of us: every limit with its unit, and the tally of frames that cost work and bring none.

A limit of frames holds for an interval. Where honest traffic sends such frames with its calls, each call raises it, so
that a busy connection does not run into a limit that is made for an idle one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

KIB: Final = 1024
MIB: Final = 1024 * 1024

MIN_FRAME_BYTES: Final = 16_384
"""What every peer must be ready to receive (RFC 9113, section 4.2)."""
MAX_FRAME_BYTES: Final = 1 * MIB
"""Ours; the RFC's is 16 MiB, which would let one frame fill the memory of sixteen."""
MIN_TABLE_BYTES: Final = 4096
"""A peer may use that much before it has read our settings (RFC 9113, section 6.5.2)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one connection. Bytes, seconds, or frames an `interval_seconds`; the defaults are safe."""

    max_concurrent_streams: int = 1024
    max_header_list_bytes: int = 32 * KIB  # decoded, 32 added for each field; past it metadata is left out
    max_header_block_bytes: int = 16 * MIB  # encoded; past it the connection ends, because HPACK's state is lost
    max_continuation_frames: int = 16  # in one header block, besides one for each 4 KiB of it
    header_table_bytes: int = MIN_TABLE_BYTES
    max_frame_bytes: int = MIN_FRAME_BYTES
    max_message_bytes: int = 4 * MIB
    max_buffered_bytes: int = 16 * MIB  # of requests that are not complete
    max_unsent_bytes: int = 8 * MIB  # of answers that wait for the peer's flow-control window
    receive_window_bytes: int = 1 * MIB
    interval_seconds: float = 10.0
    max_resets: int = 1000
    max_settings: int = 20
    max_pings: int = 200
    max_window_updates: int = 2000
    max_empty_frames: int = 200  # DATA without content that does not end its stream
    max_other_frames: int = 1000  # PRIORITY, unknown types, frames of streams that are over, DATA in tiny pieces
    preface_seconds: float = 10.0  # until the peer's first SETTINGS
    request_seconds: float = 10.0  # from a header block's first byte to the request's last, and for any frame
    stall_seconds: float = 30.0  # that an answer may wait for the peer's window
    idle_seconds: float = 600.0  # without a stream; 0 for no limit
    max_age_seconds: float = 3600.0  # then the connection is drained; 0 for no limit

    def __post_init__(self) -> None:
        if not MIN_FRAME_BYTES <= self.max_frame_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"max_frame_bytes is {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES}")
        if self.header_table_bytes < MIN_TABLE_BYTES:
            raise ValueError(f"header_table_bytes is at least {MIN_TABLE_BYTES}")
        if self.max_buffered_bytes < self.max_message_bytes or self.max_unsent_bytes < self.max_message_bytes:
            raise ValueError("max_buffered_bytes and max_unsent_bytes are at least max_message_bytes")


class Costly(IntEnum):
    """Frames that are counted."""

    RESET = 0
    SETTINGS = 1
    PING = 2
    WINDOW_UPDATE = 3
    EMPTY = 4
    OTHER = 5


_PER_CALL: Final = (1, 0, 1, 4, 1, 2)
"""How much each answered call raises the limit of each `Costly`."""
_NAMES: Final = ("stream resets", "SETTINGS", "PING", "WINDOW_UPDATE", "empty DATA", "useless frames")


class FrameRateLimiter:
    """Counts the frames of the present interval; `answered` is for the connection to count up."""

    __slots__ = ("_counts", "_ends", "_interval", "_limits", "answered")

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._limits = (
            bounds.max_resets,
            bounds.max_settings,
            bounds.max_pings,
            bounds.max_window_updates,
            bounds.max_empty_frames,
            bounds.max_other_frames,
        )
        self._interval = bounds.interval_seconds
        self._ends = now + self._interval
        self._counts = [0] * len(self._limits)
        self.answered = 0

    def count(self, what: Costly, now: float) -> None:
        """Count one. Raises `ConnectionFault` past the limit."""
        if now >= self._ends:
            self._ends = now + self._interval
            self._counts = [0] * len(self._limits)
            self.answered = 0
        self._counts[what] += 1
        if self._counts[what] > self._limits[what] + _PER_CALL[what] * self.answered:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {_NAMES[what]}")

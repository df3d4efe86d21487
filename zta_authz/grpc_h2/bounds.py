"""Limits of a connection with their units, and rate limits for frames that cost work without making progress.

Frame limits apply to an interval. Each answered call raises the limits of frames that honest clients send with calls,
so that a busy connection does not reach a limit meant for an idle one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

KIB: Final = 1024
MIB: Final = 1024 * 1024

MIN_FRAME_BYTES: Final = 16_384
"""Every peer accepts frames of this size (RFC 9113, section 4.2)."""
MAX_FRAME_BYTES: Final = 1 * MIB
"""Our limit. The RFC allows 16 MiB, which lets one frame use the memory of sixteen."""
MIN_TABLE_BYTES: Final = 4096
"""A peer may use this much before it has read our settings (RFC 9113, section 6.5.2)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one connection, in bytes, seconds, or frames per `interval_seconds`. The defaults are safe."""

    max_concurrent_streams: int = 1024
    max_header_list_bytes: int = 32 * KIB  # decoded, plus 32 a field; metadata beyond it is dropped
    max_header_block_bytes: int = 16 * MIB  # encoded; a larger one ends the connection: HPACK's state is lost
    max_continuation_frames: int = 16  # in one header block, plus one for each 4 KiB of it
    header_table_bytes: int = MIN_TABLE_BYTES
    max_frame_bytes: int = MIN_FRAME_BYTES
    max_message_bytes: int = 4 * MIB
    max_buffered_bytes: int = 16 * MIB  # of incomplete requests
    max_unsent_bytes: int = 8 * MIB  # of answers that wait for the peer's flow-control window
    receive_window_bytes: int = 1 * MIB
    interval_seconds: float = 10.0
    max_resets: int = 1000
    max_settings: int = 20
    max_pings: int = 200
    max_window_updates: int = 2000
    max_empty_frames: int = 200  # empty DATA that does not end its stream
    max_other_frames: int = 1000  # PRIORITY, unknown types, frames of closed streams, tiny DATA frames
    preface_seconds: float = 10.0  # until the peer's first SETTINGS
    request_seconds: float = 10.0  # from a header block's first byte to the request's last, and for any frame
    stall_seconds: float = 30.0  # how long an answer may wait for the peer's window
    idle_seconds: float = 600.0  # without an open stream; 0 for no limit
    max_age_seconds: float = 3600.0  # then the connection is drained; 0 for no limit

    def __post_init__(self) -> None:
        if not MIN_FRAME_BYTES <= self.max_frame_bytes <= MAX_FRAME_BYTES:
            raise ValueError(f"max_frame_bytes is {MIN_FRAME_BYTES} to {MAX_FRAME_BYTES}")
        if self.header_table_bytes < MIN_TABLE_BYTES:
            raise ValueError(f"header_table_bytes is at least {MIN_TABLE_BYTES}")
        if self.max_buffered_bytes < self.max_message_bytes or self.max_unsent_bytes < self.max_message_bytes:
            raise ValueError("max_buffered_bytes and max_unsent_bytes are at least max_message_bytes")


class CountedFrame(IntEnum):
    """Frame kinds with a rate limit."""

    RESET = 0
    SETTINGS = 1
    PING = 2
    WINDOW_UPDATE = 3
    EMPTY = 4
    OTHER = 5


_PER_CALL: Final = (1, 0, 1, 4, 1, 2)
"""How much each answered call raises the limit of each `CountedFrame`."""
_NAMES: Final = ("stream resets", "SETTINGS", "PING", "WINDOW_UPDATE", "empty DATA", "useless frames")


class FrameRateLimiter:
    """Counts the frames of the current interval. The connection increments `answered` with each answered call."""

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

    def count(self, kind: CountedFrame, now: float) -> None:
        """Count one frame. Raises `ConnectionFault` above the limit."""
        if now >= self._ends:
            self._ends = now + self._interval
            self._counts = [0] * len(self._limits)
            self.answered = 0
        self._counts[kind] += 1
        if self._counts[kind] > self._limits[kind] + _PER_CALL[kind] * self.answered:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {_NAMES[kind]}")

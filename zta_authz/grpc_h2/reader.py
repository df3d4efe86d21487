"""Bytes to frames: the preface, then whole frames, whatever the pieces in which they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode
from zta_authz.grpc_h2.frames import HEADER, HEADER_BYTES, PREFACE, STREAM_MASK

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


class FrameReader:
    """One connection's bytes. `since` is when the frame that is not whole yet began, None while there is none."""

    __slots__ = ("_max_frame", "_needed", "_pending", "_waits_for_preface", "since")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame = max_frame_bytes
        self._pending = bytearray()  # less than a frame, or than the preface
        self._needed = len(PREFACE)
        self._waits_for_preface = True
        self.since: float | None = None

    @property
    def pending_bytes(self) -> int:
        """What came of a frame that is not whole yet."""
        return len(self._pending)

    def clear(self) -> None:
        """Nothing more will be read."""
        self._pending = bytearray()

    def read(self, data: bytes, now: float) -> Iterator[Frame]:
        """The frames that `data` completes; read them to the end. Raises `ConnectionFault` for what is no HTTP/2."""
        pending = self._pending
        if pending:
            pending += data  # small pieces are copied once, not each time that one comes
            if len(pending) < self._needed and not self._waits_for_preface:
                return
            data = bytes(pending)
            pending.clear()
        at = self._preface(data) if self._waits_for_preface else 0
        end = len(data)
        needed = HEADER_BYTES
        while end - at >= HEADER_BYTES and not self._waits_for_preface:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            begin = at + HEADER_BYTES
            needed = HEADER_BYTES + (high << 16 | low)
            if needed - HEADER_BYTES > self._max_frame:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than our setting")
            if at + needed > end:
                break
            at += needed
            needed = HEADER_BYTES
            yield kind, flags, stream & STREAM_MASK, data[begin:at]
        self._keep(data, at, needed, now)

    def _keep(self, data: bytes, at: int, needed: int, now: float) -> None:
        self._needed = needed
        if at == len(data):
            self.since = None
            return
        if at or self.since is None:
            self.since = now
        self._pending += data[at:]

    def _preface(self, data: bytes) -> int:
        if data[: len(PREFACE)] != PREFACE[: len(data)]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
        if len(data) < len(PREFACE):
            return 0
        self._waits_for_preface = False
        return len(PREFACE)

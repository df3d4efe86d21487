"""Split received bytes into frames: first the preface, then complete frames."""

from __future__ import annotations

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode
from zta_authz.grpc_h2.frames import HEADER, HEADER_BYTES, PREFACE, STREAM_MASK

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, payload."""


class FrameReader:
    """Reads one connection's frames. `since` is when the incomplete frame began, None without one.

    `fault` ends the connection once the frames before it are handled.
    """

    __slots__ = ("_max_frame", "_needed", "_pending", "_preface_pending", "fault", "since")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame = max_frame_bytes
        self._pending = bytearray()  # less than a frame or the preface
        self._needed = len(PREFACE)
        self._preface_pending = True
        self.since: float | None = None
        self.fault: ConnectionFault | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes of the incomplete frame."""
        return len(self._pending)

    def clear(self) -> None:
        """Free the buffer: nothing more will be read."""
        self._pending = bytearray()

    def read(self, data: bytes, now: float) -> list[Frame]:
        """Return the frames that `data` completes. If malformed bytes follow them, set `fault`."""
        frames: list[Frame] = []
        pending = self._pending
        if pending:
            pending += data  # small pieces are copied once, not each time one arrives
            if len(pending) < self._needed and not self._preface_pending:
                return frames
            data = bytes(pending)
            pending.clear()
        at = self._preface(data) if self._preface_pending else 0
        end = len(data)
        needed = HEADER_BYTES
        while end - at >= HEADER_BYTES and not self._preface_pending:
            high, low, kind, flags, stream = HEADER.unpack_from(data, at)
            begin = at + HEADER_BYTES
            needed = HEADER_BYTES + (high << 16 | low)
            if needed - HEADER_BYTES > self._max_frame:
                self.fault = ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame larger than our setting")
                return frames
            if at + needed > end:
                break
            at += needed
            needed = HEADER_BYTES
            frames.append((kind, flags, stream & STREAM_MASK, data[begin:at]))
        self._keep(data, at, needed, now)
        return frames

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
            self.fault = ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
            return 0
        if len(data) < len(PREFACE):
            return 0
        self._preface_pending = False
        return len(PREFACE)

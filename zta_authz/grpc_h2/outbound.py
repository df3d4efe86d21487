"""Answers: sent at once if the peer's windows allow, else queued until WINDOW_UPDATE.

The queue is limited in bytes, and the connection limits how long an answer may wait, so that a peer that never opens
its window can't exhaust our memory.
"""

from __future__ import annotations

from typing import Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, StreamFault
from zta_authz.grpc_h2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    frame,
)
from zta_authz.grpc_h2.messages import (
    HEAD_BLOCK,
    OK_BLOCK,
    PREFIX_BYTES,
    TABLE_SIZE_ZERO,
    prefixed,
    whole_answer,
)

_DEFAULT_FRAME_BYTES: Final = 16_384


class _Unsent:
    """The unsent rest of an answer, and its trailers. Without trailers, the last DATA frame ends the stream."""

    __slots__ = ("at", "content", "since", "trailers")

    def __init__(self, content: bytes, trailers: bytes, since: float) -> None:
        self.content = content
        self.trailers = trailers
        self.at = 0
        self.since = since


class Outbound:
    """The sending side of one connection. `frames` are to be written now; the connection appends its own frames."""

    __slots__ = (
        "_credit",
        "_limit",
        "_max_frame",
        "_ready",
        "_stream_window",
        "_table_changed",
        "_unsent_bytes",
        "_waiting",
        "_window",
        "frames",
    )

    def __init__(self, max_unsent_bytes: int) -> None:
        self.frames: list[bytes] = []
        self._window = DEFAULT_WINDOW
        self._stream_window = DEFAULT_WINDOW
        self._max_frame = _DEFAULT_FRAME_BYTES
        self._credit: dict[int, int] = {}  # by stream: bytes added by WINDOW_UPDATE, minus bytes sent
        self._waiting: dict[int, _Unsent] = {}
        self._ready: dict[int, None] = {}  # waiting streams whose own window is open
        self._unsent_bytes = 0
        self._limit = max_unsent_bytes
        self._table_changed = False

    # answers

    def answer(self, stream: int, message: bytes, now: float) -> bool:
        """Send a successful answer; False if a part has to wait. Raises `ConnectionFault` if too many bytes wait."""
        size = len(message) + PREFIX_BYTES
        window = self._stream_window
        if self._credit:
            window += self._credit.get(stream, 0)
        if size <= window and size <= self._window and size <= self._max_frame and not self._table_changed:
            self._window -= size
            self._credit.pop(stream, None)
            self.frames.append(whole_answer(stream, message))
            return True
        return self.answer_in_parts(stream, HEAD_BLOCK, prefixed(message), OK_BLOCK, now)

    def answer_in_parts(self, stream: int, head: bytes, content: bytes, trailers: bytes, now: float) -> bool:
        """Send the headers, then as much of the content as the windows allow. Returns and raises as `answer`."""
        self.frames.append(frame(HEADERS, END_HEADERS, stream, self._block(head)))
        unsent = self._waiting[stream] = _Unsent(content, trailers, now)
        self._unsent_bytes += len(content)
        self._send(stream, unsent)
        if self._unsent_bytes > self._limit:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too much waits for flow control")
        return stream not in self._waiting

    def answer_with_headers(self, stream: int, block: bytes) -> None:
        """Answer with a single header block, which needs no window."""
        self._credit.pop(stream, None)
        self.frames.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, self._block(block)))

    def drop(self, stream: int) -> None:
        """Discard the unsent answer of a closed stream."""
        self._credit.pop(stream, None)
        unsent = self._waiting.pop(stream, None)
        if unsent is not None:
            self._ready.pop(stream, None)
            self._unsent_bytes -= len(unsent.content) - unsent.at

    def clear(self) -> None:
        """Discard all unsent answers, because the connection is over."""
        self._waiting.clear()
        self._ready.clear()
        self._unsent_bytes = 0

    # the peer's settings and windows

    def resize_streams(self, window: int, widest: int) -> None:
        """Apply SETTINGS_INITIAL_WINDOW_SIZE, to open streams too. `widest` is the largest value in the frame.

        Raises `ConnectionFault` on overflow.
        """
        if self._credit and widest + max(self._credit.values()) > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window past 2^31-1")
        self._stream_window = window
        self._ready = dict.fromkeys(self._waiting)

    def resize_frames(self, size: int) -> None:
        """Apply SETTINGS_MAX_FRAME_SIZE."""
        self._max_frame = size

    def resize_table(self, size: int) -> None:
        """Apply SETTINGS_HEADER_TABLE_SIZE: our next header block must acknowledge a smaller table."""
        self._table_changed = self._table_changed or size < 4096

    def open_window(self, increment: int) -> list[int]:
        """Apply a WINDOW_UPDATE of the connection; return completed streams. Raises `ConnectionFault` on overflow."""
        self._window += increment
        if self._window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a connection's window past 2^31-1")
        return self.send_waiting()

    def open_stream_window(self, stream: int, increment: int) -> bool:
        """Apply a WINDOW_UPDATE of a stream; True if its answer is complete. Raises `StreamFault` on overflow."""
        credit = self._credit.get(stream, 0) + increment
        if self._stream_window + credit > MAX_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window past 2^31-1")
        self._credit[stream] = credit
        unsent = self._waiting.get(stream)
        if unsent is None:
            return False
        self._send(stream, unsent)
        return stream not in self._waiting

    def stalled(self, before: float) -> bool:
        """Whether an answer from that time or before is not completely sent."""
        return any(unsent.since <= before for unsent in self._waiting.values())

    @property
    def unsent_bytes(self) -> int:
        """Bytes of answers that wait for the peer's windows."""
        return self._unsent_bytes

    def _block(self, block: bytes) -> bytes:
        if self._table_changed:
            self._table_changed = False
            return TABLE_SIZE_ZERO + block
        return block

    def send_waiting(self) -> list[int]:
        """Send what the windows allow now; return the completed streams."""
        done = []
        for stream in list(self._ready) if self._window > 0 else ():
            if self._window <= 0:
                break
            self._send(stream, self._waiting[stream])
            if stream not in self._waiting:
                done.append(stream)
        return done

    def _send(self, stream: int, unsent: _Unsent) -> None:
        """Send what the windows allow. After the last content, send the trailers and remove the stream."""
        size = len(unsent.content)
        while unsent.at < size:
            own = self._stream_window + self._credit.get(stream, 0)
            window = min(self._window, own, self._max_frame)
            if window <= 0:
                if own > 0:
                    self._ready[stream] = None
                else:
                    self._ready.pop(stream, None)
                return
            part = unsent.content[unsent.at : unsent.at + window]
            unsent.at += len(part)
            last = END_STREAM if unsent.at == size and not unsent.trailers else 0
            self.frames.append(frame(DATA, last, stream, part))
            self._window -= len(part)
            self._credit[stream] = self._credit.get(stream, 0) - len(part)
            self._unsent_bytes -= len(part)
        if unsent.trailers:
            self.frames.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, self._block(unsent.trailers)))
        del self._waiting[stream]
        self._ready.pop(stream, None)
        self._credit.pop(stream, None)

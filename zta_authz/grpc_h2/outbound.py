"""Answers: sent at once if the peer's windows allow, else queued until WINDOW_UPDATE.

The queue is limited in bytes, and the connection limits how long an answer may wait, so that a peer that never opens
its window can't exhaust our memory. Everything in an answer that does not depend on the call is precomputed. Header
blocks are literals without indexing (RFC 7541, section 6.2.2), so that they don't depend on the peer's dynamic table.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADER,
    HEADERS,
    MAX_WINDOW,
    frame,
)

if TYPE_CHECKING:
    from zta_authz.grpc_h2.request import GrpcFailure

PREFIX_BYTES: Final = 5
_MAX_STATUS_MESSAGE_BYTES: Final = 1024

TABLE_SIZE_ZERO: Final = b"\x20"
"""Starts the first header block after the peer shrank its table (RFC 7541, section 4.2), which we never use."""


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a field without indexing or Huffman coding. `name` is shorter than 127 bytes."""
    length = bytes((len(value),)) if len(value) < 127 else _long(len(value))
    return b"\0" + bytes((len(name),)) + name + length + value


def _long(length: int) -> bytes:
    """Encode a string length that exceeds the 7-bit prefix."""
    rest = length - 127
    octets = bytearray((127,))
    while rest >= 128:
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


_STATUS_200: Final = b"\x88"
_GRPC: Final = _literal(b"content-type", b"application/grpc")

HEAD_BLOCK: Final = _STATUS_200 + _GRPC
OK_BLOCK: Final = _literal(b"grpc-status", b"0")

_HEAD_START: Final = HEADER.pack(0, len(HEAD_BLOCK), HEADERS, END_HEADERS, 0)[:5]
_OK_START: Final = HEADER.pack(0, len(OK_BLOCK), HEADERS, END_HEADERS | END_STREAM, 0)[:5]
_BETWEEN: Final = Struct(">BHBBLBL")
"""The header of the DATA frame, and the prefix of its message."""


def prefixed(message: bytes) -> bytes:
    """Prepend the gRPC prefix: not compressed, and the length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole_answer(stream: int, message: bytes) -> bytes:
    """Encode a successful answer: HEADERS, one DATA frame, trailers. The message must fit a frame and the windows."""
    size = len(message)
    number = stream.to_bytes(4, "big")
    between = _BETWEEN.pack(size + 5 >> 16, size + 5 & 0xFFFF, DATA, 0, stream, 0, size)
    return b"".join((_HEAD_START, number, HEAD_BLOCK, between, message, _OK_START, number, OK_BLOCK))


def _percent_encoded(text: str) -> bytes:
    """Encode text for `grpc-message`: printable ASCII stays, `%` and all other bytes are percent-encoded."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )


def failure_block(failure: GrpcFailure) -> bytes:
    """Encode the only header block of a failed call ("Trailers-Only")."""
    block = _STATUS_200 + _GRPC + _literal(b"grpc-status", str(int(failure.status)).encode())
    if failure.status is Status.UNIMPLEMENTED:
        block += _literal(b"grpc-accept-encoding", b"identity")
    text = _percent_encoded(failure.message)[:_MAX_STATUS_MESSAGE_BYTES]
    return block + _literal(b"grpc-message", text) if text else block


def http_block(status: int) -> bytes:
    """Encode the header block of the answer to a request that is not gRPC; `NOT_GRPC_TEXT` follows it."""
    return (
        _literal(b":status", str(status).encode())
        + _literal(b"content-type", b"text/plain")
        + (_literal(b"allow", b"POST") if status == 405 else b"")
    )


NOT_GRPC_TEXT: Final = b"this port speaks gRPC\n"


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

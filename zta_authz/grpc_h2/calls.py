"""The calls of a connection, from the header block to the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz.grpc_h2 import frames
from zta_authz.grpc_h2.bounds import CountedFrame
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import DEFAULT_WINDOW, END_STREAM
from zta_authz.grpc_h2.headers import UnreadHeaders
from zta_authz.grpc_h2.outbound import NOT_GRPC_TEXT, PREFIX_BYTES, failure_block, http_block
from zta_authz.grpc_h2.request import GrpcFailure, HttpFailure, check_trailers
from zta_authz.grpc_h2.states import Received, State
from zta_authz.grpc_h2.streams import BUFFER_FULL, Inbound, Stream, Streams

if TYPE_CHECKING:
    from zta_authz.grpc_h2.bounds import Bounds, FrameRateLimiter
    from zta_authz.grpc_h2.headers import HeaderReader
    from zta_authz.grpc_h2.outbound import Outbound
    from zta_authz.grpc_h2.request import Metadata, Refusal


class Request(NamedTuple):
    """A complete call. `timeout` is in seconds from its arrival, None for no deadline."""

    stream: int
    path: str
    metadata: Metadata
    message: bytes
    timeout: float | None


class Cancelled(NamedTuple):
    """A call that ended without an answer: the client cancelled it, or broke the protocol or a limit."""

    stream: int


class Unread(NamedTuple):
    """A call that is not read: its message is too large or, if `buffer_full`, incomplete calls use too much memory.

    The owner must answer it too. What the client still sends is dropped.
    """

    stream: int
    path: str
    buffer_full: bool


Event = Request | Cancelled | Unread

_SMALL_BYTES: Final = 64
"""DATA frames smaller than this, except for the last of a call, cost too much for their content and are counted."""
_USELESS_BYTES: Final = 1024
"""DATA frames for a closed stream are counted if smaller than this; larger ones cost the peer enough bandwidth."""


class Calls:
    """The calls of one connection. The owner sets `now` and `events` before each step; the step appends its events."""

    __slots__ = (
        "_bounds",
        "_frame_limiter",
        "_full_window",
        "_headers",
        "_inbound",
        "_low_window",
        "_out",
        "_stream_window",
        "_streams",
        "_window",
        "events",
        "now",
        "opened_at",
        "refusing",
    )

    def __init__(
        self, bounds: Bounds, headers: HeaderReader, out: Outbound, frame_limiter: FrameRateLimiter, now: float
    ) -> None:
        self._bounds = bounds
        self._headers: HeaderReader | UnreadHeaders = headers
        self._out = out
        self._frame_limiter = frame_limiter
        self._streams = Streams(bounds.max_concurrent_streams)
        self._inbound = Inbound(bounds)
        self._stream_window = max(DEFAULT_WINDOW, bounds.max_message_bytes + PREFIX_BYTES)
        self._window = self._full_window = max(DEFAULT_WINDOW, bounds.receive_window_bytes)
        self._low_window = self._full_window // 2
        self.now = self.opened_at = now
        self.events: list[Event] = []
        self.refusing = False

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        return len(self._streams.live)

    @property
    def highest(self) -> int:
        """The highest stream number that the client has opened."""
        return self._streams.highest

    @property
    def request_bytes(self) -> int:
        """Bytes of content of incomplete calls."""
        return self._inbound.buffered

    def initial_frames(self) -> bytes:
        """The first frames to send: our SETTINGS, and the connection's window."""
        bounds = self._bounds
        values = (
            (frames.SETTINGS_HEADER_TABLE_SIZE, bounds.header_table_bytes),
            (frames.SETTINGS_MAX_CONCURRENT_STREAMS, bounds.max_concurrent_streams),
            (frames.SETTINGS_INITIAL_WINDOW_SIZE, self._stream_window),
            (frames.SETTINGS_MAX_FRAME_SIZE, bounds.max_frame_bytes),
            # larger than the limit of decoded fields, because fields beyond that are dropped, not refused
            (frames.SETTINGS_MAX_HEADER_LIST_SIZE, bounds.max_header_block_bytes),
        )
        increment = self._full_window - DEFAULT_WINDOW
        return frames.settings(values) + (frames.window_update(0, increment) if increment else b"")

    def drain_now(self) -> None:
        """Refuse new calls and reset incomplete ones with REFUSED_STREAM, so that the client may retry them.

        Fields are not decoded from now on, because no later call needs HPACK's state.
        """
        self.refusing = True
        self._headers = UnreadHeaders(GrpcFailure(Status.UNAVAILABLE, "the connection ends"))
        for number in [number for number, stream in self._streams.live.items() if stream.state is State.OPEN]:
            stream = self._streams.abandon(number)
            self._out.frames.append(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
            if stream is not None:
                self._discard(number, stream)

    def deny(self, failure: GrpcFailure) -> None:
        """Fail every new call with `failure`, without decoding its fields or keeping its content."""
        self._headers = UnreadHeaders(failure)

    # frames from the client

    def on_block(self, flags: int, number: int, block: bytes) -> None:
        """Handle a complete header block. Decode it in any case: the dynamic table belongs to the connection."""
        streams = self._streams
        if number > streams.highest:
            streams.highest = number
            head = self._headers.head(block)
            if self.refusing or len(streams.live) >= self._bounds.max_concurrent_streams:
                raise StreamFault(ErrorCode.REFUSED_STREAM, "no more streams")
            self.opened_at = self.now
            stream = streams.live[number] = Stream(head, self._stream_window, self.now)
            if flags & END_STREAM:
                self._on_end(number, stream, b"")
            elif isinstance(head.refusal, GrpcFailure):
                self._refuse(number, stream, head.refusal)  # at once: a streaming client may wait for our answer
            return
        fields = self._headers.fields(block)
        if not streams.accepts(number, Received.HEADERS):
            self._frame_limiter.count(CountedFrame.OTHER, self.now)
            return
        if not flags & END_STREAM:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end their stream")
        check_trailers(fields)
        self._on_end(number, streams.live[number], b"")

    def on_data(self, flags: int, number: int, payload: bytes) -> None:
        """Handle a DATA frame."""
        size = len(payload)
        self._window -= size
        if self._window < self._low_window:
            self._open_window()
        stream = self._streams.live.get(number)
        if stream is None or stream.state is not State.OPEN or stream.unread:
            self._streams.accepts(number, Received.DATA)  # raises if it is not allowed
            if size < _USELESS_BYTES:
                self._frame_limiter.count(CountedFrame.OTHER, self.now)
            return
        stream.received += size
        stream.recv_window -= size
        if stream.recv_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & frames.PADDED:
            payload = self._without_padding(number, stream, payload)
        if flags & END_STREAM:
            self._on_end(number, stream, payload)
        elif payload:
            if size < _SMALL_BYTES:
                self._frame_limiter.count(CountedFrame.OTHER, self.now)
            failure = self._inbound.gather(stream, payload)
            if failure is not None:
                self._emit_unread(number, stream, failure)
        else:
            self._frame_limiter.count(CountedFrame.EMPTY, self.now)

    def _open_window(self) -> None:
        """Open the connection's window again. Raises `ConnectionFault` if the peer sent more than it allowed.

        Content is read at once, so the window only limits bytes in transit; `Inbound.buffered` limits what is kept.
        """
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        self._out.frames.append(frames.window_update(0, self._full_window - self._window))
        self._window = self._full_window

    def _without_padding(self, number: int, stream: Stream, payload: bytes) -> bytes:
        """Return the content, and open the stream's window again by the padding."""
        content = frames.unpad(payload)
        padding = len(payload) - len(content)
        stream.recv_window += padding
        stream.received -= padding
        self._out.frames.append(frames.window_update(number, padding))
        return content

    def _on_end(self, number: int, stream: Stream, content: bytes) -> None:
        """The client has ended the stream: check the call, and emit it or answer its error."""
        stream.state = State.HALF_CLOSED
        if stream.unread:
            return
        if stream.body:
            content = bytes(stream.body + content)
            self._inbound.release(stream)
        head = stream.head
        if head.content_length is not None and head.content_length != stream.received:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length differs from the content's")
        if head.refusal is not None:
            self._refuse(number, stream, head.refusal)
            return
        message = self._inbound.parse_message(content)
        if message is self._inbound.too_large:
            self._emit_unread(number, stream, message)
        elif isinstance(message, GrpcFailure):
            self._refuse(number, stream, message)
        else:
            stream.awaiting_answer = True
            self.events.append(Request(number, head.path, head.metadata, message, head.timeout))

    def _emit_unread(self, number: int, stream: Stream, failure: GrpcFailure) -> None:
        self._inbound.release(stream)
        stream.awaiting_answer = stream.unread = True
        self.events.append(Unread(number, stream.head.path, failure is BUFFER_FULL))

    def on_rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        """The client gives up."""
        if len(payload) != 4:
            raise frames.wrong_size("RST_STREAM has 4 bytes")
        if self._streams.accepts(number, Received.RST_STREAM):
            self._discard(number, self._streams.live.pop(number))
            self._frame_limiter.count(CountedFrame.RESET, self.now)
        else:
            self._frame_limiter.count(CountedFrame.OTHER, self.now)

    def on_stream_window_update(self, number: int, increment: int) -> None:
        """Handle a WINDOW_UPDATE of a stream."""
        if not self._streams.accepts(number, Received.WINDOW_UPDATE):
            return
        if increment == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if self._out.open_stream_window(number, increment):
            self._finish(number)

    # answers and resets

    def respond(self, number: int, message: bytes) -> None:
        """Answer a call; do nothing if it is over. Raises `ConnectionFault` if too many bytes wait to be sent."""
        stream = self._streams.live.get(number)
        if stream is None or not stream.awaiting_answer:
            return
        stream.awaiting_answer = False
        self._frame_limiter.answered += 1
        if self._out.answer(number, message, self.now):
            if stream.state is State.OPEN:
                self._finish(number)
            else:
                del self._streams.live[number]

    def fail(self, number: int, status: Status, message: str) -> None:
        """Answer a call with a status other than OK; do nothing if it is over."""
        stream = self._streams.live.get(number)
        if stream is not None and stream.awaiting_answer:
            self._refuse(number, stream, GrpcFailure(status, message))

    def _refuse(self, number: int, stream: Stream, refusal: Refusal) -> None:
        stream.awaiting_answer = False
        self._frame_limiter.answered += 1
        if isinstance(refusal, HttpFailure):
            block = http_block(refusal.http_status)
            done = self._out.answer_in_parts(number, block, NOT_GRPC_TEXT, b"", self.now)
        else:
            self._out.answer_with_headers(number, failure_block(refusal))
            done = True
        if done:
            self._finish(number)

    def _finish(self, number: int) -> None:
        """Close a stream whose answer is sent. Ask a client that still sends to stop (RFC 9113, section 8.1)."""
        stream = self._streams.live[number]
        if stream.state is State.OPEN:
            self._streams.abandon(number)
            self._inbound.release(stream)
            self._out.frames.append(frames.rst_stream(number, ErrorCode.NO_ERROR))
        else:
            del self._streams.live[number]

    def reset(self, number: int, code: ErrorCode) -> None:
        """Reset the stream. It counts like a reset by the client, because it costs as much."""
        stream = self._streams.abandon(number)
        self._out.frames.append(frames.rst_stream(number, code))
        if stream is not None:
            self._discard(number, stream)
        self._frame_limiter.count(CountedFrame.RESET, self.now)

    def _discard(self, number: int, stream: Stream) -> None:
        self._inbound.release(stream)
        self._out.drop(number)
        if stream.awaiting_answer:
            self.events.append(Cancelled(number))

    def sent(self, numbers: list[int]) -> None:
        """Close streams whose answers are sent."""
        for number in numbers:
            self._finish(number)

    def reset_slow(self, before: float) -> None:
        """Reset the incomplete streams that were opened at or before that time."""
        overdue = [
            number
            for number, stream in self._streams.live.items()
            if stream.state is State.OPEN and stream.opened <= before
        ]
        for number in overdue:
            self.reset(number, ErrorCode.CANCEL)

    def clear(self) -> None:
        """Drop all streams, because the connection is over."""
        self._streams.live.clear()

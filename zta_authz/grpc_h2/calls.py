"""The calls of a connection, from their header block to their answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz.grpc_h2 import frames
from zta_authz.grpc_h2.bounds import Costly
from zta_authz.grpc_h2.errors import ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import END_STREAM
from zta_authz.grpc_h2.headers import UnreadHeaders
from zta_authz.grpc_h2.inbound import TOO_MUCH, Inbound, consume_window
from zta_authz.grpc_h2.messages import NOT_GRPC_TEXT, failure_block, http_block
from zta_authz.grpc_h2.request import Failed, NotGrpc, check_trailers
from zta_authz.grpc_h2.states import Received, State
from zta_authz.grpc_h2.streams import Stream, Streams

if TYPE_CHECKING:
    from zta_authz.grpc_h2.bounds import Bounds, FrameRateLimiter
    from zta_authz.grpc_h2.headers import HeaderReader
    from zta_authz.grpc_h2.outbound import Outbound
    from zta_authz.grpc_h2.request import Metadata, Refusal


class Request(NamedTuple):
    """A whole call. `timeout` is seconds from its arrival, None for no deadline."""

    stream: int
    path: str
    metadata: Metadata
    message: bytes
    timeout: float | None


class Cancelled(NamedTuple):
    """A call that was given up without an answer: by its caller, or because of what its caller did."""

    stream: int


class Unread(NamedTuple):
    """A call whose message is larger than may be, or, with `too_much`, one more than is kept. Answer it, too.

    Its client may still send; that is dropped.
    """

    stream: int
    path: str
    too_much: bool


Event = Request | Cancelled | Unread

_SMALL_BYTES: Final = 64
"""Content in pieces smaller than that, its last one aside, costs us more than it brings: such a frame counts too."""
_USELESS_BYTES: Final = 1024
"""Content of that size, for a stream that is over, has cost the peer its bandwidth; less counts as a useless frame."""


class Calls:
    """The calls of one connection. `now` is the time of what is being dealt with; `events` is what comes of it."""

    __slots__ = (
        "_bounds",
        "_headers",
        "_inbound",
        "_out",
        "_streams",
        "_tally",
        "events",
        "now",
        "opened_at",
        "refusing",
    )

    def __init__(
        self, bounds: Bounds, headers: HeaderReader, out: Outbound, tally: FrameRateLimiter, now: float
    ) -> None:
        self._bounds = bounds
        self._headers: HeaderReader | UnreadHeaders = headers
        self._out = out
        self._tally = tally
        self._streams = Streams(bounds.max_concurrent_streams)
        self._inbound = Inbound(bounds)
        self.now = self.opened_at = now
        self.events: list[Event] = []
        self.refusing = False

    @property
    def under_way(self) -> int:
        """Streams that are not over."""
        return len(self._streams.live)

    @property
    def highest(self) -> int:
        """The last stream that the client opened."""
        return self._streams.highest

    @property
    def buffered_bytes(self) -> int:
        """Content of calls that are not complete."""
        return self._inbound.buffered

    def greeting(self) -> bytes:
        """Our SETTINGS, and the connection's window."""
        bounds, window = self._bounds, self._inbound.window
        ours = (
            (frames.SETTINGS_HEADER_TABLE_SIZE, bounds.header_table_bytes),
            (frames.SETTINGS_MAX_CONCURRENT_STREAMS, bounds.max_concurrent_streams),
            (frames.SETTINGS_INITIAL_WINDOW_SIZE, self._inbound.stream_room),
            (frames.SETTINGS_MAX_FRAME_SIZE, bounds.max_frame_bytes),
            (
                frames.SETTINGS_MAX_HEADER_LIST_SIZE,
                bounds.max_header_block_bytes,
            ),  # more than is kept: the rest is dropped
        )
        wider = window - frames.DEFAULT_WINDOW
        return frames.settings(ours) + (frames.window_update(0, wider) if wider else b"")

    def turn_away(self) -> None:
        """Take no new call, and reset those that are not complete: the client may ask again, nothing was done.

        From now on no field is decoded: no later call needs HPACK's state.
        """
        self.refusing = True
        self._headers = UnreadHeaders(Failed(Status.UNAVAILABLE, "the connection ends"))
        for number in [number for number, stream in self._streams.live.items() if stream.state is State.OPEN]:
            stream = self._streams.abandon(number)
            self._out.frames.append(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
            if stream is not None:
                self._forget(number, stream)

    def deny(self, failed: Failed) -> None:
        """Fail every call that begins from now on, whatever it is: its fields are not decoded, its content not kept."""
        self._headers = UnreadHeaders(failed)

    # what the client sends

    def on_block(self, flags: int, number: int, block: bytes) -> None:
        """A whole header block. It is decoded whatever becomes of the stream: the dynamic table is the connection's."""
        streams = self._streams
        if number > streams.highest:
            streams.highest = number
            head = self._headers.head(block)
            if self.refusing or len(streams.live) >= self._bounds.max_concurrent_streams:
                raise StreamFault(ErrorCode.REFUSED_STREAM, "no more streams")
            self.opened_at = self.now
            stream = streams.live[number] = Stream(head, self._inbound.stream_room, self.now)
            if flags & END_STREAM:
                self._on_end(number, stream, b"")
            elif isinstance(head.refusal, Failed):
                self._refuse(number, stream, head.refusal)  # at once: a stream's client might wait for us to begin
            return
        fields = self._headers.fields(block)
        if not streams.takes(number, Received.HEADERS):
            self._tally.count(Costly.OTHER, self.now)
            return
        if not flags & END_STREAM:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end their stream")
        check_trailers(fields)
        self._on_end(number, streams.live[number], b"")

    def on_data(self, flags: int, number: int, payload: bytes) -> None:
        """A DATA frame."""
        size = len(payload)
        reopened = self._inbound.account(size)
        if reopened:
            self._out.frames.append(reopened)
        stream = self._streams.live.get(number)
        if stream is None or stream.state is not State.OPEN or stream.unread:
            self._streams.takes(number, Received.DATA)  # or it raises
            if size < _USELESS_BYTES:
                self._tally.count(Costly.OTHER, self.now)
            return
        consume_window(stream, size)
        if flags & frames.PADDED:
            payload = self._without_padding(number, stream, payload)
        if flags & END_STREAM:
            self._on_end(number, stream, payload)
        elif payload:
            if size < _SMALL_BYTES:
                self._tally.count(Costly.OTHER, self.now)
            failed = self._inbound.gather(stream, payload)
            if failed is not None:
                self._hand_over_unread(number, stream, failed)
        else:
            self._tally.count(Costly.EMPTY, self.now)

    def _without_padding(self, number: int, stream: Stream, payload: bytes) -> bytes:
        """The content; the padding's part of the stream's window is given back at once."""
        content = frames.unpad(payload)
        padding = len(payload) - len(content)
        stream.room += padding
        stream.received -= padding
        self._out.frames.append(frames.window_update(number, padding))
        return content

    def _on_end(self, number: int, stream: Stream, content: bytes) -> None:
        """The client has said all: judge the call, and hand it over if it is one."""
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
        message = self._inbound.message_of(content)
        if message is self._inbound.too_large:
            self._hand_over_unread(number, stream, message)
        elif isinstance(message, Failed):
            self._refuse(number, stream, message)
        else:
            stream.called = True
            self.events.append(Request(number, head.path, head.metadata, message, head.timeout))

    def _hand_over_unread(self, number: int, stream: Stream, why: Failed) -> None:
        self._inbound.release(stream)
        stream.called = stream.unread = True
        self.events.append(Unread(number, stream.head.path, why is TOO_MUCH))

    def on_rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        """The client gives up."""
        if len(payload) != 4:
            raise frames.wrong_size("RST_STREAM has 4 bytes")
        if self._streams.takes(number, Received.RST_STREAM):
            self._forget(number, self._streams.live.pop(number))
            self._tally.count(Costly.RESET, self.now)
        else:
            self._tally.count(Costly.OTHER, self.now)

    def on_window_update(self, number: int, increment: int) -> None:
        """The client lets us send more on a stream."""
        if not self._streams.takes(number, Received.WINDOW_UPDATE):
            return
        if increment == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if self._out.open_stream_window(number, increment):
            self._over(number)

    # what becomes of a call

    def respond(self, number: int, message: bytes) -> None:
        """Answer; nothing happens if the call is over. Raises `ConnectionFault` if too much waits to be sent."""
        stream = self._streams.live.get(number)
        if stream is None or not stream.called:
            return
        stream.called = False
        self._tally.answered += 1
        if self._out.answer(number, message, self.now):
            self._over(number)

    def fail(self, number: int, status: Status, message: str) -> None:
        """Answer with a status other than OK; as `respond`."""
        stream = self._streams.live.get(number)
        if stream is not None and stream.called:
            self._refuse(number, stream, Failed(status, message))

    def _refuse(self, number: int, stream: Stream, refusal: Refusal) -> None:
        stream.called = False
        self._tally.answered += 1
        if isinstance(refusal, NotGrpc):
            block = http_block(refusal.http_status)
            done = self._out.in_parts(number, block, NOT_GRPC_TEXT, b"", self.now)
        else:
            self._out.head_only(number, failure_block(refusal))
            done = True
        if done:
            self._over(number)

    def _over(self, number: int) -> None:
        """The answer is out. A client that still sends is told to stop (RFC 9113, section 8.1)."""
        stream = self._streams.live[number]
        if stream.state is State.OPEN:
            self._streams.abandon(number)
            self._inbound.release(stream)
            self._out.frames.append(frames.rst_stream(number, ErrorCode.NO_ERROR))
        else:
            del self._streams.live[number]

    def reset(self, number: int, code: ErrorCode) -> None:
        """End the stream. It counts as a reset: whoever makes us reset streams costs as much as one who resets them."""
        stream = self._streams.abandon(number)
        self._out.frames.append(frames.rst_stream(number, code))
        if stream is not None:
            self._forget(number, stream)
        self._tally.count(Costly.RESET, self.now)

    def _forget(self, number: int, stream: Stream) -> None:
        self._inbound.release(stream)
        self._out.drop(number)
        if stream.called:
            self.events.append(Cancelled(number))

    def sent(self, numbers: list[int]) -> None:
        """These streams' answers are out."""
        for number in numbers:
            self._over(number)

    def reset_slow(self, before: float) -> None:
        """Reset the streams that were opened before that time and are not complete."""
        slow = [number for number, s in self._streams.live.items() if s.state is State.OPEN and s.opened <= before]
        for number in slow:
            self.reset(number, ErrorCode.CANCEL)

    def clear(self) -> None:
        """The connection is over."""
        self._streams.live.clear()

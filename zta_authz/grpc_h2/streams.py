"""The open streams of a connection, the streams that were reset recently, and the content that streams receive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, Status, StreamFault
from zta_authz.grpc_h2.outbound import PREFIX_BYTES
from zta_authz.grpc_h2.request import GrpcFailure
from zta_authz.grpc_h2.states import TRANSITIONS, FrameAction, State

if TYPE_CHECKING:
    from zta_authz.grpc_h2.bounds import Bounds
    from zta_authz.grpc_h2.request import Head
    from zta_authz.grpc_h2.states import Received

_REMEMBERED: Final = 2
"""How many reset streams are remembered, as a multiple of those that may be open."""


class Stream:
    """A call in progress. `body` is the content received so far; `recv_window` is how many bytes may still come."""

    __slots__ = ("awaiting_answer", "body", "head", "opened", "received", "recv_window", "state", "unread")

    def __init__(self, head: Head, recv_window: int, opened: float) -> None:
        self.head = head
        self.state = State.OPEN
        self.body: bytes | bytearray = b""  # a bytearray from the second part on, so that a part costs no object
        self.received = 0
        self.recv_window = recv_window
        self.opened = opened
        self.awaiting_answer = False  # emitted as an event, and neither answered nor cancelled
        self.unread = False  # its remaining content is dropped


class Streams:
    """`live` are the open streams by number, in order of opening; `highest` is the last that the client opened."""

    __slots__ = ("_abandoned", "_limit", "highest", "live")

    def __init__(self, max_concurrent: int) -> None:
        self.live: dict[int, Stream] = {}
        self.highest = 0
        self._abandoned: dict[int, None] = {}  # oldest first
        self._limit = max_concurrent * _REMEMBERED

    def abandon(self, number: int) -> Stream | None:
        """Remember a stream that we reset, so that its frames in transit are dropped. Return it, None if not open."""
        if len(self._abandoned) >= self._limit:
            del self._abandoned[next(iter(self._abandoned))]
        self._abandoned[number] = None
        return self.live.pop(number, None)

    def state_of(self, number: int) -> State:
        """The state of any stream; a server's stream number is always idle."""
        stream = self.live.get(number)
        if stream is not None:
            return stream.state
        if number > self.highest or not number & 1:
            return State.IDLE
        return State.ABANDONED if number in self._abandoned else State.CLOSED

    def accepts(self, number: int, received: Received) -> bool:
        """Whether to process the frame (else drop it). Raises the fault if the stream's state forbids it."""
        action, code = TRANSITIONS[self.state_of(number)][received]
        if action is FrameAction.STREAM_ERROR:
            raise StreamFault(code, f"{received.name} on a stream that its client has ended")
        if action is FrameAction.CONNECTION_ERROR:
            raise ConnectionFault(code, f"{received.name} on a stream that is not open")
        return action is FrameAction.ACCEPT


_CARDINALITY: Final = GrpcFailure(Status.UNIMPLEMENTED, "a unary call has exactly one message")
_COMPRESSED: Final = GrpcFailure(Status.UNIMPLEMENTED, "compressed messages are not supported")
_TRUNCATED: Final = GrpcFailure(Status.INTERNAL, "the message is shorter than its declared length")
_MALFORMED: Final = GrpcFailure(Status.INTERNAL, "a message's first byte is 0 or 1")
BUFFER_FULL: Final = GrpcFailure(Status.RESOURCE_EXHAUSTED, "too many bytes of calls that are not complete")


class Inbound:
    """The content that the calls of one connection receive. `buffered` is that of incomplete calls, in bytes."""

    __slots__ = ("_max_buffered", "_max_message", "buffered", "too_large")

    def __init__(self, bounds: Bounds) -> None:
        self.buffered = 0
        self._max_buffered = bounds.max_buffered_bytes
        self._max_message = bounds.max_message_bytes
        self.too_large = GrpcFailure(
            Status.RESOURCE_EXHAUSTED, f"the message is larger than {bounds.max_message_bytes} bytes"
        )

    def gather(self, stream: Stream, content: bytes) -> GrpcFailure | None:
        """Keep a part of an incomplete call's content. Return the failure if the call exceeds a limit."""
        if stream.head.refusal is not None:
            return None  # the call is answered without being read
        if stream.body:
            if isinstance(stream.body, bytes):
                stream.body = bytearray(stream.body)
            stream.body += content
        else:
            stream.body = content
        self.buffered += len(content)
        if self.buffered > self._max_buffered:
            return BUFFER_FULL
        body = stream.body
        if len(body) >= PREFIX_BYTES and int.from_bytes(body[1:PREFIX_BYTES], "big") > self._max_message:
            return self.too_large
        return None

    def release(self, stream: Stream) -> None:
        """Free the call's content."""
        if stream.body:
            self.buffered -= len(stream.body)
            stream.body = b""

    def parse_message(self, content: bytes) -> bytes | GrpcFailure:
        """Parse `content`, which must be exactly one message. Failures have the status that gRPC defines for them."""
        size = len(content) - PREFIX_BYTES
        if size < 0:
            return _TRUNCATED if content else _CARDINALITY
        declared = int.from_bytes(content[1:PREFIX_BYTES], "big")
        if content[0] == 0 and declared == size <= self._max_message:
            return content[PREFIX_BYTES:]
        if content[0] > 1:
            return _MALFORMED
        if declared > self._max_message:
            return self.too_large
        if content[0] == 1:
            return _COMPRESSED
        return _TRUNCATED if declared > size else _CARDINALITY

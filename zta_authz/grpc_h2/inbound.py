"""What calls bring: their content against the windows, the bounds and gRPC's framing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import DEFAULT_WINDOW, window_update
from zta_authz.grpc_h2.messages import PREFIX_BYTES
from zta_authz.grpc_h2.request import Failed

if TYPE_CHECKING:
    from zta_authz.grpc_h2.bounds import Bounds
    from zta_authz.grpc_h2.streams import Stream

_CARDINALITY: Final = Failed(Status.UNIMPLEMENTED, "a unary call has exactly one message")
_COMPRESSED: Final = Failed(Status.UNIMPLEMENTED, "compressed messages are not supported")
_TRUNCATED: Final = Failed(Status.INTERNAL, "the message is shorter than its length says")
_MALFORMED: Final = Failed(Status.INTERNAL, "a message's first byte is 0 or 1")
TOO_MUCH: Final = Failed(Status.RESOURCE_EXHAUSTED, "too many bytes of calls that are not complete")


class Inbound:
    """One connection's way in. `buffered` is the content of calls that are not complete, in bytes."""

    __slots__ = ("_low", "_max_buffered", "_max_message", "_window", "buffered", "stream_room", "too_large", "window")

    def __init__(self, bounds: Bounds) -> None:
        self.window = max(DEFAULT_WINDOW, bounds.receive_window_bytes)
        self.stream_room = max(DEFAULT_WINDOW, bounds.max_message_bytes + PREFIX_BYTES)
        self.buffered = 0
        self._window = self.window
        self._low = self.window // 2
        self._max_buffered = bounds.max_buffered_bytes
        self._max_message = bounds.max_message_bytes
        self.too_large = Failed(
            Status.RESOURCE_EXHAUSTED, f"the message is larger than {bounds.max_message_bytes} bytes"
        )

    def account(self, size: int) -> bytes:
        """Take `size` bytes of the connection's window; the frame that opens it again, or nothing.

        Raises `ConnectionFault` where the peer sent more than it may. What came is taken at once, so the window only
        bounds what is under way; what we keep is bounded by `buffered`.
        """
        self._window -= size
        if self._window >= self._low:
            return b""
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the connection's window")
        increment, self._window = self.window - self._window, self.window
        return window_update(0, increment)

    def gather(self, stream: Stream, content: bytes) -> Failed | None:
        """Keep a part of an incomplete call's content; why it is not read any further, if so."""
        if stream.head.refusal is not None:
            return None  # it will be answered without being read
        if stream.body:
            if isinstance(stream.body, bytes):
                stream.body = bytearray(stream.body)
            stream.body += content
        else:
            stream.body = content
        self.buffered += len(content)
        if self.buffered > self._max_buffered:
            return TOO_MUCH
        body = stream.body
        if len(body) >= PREFIX_BYTES and int.from_bytes(body[1:PREFIX_BYTES], "big") > self._max_message:
            return self.too_large
        return None

    def release(self, stream: Stream) -> None:
        """The call's content is no longer kept."""
        if stream.body:
            self.buffered -= len(stream.body)
            stream.body = b""

    def message_of(self, content: bytes) -> bytes | Failed:
        """The one message that `content` is; or why it is not. Says what gRPC's status codes say of each case."""
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


def consume_window(stream: Stream, size: int) -> None:
    """Take `size` bytes of the stream's window. Raises `StreamFault` where the peer sent more than it may."""
    stream.room -= size
    stream.received += size
    if stream.room < 0:
        raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more than the stream's window")

"""One connection of a unary gRPC server: bytes and the time in, calls and bytes out (RFC 9113; gRPC over HTTP/2).

To use it, pass received bytes to `receive` and process the events. `respond` to or `fail` each call, at once or later.
Call `tick` at least every second. After each of these calls, write `bytes_to_send`. Once `finished`, close the
transport and drop the calls in progress.

Nothing here raises for anything that the peer sends. The peer receives RST_STREAM or GOAWAY for its errors, and
`fault` records why the connection ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2 import frames
from zta_authz.grpc_h2.bounds import Bounds, CountedFrame, FrameRateLimiter
from zta_authz.grpc_h2.calls import Calls, Cancelled, Event, Request, Unread
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import ACK, END_HEADERS
from zta_authz.grpc_h2.headers import HeaderReader
from zta_authz.grpc_h2.outbound import Outbound
from zta_authz.grpc_h2.peer_settings import apply_settings
from zta_authz.grpc_h2.reader import FrameReader
from zta_authz.grpc_h2.request import GrpcFailure

if TYPE_CHECKING:
    from zta_authz.grpc_h2.errors import ProtocolError

__all__ = ["Bounds", "Cancelled", "Connection", "ErrorCode", "Event", "Request", "Status", "Unread"]

Handler = Callable[[int, int, bytes], None]
"""Processes a frame: (flags, stream, payload)."""

_KNOWN_TYPES: Final = 10
"""The number of known frame types, 0 to 9. It is also the handler index of all unknown types."""
_DRAIN_PING: Final = b"zta-gone"
"""The content of the PING after the first GOAWAY of a drain: its answer shows that the peer has read both."""
_DRAIN_PING_SECONDS: Final = 1.0
_DRAINED: Final = float("inf")


class Connection:
    """The server side of one connection. Times are seconds of any monotonic clock."""

    __slots__ = (
        "_any_frame",
        "_bounds",
        "_calls",
        "_continuation_only",
        "_drain_began",
        "_frame_limiter",
        "_handlers",
        "_headers",
        "_last_stream",
        "_opened",
        "_out",
        "_peer_closing",
        "_reader",
        "_settings_only",
        "fault",
    )

    def __init__(self, bounds: Bounds, now: float, served: Container[str] | None = None) -> None:
        """`served` are the paths of the known methods; calls of others fail before their content arrives."""
        self._bounds = bounds
        self._opened = now
        self._reader = FrameReader(bounds.max_frame_bytes)
        self._headers = HeaderReader(bounds, served)
        self._frame_limiter = FrameRateLimiter(bounds, now)
        self._out = Outbound(bounds.max_unsent_bytes)
        self._calls = Calls(bounds, self._headers, self._out, self._frame_limiter, now)
        self._last_stream = frames.STREAM_MASK
        self._drain_began: float | None = None  # when the drain began; `_DRAINED` once new streams are refused
        self._peer_closing = False
        self.fault: ProtocolError | None = None
        self._build_handlers()
        self._handlers = self._settings_only
        self._out.frames.append(self._calls.initial_frames())

    def _build_handlers(self) -> None:
        """Build the handlers by frame type: normally, before the first SETTINGS, and inside a header block."""
        unexpected = self._on_unexpected
        self._any_frame: tuple[Handler, ...] = (
            self._calls.on_data,
            self._on_headers,
            self._on_priority,
            self._calls.on_rst_stream,
            self._on_settings,
            unexpected,  # PUSH_PROMISE: a client can't push
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            unexpected,  # CONTINUATION outside a header block
            self._on_unknown,
        )
        self._settings_only: tuple[Handler, ...] = (*[unexpected] * 4, self._on_first_settings, *[unexpected] * 6)
        self._continuation_only: tuple[Handler, ...] = (*[unexpected] * 9, self._on_continuation, unexpected)

    # called by the owner of the transport

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Process received bytes, and return the events in order."""
        calls = self._calls
        events = calls.events = []
        calls.now = now
        if self.fault is None:
            try:
                self._process(data, now)
            except ConnectionFault as fault:
                self._end(fault)
        return events

    def _process(self, data: bytes, now: float) -> None:
        for kind, flags, stream, payload in self._reader.read(data, now):
            try:
                self._handlers[min(kind, _KNOWN_TYPES)](flags, stream, payload)
            except StreamFault as fault:
                self._calls.reset(stream, fault.code)
        if self._reader.fault is not None:
            raise self._reader.fault

    def respond(self, stream: int, message: bytes, now: float) -> None:
        """Answer a call; do nothing if it is over."""
        self._calls.now = now
        try:
            self._calls.respond(stream, message)
        except ConnectionFault as fault:
            self._end(fault)

    def fail(self, stream: int, status: Status, message: str = "") -> None:
        """Answer a call with a gRPC status other than OK and a message; do nothing if it is over."""
        self._calls.fail(stream, status, message)

    def tick(self, now: float) -> list[Event]:
        """Enforce the time limits, and return the events. Call it at least every second."""
        calls = self._calls
        events = calls.events = []
        calls.now = now
        if self.fault is None:
            try:
                self._check_times(now)
            except ConnectionFault as fault:
                self._end(fault)
        return events

    def drain(self) -> None:
        """Refuse new calls once the peer has had time to notice; calls in progress complete."""
        if self.fault is not None or self._drain_began is not None:
            return
        if self._handlers is self._settings_only:
            self._refuse_new_calls()
        else:
            self._drain_began = self._calls.now
            self._out.frames.append(frames.goaway(frames.STREAM_MASK, ErrorCode.NO_ERROR))
            self._out.frames.append(frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def drain_now(self) -> None:
        """Refuse new calls at once: complete calls are answered, all others get REFUSED_STREAM.

        REFUSED_STREAM and GOAWAY let the peer retry on another connection (RFC 9113, section 8.7). The connection ends
        once the peer has read them.
        """
        if self.fault is not None:
            return
        self._send_final_goaway()
        self._calls.drain_now()
        if self._handlers is self._settings_only:
            self._drain_began = _DRAINED
        elif self._drain_began is None:
            self._drain_began = self._calls.now
            self._out.frames.append(frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def deny(self, message: str) -> None:
        """Fail each new call with PERMISSION_DENIED and `message`, without reading it: the peer is not authorized."""
        self._calls.deny(GrpcFailure(Status.PERMISSION_DENIED, message))

    def refuse(self, message: str, code: ErrorCode = ErrorCode.INADEQUATE_SECURITY) -> None:
        """End the connection with GOAWAY, for example because of its TLS parameters. `message` is for the peer."""
        if self.fault is None:
            self._end(ConnectionFault(code, message))

    def bytes_to_send(self) -> bytes:
        """Return the bytes to write now; each byte is returned once."""
        out = self._out.frames
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def release(self) -> None:
        """Break reference cycles once the transport is closed, so that no garbage collection is needed."""
        self._handlers = self._any_frame = self._settings_only = self._continuation_only = ()

    @property
    def finished(self) -> bool:
        """Whether the transport can be closed, after the last bytes are written."""
        if self.fault is not None:
            return True
        return (self._peer_closing or self._drain_began == _DRAINED) and not self._calls.open_streams

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept for the peer: incomplete calls, frames and header blocks, and unsent answers."""
        if self.fault is not None:
            return 0
        partial = self._reader.pending_bytes + self._headers.pending_bytes
        return self._calls.request_bytes + self._out.unsent_bytes + partial

    # time limits

    def _check_times(self, now: float) -> None:
        bounds = self._bounds
        if self._handlers is self._settings_only and now - self._opened > bounds.preface_seconds:
            raise ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS in time")
        for since in (self._reader.since, self._headers.since):
            if since is not None and now - since > bounds.request_seconds:
                raise ConnectionFault(
                    ErrorCode.ENHANCE_YOUR_CALM, "a frame or header block that is not completed in time"
                )
        self._calls.reset_slow(now - bounds.request_seconds)
        if self._out.stalled(now - bounds.stall_seconds):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers wait too long for flow control")
        if self._drain_began is not None:
            if now - self._drain_began > _DRAIN_PING_SECONDS:
                self._refuse_new_calls()
        elif self._is_old(now) or self._is_idle(now):
            self.drain()

    def _is_old(self, now: float) -> bool:
        return 0 < self._bounds.max_age_seconds <= now - self._opened

    def _is_idle(self, now: float) -> bool:
        if self._calls.open_streams:
            return False
        return 0 < self._bounds.idle_seconds <= now - self._calls.opened_at

    def _refuse_new_calls(self) -> None:
        if self._drain_began == _DRAINED:
            return
        self._drain_began = _DRAINED
        self._send_final_goaway()

    def _send_final_goaway(self) -> None:
        """Send the GOAWAY with the last stream that is served, once."""
        if not self._calls.refusing:
            self._calls.refusing = True
            self._last_stream = self._calls.highest
            self._out.frames.append(frames.goaway(self._last_stream, ErrorCode.NO_ERROR))

    def _end(self, fault: ProtocolError) -> None:
        self.fault = fault
        self._calls.clear()
        self._out.clear()
        self._reader.clear()
        last = min(self._calls.highest, self._last_stream)  # must not increase (RFC 9113, section 6.8)
        self._out.frames.append(frames.goaway(last, fault.code, fault.message))

    # frame handlers

    def _on_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on a stream that no client opens")
        if flags & frames.PADDED:
            payload = frames.unpad(payload)
        if flags & frames.PRIORITIZED:
            payload = frames.without_priority(payload, stream)
        if flags & END_HEADERS:
            self._calls.on_block(flags, stream, payload)
        else:
            self._headers.begin(stream, flags, payload, self._calls.now)
            self._handlers = self._continuation_only

    def _on_continuation(self, flags: int, stream: int, payload: bytes) -> None:
        headers = self._headers
        if stream != headers.stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of another stream")
        headers.add(payload)
        if flags & END_HEADERS:
            self._handlers = self._any_frame
            self._calls.on_block(headers.flags, stream, headers.end())

    def _on_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise frames.wrong_size("WINDOW_UPDATE has 4 bytes")
        self._frame_limiter.count(CountedFrame.WINDOW_UPDATE, self._calls.now)
        increment = int.from_bytes(payload, "big") & frames.STREAM_MASK
        if stream:
            self._calls.on_stream_window_update(stream, increment)
        elif increment:
            self._calls.sent(self._out.open_window(increment))
        else:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")

    def _on_first_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & ACK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "an acknowledgement before any SETTINGS")
        self._handlers = self._any_frame
        self._on_settings(flags, stream, payload)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        self._frame_limiter.count(CountedFrame.SETTINGS, self._calls.now)
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if not flags & ACK:
            apply_settings(payload, self._out)
            self._out.frames.append(frames.SETTINGS_ACK)  # before anything sent because of the new values
            self._calls.sent(self._out.send_waiting())
        elif payload:
            raise frames.wrong_size("an acknowledgement of SETTINGS has no content")

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise frames.wrong_size("PING has 8 bytes")
        self._frame_limiter.count(CountedFrame.PING, self._calls.now)
        if not flags & ACK:
            self._out.frames.append(frames.frame(frames.PING, ACK, 0, payload))
        elif payload == _DRAIN_PING and self._drain_began is not None:
            self._refuse_new_calls()

    def _on_goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise frames.wrong_size("GOAWAY has at least 8 bytes")
        self._frame_limiter.count(CountedFrame.OTHER, self._calls.now)
        self._peer_closing = True

    def _on_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            raise frames.wrong_size("PRIORITY has 5 bytes")
        frames.check_priority(payload, stream)
        self._frame_limiter.count(CountedFrame.OTHER, self._calls.now)

    def _on_unknown(self, _flags: int, _stream: int, _payload: bytes) -> None:
        self._frame_limiter.count(CountedFrame.OTHER, self._calls.now)

    def _on_unexpected(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame that is not allowed now")

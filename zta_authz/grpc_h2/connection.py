"""One connection of a unary gRPC server: bytes and the time in, calls and bytes out (RFC 9113; gRPC over HTTP/2).

Use: give `receive` what came and deal with the events; `respond` to or `fail` each call, now or later; call `tick` now
and then; after each of these write `bytes_to_send`; close the transport once `finished`, and drop the calls in work.
Nothing here raises for anything that the peer sends: what it did wrong goes back to it as RST_STREAM or GOAWAY, and
`fault` keeps why the connection ended.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2 import frames
from zta_authz.grpc_h2.bounds import Bounds, Costly, FrameRateLimiter
from zta_authz.grpc_h2.calls import Calls, Cancelled, Event, Request, Unread
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode, Status, StreamFault
from zta_authz.grpc_h2.frames import ACK, END_HEADERS
from zta_authz.grpc_h2.headers import HeaderReader
from zta_authz.grpc_h2.outbound import Outbound
from zta_authz.grpc_h2.peer_settings import apply_settings
from zta_authz.grpc_h2.reader import FrameReader
from zta_authz.grpc_h2.request import Failed

if TYPE_CHECKING:
    from zta_authz.grpc_h2.errors import ProtocolError

__all__ = ["Bounds", "Cancelled", "Connection", "ErrorCode", "Event", "Request", "Status", "Unread"]

Handler = Callable[[int, int, bytes], None]
"""Deals with a frame: (flags, stream, payload)."""

_KINDS: Final = 10
"""Frame types that we know, 0 to 9; whatever is above is handled as this one."""
_NOTICE: Final = b"zta-gone"
"""The PING after the first GOAWAY of a drain: its answer says that the peer has read both."""
_NOTICE_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Connection:
    """The server's side of one connection. Times are seconds of any clock that never goes back."""

    __slots__ = (
        "_all",
        "_bounds",
        "_calls",
        "_continuation_only",
        "_handlers",
        "_headers",
        "_last_call",
        "_last_stream",
        "_opened",
        "_out",
        "_peer_going",
        "_reader",
        "_settings_only",
        "_tally",
        "fault",
    )

    def __init__(self, bounds: Bounds, now: float, served: Container[str] | None = None) -> None:
        """`served` are the paths of methods that there are: others are refused before their content comes."""
        self._bounds = bounds
        self._opened = now
        self._reader = FrameReader(bounds.max_frame_bytes)
        self._headers = HeaderReader(bounds, served)
        self._tally = FrameRateLimiter(bounds, now)
        self._out = Outbound(bounds.max_unsent_bytes)
        self._calls = Calls(bounds, self._headers, self._out, self._tally, now)
        self._last_stream = frames.STREAM_MASK
        self._last_call: float | None = None  # when a drain was announced; `_NEVER` once no new stream is taken
        self._peer_going = False
        self.fault: ProtocolError | None = None
        self._make_tables()
        self._handlers = self._settings_only
        self._out.frames.append(self._calls.greeting())

    def _make_tables(self) -> None:
        """Which frames may come, by type: at first, while a header block is not complete, and else."""
        wrong = self._on_wrong
        self._all: tuple[Handler, ...] = (
            self._calls.on_data,
            self._on_headers,
            self._on_priority,
            self._calls.on_rst_stream,
            self._on_settings,
            wrong,  # PUSH_PROMISE: a client can't push
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            wrong,  # CONTINUATION of nothing
            self._on_unknown,
        )
        self._settings_only: tuple[Handler, ...] = (*[wrong] * 4, self._on_first_settings, *[wrong] * 6)
        self._continuation_only: tuple[Handler, ...] = (*[wrong] * 9, self._on_continuation, wrong)

    # for the owner of the transport

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take what came; what it comes to, in order."""
        calls = self._calls
        events = calls.events = []
        calls.now = now
        if self.fault is None:
            try:
                self._take(data, now)
            except ConnectionFault as fault:
                self._end(fault)
        return events

    def _take(self, data: bytes, now: float) -> None:
        for kind, flags, stream, payload in self._reader.read(data, now):
            try:
                self._handlers[min(kind, _KINDS)](flags, stream, payload)
            except StreamFault as fault:
                self._calls.reset(stream, fault.code)

    def respond(self, stream: int, message: bytes, now: float) -> None:
        """Answer a call; nothing happens if it is over by now."""
        self._calls.now = now
        try:
            self._calls.respond(stream, message)
        except ConnectionFault as fault:
            self._end(fault)

    def fail(self, stream: int, status: Status, message: str = "") -> None:
        """Answer a call with a gRPC status other than OK, and a text for its caller; as `respond`."""
        self._calls.fail(stream, status, message)

    def tick(self, now: float) -> list[Event]:
        """Look at the time, at least every second; what that comes to."""
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
        """Take no new call once the peer has had time to notice; those in work go on."""
        if self.fault is not None or self._last_call is not None:
            return
        if self._handlers is self._settings_only:
            self._stop_taking()
        else:
            self._last_call = self._calls.now
            self._out.frames.append(frames.goaway(frames.STREAM_MASK, ErrorCode.NO_ERROR))
            self._out.frames.append(frames.frame(frames.PING, 0, 0, _NOTICE))

    def turn_away(self) -> None:
        """The peer may no longer ask here. Calls that are complete are answered, all others get REFUSED_STREAM.

        That and GOAWAY tell the peer that it may send them again on another connection (RFC 9113, section 8.7). The
        connection ends once the peer has read so.
        """
        if self.fault is not None:
            return
        self._say_last()
        self._calls.turn_away()
        if self._handlers is self._settings_only:
            self._last_call = _NEVER
        elif self._last_call is None:
            self._last_call = self._calls.now
            self._out.frames.append(frames.frame(frames.PING, 0, 0, _NOTICE))

    def deny(self, message: str) -> None:
        """The peer may not ask, or no longer: each new call fails with PERMISSION_DENIED and this text, unread."""
        self._calls.deny(Failed(Status.PERMISSION_DENIED, message))

    def refuse(self, message: str, code: ErrorCode = ErrorCode.INADEQUATE_SECURITY) -> None:
        """End the connection: what was agreed on for it can't serve. `message` is for the peer."""
        if self.fault is None:
            self._end(ConnectionFault(code, message))

    def bytes_to_send(self) -> bytes:
        """What to write now; each byte is given once."""
        out = self._out.frames
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def let_go(self) -> None:
        """The transport is gone, and nothing comes any more: end without the help of the garbage collector."""
        self._handlers = self._all = self._settings_only = self._continuation_only = ()

    @property
    def finished(self) -> bool:
        """True once the transport can be closed, after the last bytes to send."""
        if self.fault is not None:
            return True
        return (self._peer_going or self._last_call == _NEVER) and not self._calls.under_way

    @property
    def held_bytes(self) -> int:
        """What is kept for the peer: incomplete calls, frames and header blocks, and answers that wait."""
        if self.fault is not None:
            return 0
        begun = self._reader.pending_bytes + self._headers.pending_bytes
        return self._calls.buffered_bytes + self._out.unsent_bytes + begun

    # time

    def _check_times(self, now: float) -> None:
        bounds = self._bounds
        if self._handlers is self._settings_only and now - self._opened > bounds.preface_seconds:
            raise ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "no SETTINGS in time")
        for since in (self._reader.since, self._headers.since):
            if since is not None and now - since > bounds.request_seconds:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame or header block that does not get complete")
        self._calls.reset_slow(now - bounds.request_seconds)
        if self._out.stalled(now - bounds.stall_seconds):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers wait too long for flow control")
        if self._last_call is not None:
            if now - self._last_call > _NOTICE_SECONDS:
                self._stop_taking()
        elif self._is_old(now) or self._is_idle(now):
            self.drain()

    def _is_old(self, now: float) -> bool:
        return 0 < self._bounds.max_age_seconds <= now - self._opened

    def _is_idle(self, now: float) -> bool:
        if self._calls.under_way:
            return False
        return 0 < self._bounds.idle_seconds <= now - self._calls.opened_at

    def _stop_taking(self) -> None:
        if self._last_call == _NEVER:
            return
        self._last_call = _NEVER
        self._say_last()

    def _say_last(self) -> None:
        """Name the last stream that is served, once."""
        if not self._calls.refusing:
            self._calls.refusing = True
            self._last_stream = self._calls.highest
            self._out.frames.append(frames.goaway(self._last_stream, ErrorCode.NO_ERROR))

    def _end(self, fault: ProtocolError) -> None:
        self.fault = fault
        self._calls.clear()
        self._out.clear()
        self._reader.clear()
        last = min(self._calls.highest, self._last_stream)  # it may not grow (RFC 9113, section 6.8)
        self._out.frames.append(frames.goaway(last, fault.code, fault.message))

    # frames of the connection

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
            self._handlers = self._all
            self._calls.on_block(headers.flags, stream, headers.end())

    def _on_window_update(self, _flags: int, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise frames.wrong_size("WINDOW_UPDATE has 4 bytes")
        self._tally.count(Costly.WINDOW_UPDATE, self._calls.now)
        increment = int.from_bytes(payload, "big") & frames.STREAM_MASK
        if stream:
            self._calls.on_window_update(stream, increment)
        elif increment:
            self._calls.sent(self._out.open_window(increment))
        else:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")

    def _on_first_settings(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & ACK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "an acknowledgement before any SETTINGS")
        self._handlers = self._all
        self._on_settings(flags, stream, payload)

    def _on_settings(self, flags: int, stream: int, payload: bytes) -> None:
        self._tally.count(Costly.SETTINGS, self._calls.now)
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if not flags & ACK:
            apply_settings(payload, self._out)
            self._out.frames.append(frames.SETTINGS_ACK)  # before anything that the new values let us send
            self._calls.sent(self._out.send_waiting())
        elif payload:
            raise frames.wrong_size("an acknowledgement of SETTINGS has no content")

    def _on_ping(self, flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise frames.wrong_size("PING has 8 bytes")
        self._tally.count(Costly.PING, self._calls.now)
        if not flags & ACK:
            self._out.frames.append(frames.frame(frames.PING, ACK, 0, payload))
        elif payload == _NOTICE and self._last_call is not None:
            self._stop_taking()

    def _on_goaway(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise frames.wrong_size("GOAWAY has at least 8 bytes")
        self._tally.count(Costly.OTHER, self._calls.now)
        self._peer_going = True

    def _on_priority(self, _flags: int, stream: int, payload: bytes) -> None:
        if stream == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != 5:
            raise frames.wrong_size("PRIORITY has 5 bytes")
        frames.check_priority(payload, stream)
        self._tally.count(Costly.OTHER, self._calls.now)

    def _on_unknown(self, _flags: int, _stream: int, _payload: bytes) -> None:
        self._tally.count(Costly.OTHER, self._calls.now)

    def _on_wrong(self, _flags: int, _stream: int, _payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame that must not come now")

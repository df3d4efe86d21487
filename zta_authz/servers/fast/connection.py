"""One connection of the fast server: an asyncio protocol around `grpc_h2.Connection`."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from zta_authz.errors import Reason
from zta_authz.grpc_h2.connection import Cancelled, Connection, ErrorCode, Request, Status
from zta_authz.servers.fast.receive_time import ReceiveTime
from zta_authz.servers.fast.tls import NotHttp2, UnauthorizedPeer
from zta_authz.servers.methods import CallContext
from zta_authz.sockets import peer_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.grpc_h2.connection import Event, Unread
    from zta_authz.servers.fast.registry import ConnectionRegistry
    from zta_authz.servers.fast.tls import Caller

_LOG = logging.getLogger(__name__)
_CALLS_PER_TURN: Final = 64
"""Calls that one connection may start before the others get their turn."""
_TURN_BYTES: Final = 16 * 1024
"""The most input handled between two looks at the clock; it may contain many small frames."""
_TURN_SECONDS: Final = 0.0015
"""A turn that took this long ends at the next look at the clock.

Shorter turns cost too much: pausing and resuming reading costs as much as a few calls.
"""
_RECOUNT_BYTES: Final = 4096
"""Larger input makes the registry recount buffered bytes at once; smaller input is counted at the next tick."""
_RENEW_SECONDS: Final = 2.0
"""A connection is drained this long before its peer's certificate expires, so that the peer reconnects."""
_LINGER_SECONDS: Final = 5.0
"""How long a peer may take to read the remaining output after we closed the connection."""
_MAX_DISCARDED_BYTES: Final = 256 * 1024
"""Input discarded after closing; a peer that sends more is cut off."""


class Abort(Exception):
    """Raised by a method to answer with a gRPC status other than OK."""

    def __init__(self, status: Status, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FastConnection(asyncio.Protocol):
    """Serves one peer until either side closes the connection."""

    def __init__(self, registry: ConnectionRegistry) -> None:
        self._registry = registry
        self._loop = registry.loop
        self._connection = Connection(registry.bounds, self._loop.time(), registry.methods)
        self._caller: Caller | None = None
        self._caller_id = ""
        self._drain_at: float | None = None  # when to drain an unauthorized peer
        self.counted_bytes = 0
        """`buffered_bytes` when `ConnectionRegistry` last counted them."""
        self._backlog: deque[Event] = deque()
        self._unread = bytearray()
        self._turn_scheduled = False
        self._receive_time = ReceiveTime(registry.loop_turns)
        self._stalled_since: float | None = None
        self._closed_at: float | None = None
        self._discarded = 0
        self._transport: asyncio.Transport

    # called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Authorize the peer before reading any of its bytes."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's implements it without inheriting
        if not self._registry.add(self):
            self._transport.abort()
            return
        try:
            self._authorize_peer()
        except NotHttp2 as refusal:
            self._registry.refused(str(refusal))
            self._connection.refuse(str(refusal))
        except UnauthorizedPeer as refusal:
            self._deny(str(refusal))
        except Exception as error:  # noqa: BLE001  a peer that can't be authorized is denied, whatever the reason
            self._deny(f"it could not be authorized ({type(error).__qualname__})")
        self._flush()

    def _deny(self, reason: str) -> None:
        """Answer each call with an authorization error, and drain the connection after `stranger_seconds`."""
        self._drain_at = self._loop.time() + self._registry.limits.stranger_seconds
        self._connection.deny(Reason.CALLER_NOT_ALLOWED.value)
        self._registry.add_unauthorized(self, reason)

    def _authorize_peer(self) -> None:
        admission = self._registry.admission
        if admission.tls is not None:
            self._caller = admission.tls.caller_of(self._transport.get_extra_info("ssl_object"))
            self._caller_id = self._caller.name
        elif admission.peer_uids:
            peer = self._transport.get_extra_info("socket")
            is_unix = peer is not None and peer.family == socket.AF_UNIX
            if is_unix and peer_uid(peer) not in admission.peer_uids:
                raise UnauthorizedPeer("the peer's user is not in `socket.peer_uids`")

    def _recheck_caller(self) -> None:
        """Close the connection if its caller is no longer authorized; it may reconnect with another certificate.

        No further input is read. A proxy repeats unanswered calls on another connection and loses none.
        """
        if self._caller is not None and not self._caller.may_call(time.time()):
            self._registry.refused(f"the certificate of {self._caller_id} is no longer valid; its connection is closed")
            self._caller = None
            self._connection.drain_now()

    def data_received(self, data: bytes) -> None:
        """Handle input."""
        if self._closed_at is not None:
            self._discarded += len(data)
            if self._discarded > _MAX_DISCARDED_BYTES:
                self._transport.abort()
            return
        if self._caller is not None:
            self._recheck_caller()
        began = time.monotonic()
        if not (self._backlog or self._unread):
            self._receive_time.received(len(data), began)
        if self._unread or len(data) > _TURN_BYTES:
            self._unread += data
            if not self._turn_scheduled and self._stalled_since is None:
                self._run_turn(began)
            return
        now = self._loop.time()
        self._handle(self._connection.receive(data, now), now)
        if len(data) > _RECOUNT_BYTES:
            self._registry.count_buffered(self)
        self._registry.loop_turns.end_turn(began)

    def eof_received(self) -> None:
        """Do nothing: the transport closes."""

    def pause_writing(self) -> None:
        """Stop reading while the peer does not read."""
        self._stalled_since = self._loop.time()
        self._pause_reading()

    def resume_writing(self) -> None:
        """Continue once the peer reads again."""
        self._stalled_since = None
        if self._backlog or self._unread:
            self._schedule_turn()
        else:
            self._resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop calls that have not started."""
        del exc
        self._closed_at = self._loop.time()
        self._backlog.clear()
        self._unread.clear()
        self._connection.release()
        self._registry.remove(self)

    # calls

    def _handle(self, events: Sequence[Event], now: float) -> None:
        if self._backlog or len(events) > _CALLS_PER_TURN:
            self._backlog.extend(events)
            self._schedule_turn()
            return
        for event in events:
            self._start(event, now)
        self._flush()

    def _schedule_turn(self) -> None:
        """Continue after the other connections have had their turn."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._pause_reading()
            self._loop.call_soon(self._run_next_turn)

    def _pause_reading(self) -> None:
        self._receive_time.pause()
        self._transport.pause_reading()

    def _run_next_turn(self) -> None:
        self._turn_scheduled = False
        self._run_turn(time.monotonic())

    def _run_turn(self, began: float) -> None:
        """Handle pending input and events for at most about `_TURN_SECONDS`."""
        if self._stalled_since is None and self._closed_at is None:
            self._handle_part()
            while self._has_work and time.monotonic() - began < _TURN_SECONDS:
                self._handle_part()
        self._flush()
        self._registry.loop_turns.end_turn(began)
        if self._closed_at is not None or self._stalled_since is not None:
            return
        if self._has_work:
            self._schedule_turn()
        elif self._receive_time.paused:
            self._resume_reading()

    @property
    def _has_work(self) -> bool:
        return bool(self._backlog or self._unread) and self._closed_at is None

    def _handle_part(self) -> None:
        now = self._loop.time()
        if self._unread and not self._backlog:
            part = bytes(self._unread[:_TURN_BYTES])
            del self._unread[:_TURN_BYTES]
            self._backlog.extend(self._connection.receive(part, now))
            self._registry.count_buffered(self)
        for _ in range(min(_CALLS_PER_TURN, len(self._backlog))):
            self._start(self._backlog.popleft(), now)

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._receive_time.resume()

    def _start(self, event: Event, now: float) -> None:
        if not isinstance(event, Request):
            self._handle_unread(event, now)
            return
        if self._connection.fault is not None:
            return
        stream, timeout = event.stream, event.timeout
        method = self._registry.methods.get(event.path)
        if method is None:
            self._connection.fail(stream, Status.UNIMPLEMENTED, "Method not found!")
            return
        deadline = None if timeout is None else self._receive_time.at + timeout
        try:
            response = method(event.message, CallContext(event.metadata, deadline), self._caller_id)
        except Exception as error:  # noqa: BLE001  a method's failure fails its call, not the connection
            self._fail(stream, error)
        else:
            self._connection.respond(stream, response, now)

    def _handle_unread(self, event: Cancelled | Unread, now: float) -> None:
        """Answer a call whose message was not read. A cancelled call needs nothing."""
        if not isinstance(event, Cancelled) and self._connection.fault is None:
            refuse = self._registry.unread.get(event.path)
            if refuse is None:
                self._connection.fail(event.stream, Status.RESOURCE_EXHAUSTED, "the request is too large")
            else:
                self._connection.respond(event.stream, refuse(event.buffer_full), now)

    def _fail(self, stream: int, error: Exception) -> None:
        if isinstance(error, Abort):
            self._connection.fail(stream, error.status, error.message)
        else:
            _LOG.error("a method failed: %s", type(error).__qualname__)
            self._connection.fail(stream, Status.UNKNOWN, "internal error")

    # called by the server

    def tick(self, now: float) -> None:
        """Apply time limits."""
        if self._closed_at is not None or self._stalled_since is not None:
            since = self._closed_at if self._closed_at is not None else self._stalled_since
            limit = _LINGER_SECONDS if self._closed_at is not None else self._registry.bounds.stall_seconds
            if since is not None and now - since > limit:
                self._transport.abort()
            return
        self._recheck_caller()
        if self._should_drain(now):
            self._connection.drain()
        self._handle(self._connection.tick(now), now)
        self._registry.count_buffered(self)

    def _should_drain(self, now: float) -> bool:
        if self._drain_at is not None:
            return now >= self._drain_at
        return self._caller is not None and self._caller.expires - time.time() < _RENEW_SECONDS

    @property
    def buffered_bytes(self) -> int:
        """Bytes buffered for the peer."""
        return self._connection.buffered_bytes + len(self._unread)

    def shed(self) -> None:
        """Close the connection because it buffers the most while all together buffer too much."""
        self._connection.refuse("the server buffers too much", ErrorCode.ENHANCE_YOUR_CALM)
        self._flush()
        self._registry.count_buffered(self)

    def drain(self) -> None:
        """Accept no new calls, and close once those in flight are answered."""
        if self._closed_at is None:
            self._connection.drain()
            self._flush()

    def abort(self) -> None:
        """Close immediately."""
        self._transport.abort()

    def _flush(self) -> None:
        connection, transport = self._connection, self._transport
        data = connection.bytes_to_send()
        if data and not transport.is_closing():
            transport.write(data)
        if connection.finished and self._closed_at is None:
            self._close()

    def _close(self) -> None:
        """Close the connection. After a protocol error, keep discarding input until the peer has read the reason.

        Closing a socket with unread input resets it, and the peer would lose our GOAWAY.
        """
        self._closed_at = self._loop.time()
        self._backlog.clear()
        self._unread.clear()
        if self._connection.fault is None or not self._transport.can_write_eof():
            self._transport.close()  # TLS can't be half-closed; its shutdown reads remaining input
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()

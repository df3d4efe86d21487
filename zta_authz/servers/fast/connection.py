"""One connection of the fast server: an asyncio protocol around `grpc_h2.Connection`."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from zta_authz.errors import Reason
from zta_authz.grpc_h2.connection import Cancelled, Connection, ErrorCode, Request, Status
from zta_authz.servers.fast.receive_time import ReceiveTime
from zta_authz.servers.fast.tls import NotAllowed, NotHttp2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.grpc_h2.connection import Event, Unread
    from zta_authz.grpc_h2.request import Metadata
    from zta_authz.servers.fast.serving import ConnectionRegistry
    from zta_authz.servers.fast.tls import Caller

_LOG = logging.getLogger(__name__)
_TURN: Final = 64
"""Calls that one connection may begin before the others get their turn."""
_TURN_BYTES: Final = 16 * 1024
"""What is read of one connection between two looks at the clock: enough for many small frames."""
_TURN_SECONDS: Final = 0.0015
"""A turn that took as long is over at the next look: to stop reading and begin again costs as much as some calls."""
_WEIGHTY_BYTES: Final = 4096
"""A piece of input past which what is held is looked at; smaller ones add up between two ticks at most."""
_RENEW_SECONDS: Final = 2.0
"""Before its peer's certificate expires, a connection is drained, so that the peer can come with a new one."""
_LINGER_SECONDS: Final = 5.0
"""How long the peer of a connection that we ended may take to read what is left for it."""
_MOST_DISCARDED_BYTES: Final = 256 * 1024
"""What such a peer may still have had under way; one that goes on sending is cut off."""
_UCRED: Final = struct.Struct("3i")
"""pid, uid, gid: what SO_PEERCRED gives (unix(7))."""


class Abort(Exception):
    """Raised by a method that answers with a gRPC status other than OK."""

    def __init__(self, status: Status, message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class CallContext:
    """What a method may ask about its call; as much of `grpc.aio.ServicerContext` as ours use."""

    __slots__ = ("_deadline", "_metadata")

    def __init__(self, metadata: Metadata, deadline: float | None) -> None:
        """`deadline` is a time of `time.monotonic`, None where the caller waits for ever."""
        self._metadata = metadata
        self._deadline = deadline

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The call's metadata, names in lower case."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Seconds until the caller waits no longer, below 0 once it does not; None for one that waits for ever."""
        return None if self._deadline is None else self._deadline - time.monotonic()


class FastConnection(asyncio.Protocol):
    """Serves one peer until either side ends it."""

    def __init__(self, serving: ConnectionRegistry) -> None:
        self._serving = serving
        self._loop = serving.loop
        self._connection = Connection(serving.bounds, self._loop.time(), serving.methods)
        self._caller: Caller | None = None
        self._name = ""
        self._leaves_at: float | None = None  # a peer that may not ask: until when it is told so
        self.weight = 0
        """`held_bytes`, when `ConnectionRegistry` last looked."""
        self._backlog: deque[Event] = deque()
        self._unread = bytearray()
        self._has_turn = False
        self._arrivals = ReceiveTime(serving.rounds)
        self._stalled_since: float | None = None
        self._closed_at: float | None = None
        self._discarded = 0
        self._transport: asyncio.Transport

    # what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Judge the peer before a byte of it is looked at."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        if not self._serving.add(self):
            self._transport.abort()
            return
        try:
            self._judge_peer()
        except NotHttp2 as refusal:
            self._serving.refused(str(refusal))
            self._connection.refuse(str(refusal))
        except NotAllowed as refusal:
            self._deny(str(refusal))
        except Exception as error:  # noqa: BLE001  whoever can't be judged is not let in, whatever the reason
            self._deny(f"it could not be judged ({type(error).__qualname__})")
        self._flush()

    def _deny(self, why: str) -> None:
        """Each call is told that its caller may not ask; after a while the connection is drained."""
        self._leaves_at = self._loop.time() + self._serving.limits.stranger_seconds
        self._connection.deny(Reason.CALLER_NOT_ALLOWED.value)
        self._serving.strange(self, why)

    def _judge_peer(self) -> None:
        gate = self._serving.gate
        if gate.tls is not None:
            self._caller = gate.tls.caller_of(self._transport.get_extra_info("ssl_object"))
            self._name = self._caller.name
        elif gate.peer_uids:
            peer = self._transport.get_extra_info("socket")
            if peer is not None and peer.family == socket.AF_UNIX:
                _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
                if uid not in gate.peer_uids:
                    raise NotAllowed("the peer's user may not ask")

    def _judge_again(self) -> None:
        """Whether the caller may still ask. If not it may come back at once, with another certificate.

        Nothing of what comes from now on is read. A proxy sends it again on another connection, and loses no request.
        """
        if self._caller is not None and not self._caller.holds(time.time()):
            self._serving.refused(f"the certificate of {self._name} no longer holds, so its connection ends")
            self._caller = None
            self._connection.turn_away()

    def data_received(self, data: bytes) -> None:
        """Deal with what came."""
        if self._closed_at is not None:
            self._discarded += len(data)
            if self._discarded > _MOST_DISCARDED_BYTES:
                self._transport.abort()
            return
        if self._caller is not None:
            self._judge_again()
        began = time.monotonic()
        if not (self._backlog or self._unread):
            self._arrivals.came(len(data), began)
        if self._unread or len(data) > _TURN_BYTES:
            self._unread += data
            if not self._has_turn and self._stalled_since is None:
                self._turn(began)
            return
        now = self._loop.time()
        self._deal(self._connection.receive(data, now), now)
        if len(data) > _WEIGHTY_BYTES:
            self._serving.weigh(self)
        self._serving.rounds.turn_over(began)

    def eof_received(self) -> None:
        """The peer sends no more; the transport closes."""

    def pause_writing(self) -> None:
        """The peer does not read: neither do we, until it does."""
        self._stalled_since = self._loop.time()
        self._pause_reading()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._stalled_since = None
        if self._backlog or self._unread:
            self._take_turns()
        else:
            self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the calls that were not begun."""
        del exc
        self._closed_at = self._loop.time()
        self._backlog.clear()
        self._unread.clear()
        self._connection.let_go()
        self._serving.remove(self)

    # calls

    def _deal(self, events: Sequence[Event], now: float) -> None:
        if self._backlog or len(events) > _TURN:
            self._backlog.extend(events)
            self._take_turns()
            return
        for event in events:
            self._begin(event, now)
        self._flush()

    def _take_turns(self) -> None:
        """Go on after the other connections have had their turn."""
        if not self._has_turn:
            self._has_turn = True
            self._pause_reading()
            self._loop.call_soon(self._go_on)

    def _pause_reading(self) -> None:
        self._arrivals.pause()
        self._transport.pause_reading()

    def _go_on(self) -> None:
        """The next turn of what came at once."""
        self._has_turn = False
        self._turn(time.monotonic())

    def _turn(self, began: float) -> None:
        """Deal with what came at once, for a while."""
        if self._stalled_since is None and self._closed_at is None:
            self._deal_with_part()
            while self._has_work and time.monotonic() - began < _TURN_SECONDS:
                self._deal_with_part()
        self._flush()
        self._serving.rounds.turn_over(began)
        if self._closed_at is not None or self._stalled_since is not None:
            return
        if self._has_work:
            self._take_turns()
        elif self._arrivals.paused:
            self._read_on()

    @property
    def _has_work(self) -> bool:
        return bool(self._backlog or self._unread) and self._closed_at is None

    def _deal_with_part(self) -> None:
        now = self._loop.time()
        if self._unread and not self._backlog:
            part = bytes(self._unread[:_TURN_BYTES])
            del self._unread[:_TURN_BYTES]
            self._backlog.extend(self._connection.receive(part, now))
            self._serving.weigh(self)
        for _ in range(min(_TURN, len(self._backlog))):
            self._begin(self._backlog.popleft(), now)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._arrivals.resume()

    def _begin(self, event: Event, now: float) -> None:
        if not isinstance(event, Request):
            self._begin_other(event, now)
            return
        if self._connection.fault is not None:
            return
        number, timeout = event.stream, event.timeout
        method = self._serving.methods.get(event.path)
        if method is None:
            self._connection.fail(number, Status.UNIMPLEMENTED, "Method not found!")
            return
        deadline = None if timeout is None else self._arrivals.at + timeout
        try:
            answer = method(event.message, CallContext(event.metadata, deadline), self._name)
        except Exception as error:  # noqa: BLE001  a method's failure is its caller's to know, not the connection's end
            self._fail(number, error)
        else:
            self._connection.respond(number, answer, now)

    def _begin_other(self, event: Cancelled | Unread, now: float) -> None:
        """A call that was given up needs nothing: it is answered already, or its answer goes nowhere."""
        if not isinstance(event, Cancelled) and self._connection.fault is None:
            refuse = self._serving.unread.get(event.path)
            if refuse is None:
                self._connection.fail(event.stream, Status.RESOURCE_EXHAUSTED, "the request is too large")
            else:
                self._connection.respond(event.stream, refuse(event.too_much), now)

    def _fail(self, number: int, error: Exception) -> None:
        if isinstance(error, Abort):
            self._connection.fail(number, error.status, error.message)
        else:
            _LOG.error("a method failed: %s", type(error).__qualname__)
            self._connection.fail(number, Status.UNKNOWN, "internal error")

    # what the server says

    def tick(self, now: float) -> None:
        """Look at the time."""
        if self._closed_at is not None or self._stalled_since is not None:
            since = self._closed_at if self._closed_at is not None else self._stalled_since
            limit = _LINGER_SECONDS if self._closed_at is not None else self._serving.bounds.stall_seconds
            if since is not None and now - since > limit:
                self._transport.abort()
            return
        self._judge_again()
        if self._is_to_leave(now):
            self._connection.drain()
        self._deal(self._connection.tick(now), now)
        self._serving.weigh(self)

    def _is_to_leave(self, now: float) -> bool:
        if self._leaves_at is not None:
            return now >= self._leaves_at
        return self._caller is not None and self._caller.expires - time.time() < _RENEW_SECONDS

    @property
    def held_bytes(self) -> int:
        """What is kept for the peer."""
        return self._connection.held_bytes + len(self._unread)

    def relieve(self) -> None:
        """End it: of all connections that hold too much together, it holds the most."""
        self._connection.refuse("the server holds too much", ErrorCode.ENHANCE_YOUR_CALM)
        self._flush()
        self._serving.weigh(self)

    def drain(self) -> None:
        """Take no new calls, end once those in work are answered."""
        if self._closed_at is None:
            self._connection.drain()
            self._flush()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    def _flush(self) -> None:
        connection, transport = self._connection, self._transport
        data = connection.bytes_to_send()
        if data and not transport.is_closing():
            transport.write(data)
        if connection.finished and self._closed_at is None:
            self._close()

    def _close(self) -> None:
        """End the connection; a peer that did wrong is still read from, unheeded, until it has read why.

        Closing a socket with unread bytes resets it, and the peer would lose our GOAWAY.
        """
        self._closed_at = self._loop.time()
        self._backlog.clear()
        self._unread.clear()
        if self._connection.fault is None or not self._transport.can_write_eof():
            self._transport.close()  # TLS can't be half-closed; its shutdown reads what comes
        elif not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()

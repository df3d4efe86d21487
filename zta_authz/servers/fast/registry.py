"""State shared by the connections of one fast server: methods, limits, and the open connections."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.servers.fast.receive_time import LoopTurns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.grpc_h2.connection import Bounds
    from zta_authz.servers.fast.tls import TlsListener
    from zta_authz.servers.methods import Methods, Unary

_LOG = logging.getLogger(__name__)
_LOG_INTERVAL_SECONDS: Final = 1.0
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for all connections of a server together, in bytes, seconds or connections."""

    max_connections: int = 1024
    max_handshakes: int = 256  # concurrent TLS handshakes; beyond it the oldest is closed
    handshake_seconds: float = 10.0
    max_strangers: int = 64  # connections of unauthorized peers; beyond it the oldest is closed
    stranger_seconds: float = 10.0  # how long such a peer gets an error for each call before it is drained
    max_held_bytes: int = 256 * _MIB  # incomplete calls, and responses that wait for flow control


@dataclass(frozen=True, slots=True)
class PeerAdmission:
    """Who may call: over TLS, the callers that `tls` allows; on a Unix socket, users in `peer_uids` (empty: all)."""

    peer_uids: frozenset[int] = frozenset()
    tls: TlsListener | None = None


class ServedConnection(Protocol):
    """A connection as its server sees it. `counted_bytes` is what `count_buffered` last counted for it."""

    counted_bytes: int

    @property
    def buffered_bytes(self) -> int:
        """Bytes of incomplete calls, and of responses that wait for flow control."""

    def tick(self, now: float) -> None:
        """Apply time limits at `now`, in the event loop's time."""

    def shed(self) -> None:
        """Close the connection because too much is buffered for its peer."""

    def drain(self) -> None:
        """Accept no new calls, and close once those in flight have ended."""

    def abort(self) -> None:
        """Close immediately."""


class ConnectionRegistry:
    """State shared by the connections of one server."""

    def __init__(
        self,
        methods: Methods,
        bounds: Bounds,
        limits: Limits,
        admission: PeerAdmission,
        unread: Mapping[str, Callable[[bool], bytes]] = MappingProxyType({}),
    ) -> None:
        """`unread` answers calls whose message was not read, by path; its argument is `Unread.buffer_full`."""
        self.unread = unread
        self.methods: Mapping[str, Unary] = {
            f"/{service}/{name}": call for service, calls in methods.items() for name, call in calls.items()
        }
        self.bounds = bounds
        self.limits = limits
        self.admission = admission
        self.loop = asyncio.get_running_loop()
        self.loop_turns = LoopTurns(self.loop)
        self.connections: set[ServedConnection] = set()
        self.stopping = False
        self._unauthorized: dict[ServedConnection, None] = {}  # oldest first
        self._buffered_bytes = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._quiet_until = 0.0

    @property
    def is_full(self) -> bool:
        """True if no further connection is allowed."""
        return len(self.connections) >= self.limits.max_connections

    def add(self, connection: ServedConnection) -> bool:
        """Add a connection. Return False past the limit, and for one whose handshake ended after we stopped."""
        if self.stopping:
            return False
        if self.is_full:
            self.refused("there are too many connections")
            return False
        self.connections.add(connection)
        self._empty.clear()
        return True

    def remove(self, connection: ServedConnection) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        self._unauthorized.pop(connection, None)
        self._buffered_bytes -= connection.counted_bytes
        connection.counted_bytes = 0
        if not self.connections:
            self._empty.set()

    def add_unauthorized(self, connection: ServedConnection, reason: str) -> None:
        """Note that a connection's peer is unauthorized; close the oldest such connection if there are too many."""
        self.refused(reason)
        self._unauthorized[connection] = None
        if len(self._unauthorized) > self.limits.max_strangers:
            next(iter(self._unauthorized)).abort()

    def count_buffered(self, connection: ServedConnection) -> None:
        """Update a connection's share of the buffered bytes; above the limit, shed the one that buffers the most."""
        now = connection.buffered_bytes
        if now == connection.counted_bytes or connection not in self.connections:
            return
        self._buffered_bytes += now - connection.counted_bytes
        connection.counted_bytes = now
        if self._buffered_bytes > self.limits.max_held_bytes:
            self.refused("all connections together buffer too much; the one that buffers the most is closed")
            max(self.connections, key=lambda other: other.counted_bytes).shed()

    def refused(self, reason: str) -> None:
        """Log a refused connection, at most once a second."""
        now = self.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("a connection was refused: %s", reason)

    async def wait_until_empty(self) -> None:
        """Wait until the last connection has ended."""
        await self._empty.wait()

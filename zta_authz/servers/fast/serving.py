"""What the connections of one fast server share: methods, limits, and who is connected."""

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
    """Limits of all connections of a server together. Bytes, seconds, or connections."""

    max_connections: int = 1024
    max_handshakes: int = 256  # TLS handshakes at a time; the oldest ends for a new one
    handshake_seconds: float = 10.0
    max_strangers: int = 64  # connected peers that may not ask; the oldest ends for a new one
    stranger_seconds: float = 10.0  # for which such a peer is told that it may not ask
    max_held_bytes: int = 256 * _MIB  # incomplete calls, and answers that wait for flow control


@dataclass(frozen=True, slots=True)
class PeerAdmission:
    """Who may ask: over mutual TLS as `tls` says, on a Unix socket the users of `peer_uids` (none listed: all)."""

    peer_uids: frozenset[int] = frozenset()
    tls: TlsListener | None = None


class ServedConnection(Protocol):
    """A connection as its server sees it. `weight` is what `weigh` last counted for it, in bytes."""

    weight: int

    @property
    def held_bytes(self) -> int:
        """Bytes of incomplete calls, and of answers that wait for flow control."""

    def tick(self, now: float) -> None:
        """End what has taken too long by `now`, in the event loop's time."""

    def relieve(self) -> None:
        """End, because too much is held for the peer."""

    def drain(self) -> None:
        """Take no new calls, and end once those in flight have ended."""

    def abort(self) -> None:
        """End at once."""


class ConnectionRegistry:
    """What the connections of one server share."""

    def __init__(
        self,
        methods: Methods,
        bounds: Bounds,
        limits: Limits,
        gate: PeerAdmission,
        unread: Mapping[str, Callable[[bool], bytes]] = MappingProxyType({}),
    ) -> None:
        """`unread` answers calls whose message was not read, by path: it is told whether they are too many at once."""
        self.unread = unread
        self.methods: Mapping[str, Unary] = {
            f"/{service}/{name}": call for service, calls in methods.items() for name, call in calls.items()
        }
        self.bounds = bounds
        self.limits = limits
        self.gate = gate
        self.loop = asyncio.get_running_loop()
        self.rounds = LoopTurns(self.loop)
        self.connections: set[ServedConnection] = set()
        self.stopping = False
        self._strangers: dict[ServedConnection, None] = {}  # the oldest first
        self._held_bytes = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._quiet_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether one connection more would be too many."""
        return len(self.connections) >= self.limits.max_connections

    def add(self, connection: ServedConnection) -> bool:
        """Take a connection; False past the limit, and for one that was still shaking hands when we stopped."""
        if self.stopping:
            return False
        if self.is_full:
            self.refused("there are too many connections")
            return False
        self.connections.add(connection)
        self._empty.clear()
        return True

    def remove(self, connection: ServedConnection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        self._strangers.pop(connection, None)
        self._held_bytes -= connection.weight
        connection.weight = 0
        if not self.connections:
            self._empty.set()

    def strange(self, connection: ServedConnection, why: str) -> None:
        """A connection's peer may not ask. It is told so for a while, unless too many others are."""
        self.refused(why)
        self._strangers[connection] = None
        if len(self._strangers) > self.limits.max_strangers:
            next(iter(self._strangers)).abort()

    def weigh(self, connection: ServedConnection) -> None:
        """Look at what is held for a connection's peer. If all hold too much together, the heaviest ends."""
        weight = connection.held_bytes
        if weight == connection.weight or connection not in self.connections:
            return
        self._held_bytes += weight - connection.weight
        connection.weight = weight
        if self._held_bytes > self.limits.max_held_bytes:
            self.refused("all connections together hold too much; the one that holds the most ends")
            max(self.connections, key=lambda each: each.weight).relieve()

    def refused(self, why: str) -> None:
        """Log it, once a second at most."""
        now = self.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("a connection was refused: %s", why)

    async def wait_until_empty(self) -> None:
        """Wait for the last connection to end."""
        await self._empty.wait()

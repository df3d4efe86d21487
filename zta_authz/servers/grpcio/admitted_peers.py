"""Close connections of gRPC's own server whose caller was authorized and no longer is.

gRPC authenticates a connection once, in its handshake, and its Python API can't close one. A proxy whose certificate
has expired since would be refused on that connection for ever, although it has a new certificate. So the TCP connection
is shut down: the proxy sees it break and repeats unanswered calls on a new one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

import grpc

from zta_authz.bounded_cache import BoundedCache
from zta_authz.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

_LOG = logging.getLogger(__name__)
_LOG_INTERVAL_SECONDS: Final = 1.0
_MAX_CONNECTIONS: Final = 8192
"""Connections remembered. A forgotten one is refused call by call until its maximum age ends it."""
_DESCRIPTORS: Final = "/proc/self/fd"


class AdmittedPeers:
    """The connections of one server on which an authorized caller has made a call."""

    def __init__(self) -> None:
        self._peers: BoundedCache[str, bool] = BoundedCache(_MAX_CONNECTIONS)
        self._to_close: set[str] = set()
        self._search: asyncio.Task[set[str]] | None = None
        self._quiet_until = 0.0

    def admit(self, context: Any) -> None:
        """Note that the caller on this call's connection is authorized."""
        peer = context.peer()
        if self._peers[peer] is None:
            self._peers.put(peer, value=True)

    async def refuse(self, context: Any) -> NoReturn:
        """Refuse a call of an unauthorized caller; close its connection if an earlier call on it was admitted."""
        peer = context.peer()
        if self._peers[peer] is not None:
            self._warn("a caller's certificate is no longer valid; its connection is closed")
            if await self._end(peer):
                self._peers.discard(peer)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection is closed")
        else:
            self._warn("a call was refused: its caller is not authorized")
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, Reason.CALLER_NOT_ALLOWED.value)
        raise AssertionError  # abort raises

    async def _end(self, peer: str) -> bool:
        """Shut the connection down; concurrent requests share one search of the descriptors."""
        self._to_close.add(peer)
        if self._search is None:
            self._search = asyncio.create_task(self._search_once())
        return peer in await asyncio.shield(self._search)

    async def _search_once(self) -> set[str]:
        await asyncio.sleep(0)
        peers, self._to_close, self._search = self._to_close, set(), None
        return await asyncio.to_thread(shut_down, peers)

    def _warn(self, message: str) -> None:
        """Log a warning, at most once a second."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("%s", message)


def shut_down(peers: Collection[str]) -> set[str]:
    """Shut down this process's TCP connections from `peers`, written as gRPC does, and return those found."""
    by_address = {address: peer for peer in peers if (address := _address(peer)) is not None}
    closed: set[str] = set()
    try:
        names = os.listdir(_DESCRIPTORS) if by_address else []
    except OSError:
        return closed
    for name in names:
        with suppress(OSError), _connection(int(name)) as connection:
            peer = by_address.get(_normalized(*connection.getpeername()[:2]))
            if peer is not None:
                connection.shutdown(socket.SHUT_RDWR)
                closed.add(peer)
    return closed


def _connection(descriptor: int) -> socket.socket:
    """Return a socket sharing the connection of `descriptor`. Raises OSError if it isn't a TCP socket."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError
    duplicate = socket.socket(fileno=os.dup(descriptor))
    if duplicate.family not in (socket.AF_INET, socket.AF_INET6) or duplicate.type != socket.SOCK_STREAM:
        duplicate.close()
        raise OSError
    return duplicate


def _address(peer: str) -> tuple[str, int] | None:
    """Parse `ipv4:192.0.2.1:4711` or `ipv6:%5B2001:db8::1%5D:4711` as address and port, None for anything else."""
    scheme, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    with suppress(ValueError):
        return _normalized(host.strip("[]"), int(port))
    return None


def _normalized(host: str, port: int) -> tuple[str, int]:
    """Return one spelling per address, with IPv4-mapped IPv6 addresses as IPv4. Raises ValueError."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port

"""Ends connections of gRPC's own server whose caller could ask and no longer may.

gRPC judges a connection once, in its handshake, and its Python API can end none. A proxy that opened one with a
certificate that has expired since would be refused on it for ever, while it has a new certificate at hand. So the TCP
connection is shut down: the proxy sees it break, and sends what was not answered again on a new one.
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

from zta_authz.authn.cache import BoundedCache
from zta_authz.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Collection

_LOG = logging.getLogger(__name__)
_LOG_INTERVAL_SECONDS: Final = 1.0
_MAX_CONNECTIONS: Final = 8192
"""Connections that are remembered; one that is forgotten is refused call by call until its age ends it."""
_DESCRIPTORS: Final = "/proc/self/fd"


class Standing:
    """The connections of one server on which a caller was let in."""

    def __init__(self) -> None:
        self._peers: BoundedCache[str, bool] = BoundedCache(_MAX_CONNECTIONS)
        self._wanted: set[str] = set()
        self._search: asyncio.Task[set[str]] | None = None
        self._quiet_until = 0.0

    def admit(self, context: Any) -> None:
        """A caller was let in on the connection of this call."""
        peer = context.peer()
        if self._peers.get(peer) is None:
            self._peers.put(peer, value=True)

    async def refuse(self, context: Any) -> NoReturn:
        """Refuse a call whose caller may not ask; end its connection where an earlier call on it was let in."""
        peer = context.peer()
        if self._peers.get(peer) is not None:
            self._tell("the certificate of a connection's caller no longer holds, so the connection ends")
            if await self._end(peer):
                self._peers.discard(peer)
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection ends")
        else:
            self._tell("a call was refused: its caller may not ask")
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, Reason.CALLER_NOT_ALLOWED.value)
        raise AssertionError  # abort raises

    async def _end(self, peer: str) -> bool:
        """Shut its connection down; those that are wanted at once are looked for together."""
        self._wanted.add(peer)
        if self._search is None:
            self._search = asyncio.create_task(self._search_once())
        return peer in await asyncio.shield(self._search)

    async def _search_once(self) -> set[str]:
        await asyncio.sleep(0)
        wanted, self._wanted, self._search = self._wanted, set(), None
        return await asyncio.to_thread(shut_down, wanted)

    def _tell(self, what: str) -> None:
        """Log it, once a second at most."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("%s", what)


def shut_down(peers: Collection[str]) -> set[str]:
    """Shut the TCP connections of this process from `peers` down, written as gRPC does; those that were found."""
    wanted = {address: peer for peer in peers if (address := _address(peer)) is not None}
    found: set[str] = set()
    try:
        names = os.listdir(_DESCRIPTORS) if wanted else []
    except OSError:
        return found
    for name in names:
        with suppress(OSError), _connection(int(name)) as connection:
            peer = wanted.get(_normal(*connection.getpeername()[:2]))
            if peer is not None:
                connection.shutdown(socket.SHUT_RDWR)
                found.add(peer)
    return found


def _connection(descriptor: int) -> socket.socket:
    """A socket that shares the connection of `descriptor`. Raises OSError for what is no TCP socket (any more)."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError
    made = socket.socket(fileno=os.dup(descriptor))
    if made.family not in (socket.AF_INET, socket.AF_INET6) or made.type != socket.SOCK_STREAM:
        made.close()
        raise OSError
    return made


def _address(peer: str) -> tuple[str, int] | None:
    """`ipv4:192.0.2.1:4711` or `ipv6:%5B2001:db8::1%5D:4711` as address and port, None for anything else."""
    scheme, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if scheme not in ("ipv4", "ipv6") or not port.isdigit():
        return None
    with suppress(ValueError):
        return _normal(host.strip("[]"), int(port))
    return None


def _normal(host: str, port: int) -> tuple[str, int]:
    """One spelling of each address: an IPv4 one that came over an IPv6 socket is an IPv4 one. Raises ValueError."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), port

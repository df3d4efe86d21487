"""TCP sockets to listen on: one address, or for `[::]` every IPv4 and IPv6 address. Users of Unix sockets."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, Protocol

_EVERYWHERE: Final = "::"
_EVERYWHERE_IPV4: Final = "0.0.0.0"  # noqa: S104  what an operator writes, not a default
_UCRED: Final = struct.Struct("iII")
"""pid, uid, gid, as returned by SO_PEERCRED (unix(7))."""
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def bound_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a TCP socket bound to an IP address and a port (0: any free port). Raises OSError.

    `::` accepts IPv4 too, whatever the system's default for IPV6_V6ONLY is (ipv6(7)). If the kernel has no IPv6, `::`
    means all IPv4 addresses. With `shared`, other worker processes may bind the same port (SO_REUSEPORT).
    """
    try:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, shared=shared)
    except OSError as error:
        if host != _EVERYWHERE or error.errno not in _NO_FAMILY:
            raise
    return _bound(socket.AF_INET, _EVERYWHERE_IPV4, port, shared=shared)


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != _EVERYWHERE))
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class UnixConnection(Protocol):
    """A connected Unix socket: `socket.socket`, or what asyncio shows of it."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """See `socket.socket`."""
        ...


def peer_process(connection: UnixConnection) -> tuple[int, int]:
    """Return the process ID and the user ID of the process that connected. Raises OSError.

    The process ID is 0 for a process of another PID namespace.
    """
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def peer_uid(connection: UnixConnection) -> int:
    """Return the user ID of the process that connected. Raises OSError."""
    return peer_process(connection)[1]

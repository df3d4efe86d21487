"""TCP sockets to listen on: at one address, or, for `[::]`, at every address of both families."""

from __future__ import annotations

import errno
import socket
from typing import Final

_EVERYWHERE: Final = "::"
_EVERYWHERE_IPV4: Final = "0.0.0.0"  # noqa: S104  what an operator writes, not a default
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def bound_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A TCP socket bound to an IP address and a port (0: any). Raises OSError.

    `::` takes IPv4 too, whatever the system's default for it is (IPV6_V6ONLY, ipv6(7)); where the kernel has no IPv6,
    it is all addresses of IPv4. With `shared` other processes of ours may be bound to the same port (SO_REUSEPORT).
    """
    try:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port, shared=shared)
    except OSError as error:
        if host != _EVERYWHERE or error.errno not in _NO_FAMILY:
            raise
    return _bound(socket.AF_INET, _EVERYWHERE_IPV4, port, shared=shared)


def _bound(family: socket.AddressFamily, host: str, port: int, *, shared: bool) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != _EVERYWHERE))
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made

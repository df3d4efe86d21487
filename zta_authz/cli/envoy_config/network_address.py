"""Addresses in Envoy's configuration: Unix sockets, and IP addresses and DNS names with ports."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from zta_authz.servers.listeners import Endpoint

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_NAME_LIKE: Final = re.compile(r"[\w.-]*[A-Za-z][\w.-]*\Z")
_MAX_NAME: Final = 253
_LOOPBACK_NAME: Final = "localhost"  # parsed by Endpoint
_UNIX: Final = "unix:"
_INVALID_NAME: Final = "the host is not an IP address, and not a DNS name in lower case with only a-z, 0-9, `-` and `.`"


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """An address: `path` of a Unix socket, or `host` (an IP address or a DNS name) and `port`."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return bool(self.path)

    @property
    def is_name(self) -> bool:
        """True for a name that DNS has to resolve."""
        return not self.is_unix and _ip(self.host) is None

    @property
    def is_local(self) -> bool:
        """True if only this machine (or pod) can connect."""
        address = None if self.is_unix else _ip(self.host)
        return self.is_unix or (address is not None and address.is_loopback)

    @property
    def is_wildcard(self) -> bool:
        """True for `0.0.0.0` and `::`, which are addresses for listeners only."""
        address = _ip(self.host)
        return address is not None and address.is_unspecified

    def conflicts_with(self, other: NetworkAddress) -> bool:
        """Return whether both are equal, or two processes can't listen on both."""
        if self.is_unix or other.is_unix:
            return self.path == other.path
        own_ip, other_ip = _ip(self.host), _ip(other.host)
        if own_ip is None or other_ip is None or own_ip.version != other_ip.version:
            return False  # Envoy's `::` does not include IPv4
        return self.port == other.port and (own_ip == other_ip or own_ip.is_unspecified or other_ip.is_unspecified)

    def __str__(self) -> str:
        if self.is_unix:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def tcp(host: str, port: int) -> NetworkAddress:
    """Return a TCP address. With port 0, the kernel chooses a port."""
    return NetworkAddress(host=host, port=port)


def unix_socket(path: str) -> NetworkAddress:
    """Return the address of a Unix socket. A path has at most 107 bytes."""
    return NetworkAddress(path=path)


def worker_sockets(path: str, workers: int) -> tuple[NetworkAddress, ...]:
    """Return the sockets of `workers` workers: `path` for one, `path.1`, `path.2` and so on for several."""
    return (
        (unix_socket(path),)
        if workers == 1
        else tuple(unix_socket(f"{path}.{number}") for number in range(1, workers + 1))
    )


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def parse_address(text: str, *, names: bool = False) -> NetworkAddress:
    """Parse `unix:/absolute/path`, `ADDRESS:PORT`, `[IPV6]:PORT` or, with `names`, `NAME:PORT`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if names and colon and not text.startswith(_UNIX) and _NAME_LIKE.match(host) and host != _LOOPBACK_NAME:
        if not _is_name(host):
            raise ValueError(_INVALID_NAME)
        endpoint = Endpoint.parse(f"0.0.0.0:{port}")  # only to validate the port
        address = tcp(host, endpoint.port)
    else:
        endpoint = Endpoint.parse(text)
        address = NetworkAddress(endpoint.path, endpoint.host, endpoint.port)
    if address.is_unix:
        check_path(address.path)
    elif "%" in address.host:
        raise ValueError("Envoy does not support addresses with an interface")
    elif address.port == 0:
        raise ValueError("port 0 is not supported: write a port from 1 to 65535")
    return address


def _is_name(host: str) -> bool:
    *_, last = labels = host.split(".")
    return not last.isdigit() and len(host) <= _MAX_NAME and all(_LABEL.match(label) for label in labels)


def check_path(path: str) -> None:
    """Raise ValueError unless `path` is absolute and printable, and has no `.` or `..`."""
    if not path.startswith("/") or (len(path) > 1 and path.endswith("/")):
        raise ValueError("a path starts with `/` and does not end with it")
    if not path.isprintable():
        raise ValueError("the path has a line end, a control character or another character that can't be printed")
    if not {"..", "."}.isdisjoint(path.split("/")):
        raise ValueError("the path contains `.` or `..`: write the resolved path")

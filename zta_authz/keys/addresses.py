"""Which hosts and addresses may be asked for keys.

A policy's author names an address, and this service, with its place in the network, goes there: it must not become a
way to what only it can reach. So only addresses of the public internet may be asked, unless the operator says more;
and link-local ones, where clouds keep their metadata services, not even then.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from zta_authz.keys.outcomes import FetchFailed, Outcome

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the IPv4 address that is meant
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")


def literal_address(host: str) -> Ip | None:
    """The address that `host` (without brackets) spells, None where it is a name.

    Raises `FetchFailed` for spellings that only some readers take for an address, such as `127.1` or `0x7f000001`.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if ":" in host or _ENDS_IN_NUMBER.fullmatch(host):
            raise FetchFailed(Outcome.REFUSED_URL, "the host is neither a name nor a plain address") from None
        return None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """`allow_private`: any host may have private addresses (loopback included); `private_hosts`: these hosts may."""

    allow_private: bool = False
    private_hosts: frozenset[str] = frozenset()

    def permit(self, host: str, address: Ip) -> bool:
        """Whether `host` may be asked at `address`."""
        address = _meant(address)
        if address.is_multicast or address.is_unspecified or address.is_link_local:
            return False
        site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        if address.is_global and not address.is_reserved and not site_local:
            return True
        return self.allow_private or host.lower().rstrip(".") in self.private_hosts


PUBLIC_ONLY: Final = AddressRules()


def _meant(address: Ip) -> Ip:
    """The IPv4 address inside an IPv6 address that stands for one, else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inside = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    return inside if inside is not None else address

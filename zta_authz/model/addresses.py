"""IPv6 addresses that stand for IPv4 addresses: one caller, two spellings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Ip = IPv4Address | IPv6Address

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
# Prefixes of 96 bits behind which the last 32 bits are an IPv4 address, without those bits.
_BEFORE_IPV4: Final = frozenset(
    int(IPv6Address(prefix)) >> 32
    for prefix in (
        "::ffff:0:0",  # RFC 4291 section 2.5.5.2: mapped, what a socket for both families shows
        "::",  # RFC 4291 section 2.5.5.1: compatible, deprecated
        "::ffff:0:0:0",  # RFC 2765 section 2.1: translated, by SIIT
        "64:ff9b::",  # RFC 6052 section 2.1: NAT64
    )
)
_LOCAL_NAT64: Final = int(IPv6Address("64:ff9b:1::")) >> 80  # RFC 8215; the last 32 bits, as behind a prefix of 96 bits
_TEREDO: Final = int(IPv6Address("2001::")) >> 96  # RFC 4380 section 4: the client's address, each bit turned
_6TO4: Final = int(IPv6Address("2002::")) >> 112  # RFC 3056 section 2: the address follows the prefix
_32_BITS: Final = 0xFFFFFFFF


def embedded_ipv4(address: Ip) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for; None where it stands for itself.

    Not looked for: ISATAP, whose interface identifiers a host chooses for itself, and NAT64 prefixes of one's own.
    """
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if number >> 32 in _BEFORE_IPV4:
        return IPv4Address(number & _32_BITS) if number > 1 else None  # `::` and `::1` are no IPv4 addresses
    if number >> 80 == _LOCAL_NAT64:
        return IPv4Address(number & _32_BITS)
    if number >> 96 == _TEREDO:
        return IPv4Address(~number & _32_BITS)
    return IPv4Address(number >> 80 & _32_BITS) if number >> 112 == _6TO4 else None


def readings(address: Ip) -> tuple[Ip, ...]:
    """The address, and the IPv4 address it stands for where there is one."""
    meant = embedded_ipv4(address)
    return (address,) if meant is None else (address, meant)


def mapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | None:
    """The IPv4 block that is written as a block of IPv4-mapped addresses; None for every other block."""
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return None
    return IPv4Network((int(network.network_address) & _32_BITS, network.prefixlen - 96))

"""IPv6 addresses that embed an IPv4 address, so that one caller has two spellings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Ip = IPv4Address | IPv6Address

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
# Prefixes of 96 bits that an IPv4 address follows in the last 32 bits; those bits are shifted out.
_BEFORE_IPV4: Final = frozenset(
    int(IPv6Address(prefix)) >> 32
    for prefix in (
        "::ffff:0:0",  # RFC 4291 section 2.5.5.2: mapped; a dual-stack socket reports IPv4 peers so
        "::",  # RFC 4291 section 2.5.5.1: compatible, deprecated
        "::ffff:0:0:0",  # RFC 2765 section 2.1: translated, by SIIT
        "64:ff9b::",  # RFC 6052 section 2.1: NAT64
    )
)
_LOCAL_NAT64: Final = int(IPv6Address("64:ff9b:1::")) >> 80  # RFC 8215; the IPv4 address is in the last 32 bits
_TEREDO: Final = int(IPv6Address("2001::")) >> 96  # RFC 4380 section 4: the client's address with each bit inverted
_6TO4: Final = int(IPv6Address("2002::")) >> 112  # RFC 3056 section 2: the address follows the prefix
_32_BITS: Final = 0xFFFFFFFF


def embedded_ipv4(address: Ip) -> IPv4Address | None:
    """The IPv4 address embedded in an IPv6 address, or None.

    Does not look for ISATAP, where a host chooses its own interface identifier, nor for NAT64 prefixes that an operator
    chose.
    """
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if number >> 32 in _BEFORE_IPV4:
        return IPv4Address(number & _32_BITS) if number > 1 else None  # `::` and `::1` embed no IPv4 address
    if number >> 80 == _LOCAL_NAT64:
        return IPv4Address(number & _32_BITS)
    if number >> 96 == _TEREDO:
        return IPv4Address(~number & _32_BITS)
    return IPv4Address(number >> 80 & _32_BITS) if number >> 112 == _6TO4 else None


def address_forms(address: Ip) -> tuple[Ip, ...]:
    """The address itself and, if it embeds one, the IPv4 address."""
    embedded = embedded_ipv4(address)
    return (address,) if embedded is None else (address, embedded)


def mapped_network(network: IPv4Network | IPv6Network) -> IPv4Network | None:
    """The IPv4 block that a block of IPv4-mapped addresses denotes; None for every other block."""
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return None
    return IPv4Network((int(network.network_address) & _32_BITS, network.prefixlen - 96))

"""The hosts and addresses that keys may be fetched from.

A policy author names an address, and this service connects to it from its own place in the network. That must not
give the author access to hosts that only the service can reach (SSRF). So only addresses of the public internet are
permitted, unless the operator allows more. Link-local addresses, where clouds serve instance metadata, are never
permitted.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.model.addresses import Ip, address_forms

# Never permitted, whatever the operator allows: clouds serve credentials there, and no issuer serves keys.
_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/32", "169.254.0.0/16", "224.0.0.0/4",  # unspecified, link-local, multicast
        "::/128", "fe80::/10", "ff00::/8",
        "100.100.100.200/32",  # metadata: Alibaba Cloud
        "168.63.129.16/32",  # Azure's platform endpoint, reachable from every virtual machine
        "192.0.0.192/32",  # metadata: Oracle Cloud, Classic
        "fd00:ec2::/32",  # metadata and credentials: AWS
        "fd20:ce::/64",  # metadata: Google Cloud
        "fd00:42::/64",  # metadata: Scaleway
        "fd00:a9fe:a9fe::/64",  # metadata: Akamai (Linode)
    )
)  # fmt: skip
# IANA's special-purpose address registries (RFC 6890 and later additions), including entries that are globally
# reachable: no issuer runs on a relay, an anycast service or a sink. Multicast and link-local are listed above.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
        "2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20",
    )
)  # fmt: skip
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291 section 2.4: all that IANA has assigned so far
# Addresses that embed an IPv4 address; the embedded one decides.
_TRANSLATED: Final = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16")))
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?")


def literal_address(host: str) -> Ip | None:
    """Parse `host` (without brackets) as an IP address; None if it is a name.

    Raises `FetchFailed` for spellings that only some parsers accept as an address, such as `127.1` or `0x7f000001`.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        if ":" in host or _ENDS_IN_NUMBER.fullmatch(host):
            raise FetchFailed(
                FetchOutcome.REFUSED_URL, "the host is neither a name nor an IP address in standard form"
            ) from None
        return None


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Which private addresses (loopback included) are permitted: all with `allow_private`, else of `private_hosts`."""

    allow_private: bool = False
    private_hosts: frozenset[str] = frozenset()

    def permit(self, host: str, address: Ip) -> bool:
        """Whether `host` may be connected to at `address`."""
        meanings = address_forms(address)
        if any(ip in network for ip in meanings for network in _NEVER):
            return False
        return _is_public(meanings) or self.allow_private or host.lower().rstrip(".") in self.private_hosts


PUBLIC_ONLY: Final = AddressRules()


def _is_public(meanings: tuple[Ip, ...]) -> bool:
    """Whether an address, and the address that it embeds, belong to the public internet."""
    if isinstance(meanings[0], ipaddress.IPv6Address):
        if any(meanings[0] in network for network in _TRANSLATED):
            meanings = meanings[1:]
        elif len(meanings) > 1 or meanings[0] not in _UNICAST:
            return False
    return not any(ip in network for ip in meanings for network in _SPECIAL)

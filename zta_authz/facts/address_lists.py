"""Sets of IP addresses, built from a text list of addresses and networks. Look-ups are one binary search."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from heapq import merge
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.model.addresses import mapped_network
from zta_authz.model.pace import no_pause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.model.addresses import Ip
    from zta_authz.model.pace import Pause

MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_ENTRIES: Final = 2_000_000
_SORTED_AT_ONCE: Final = 2000
MAX_LINE: Final = 512
MAX_FAULTS: Final = 20
_Range = tuple[int, int]
AddressRange = tuple[int, int, int]
"""IP version, first and last address."""
_PLAIN: Final = re.compile(
    r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})(?:/(0|[1-9][0-9]?))?"
)


class AddressSet:
    """Immutable. IPv4 and IPv6 are kept apart, each as the sorted starts and ends of ranges that do not touch."""

    __slots__ = ("_ends", "_starts", "size")

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network | AddressRange], pause: Pause = no_pause) -> None:
        """Take `networks` in any order; they may overlap."""
        ranges: dict[int, list[_Range]] = {4: [], 6: []}
        self.size = 0
        for network in networks:
            version, first, last = network if isinstance(network, tuple) else _range_of(network)
            ranges[version].append((first, last))
            self.size += 1
        self._starts: dict[int, array[int] | list[int]] = {}
        self._ends: dict[int, array[int] | list[int]] = {}
        for version, pairs in ranges.items():
            merged = _merged(pairs, pause)
            starts, ends = [start for start, _ in merged], [end for _, end in merged]
            self._starts[version] = array("Q", starts) if version == 4 else starts
            self._ends[version] = array("Q", ends) if version == 4 else ends

    def __contains__(self, address: Ip) -> bool:
        version, number = address.version, int(address)
        at = bisect_right(self._starts[version], number) - 1
        return at >= 0 and number <= self._ends[version][at]


def _range_of(network: IPv4Network | IPv6Network) -> AddressRange:
    """First and last address. A block of IPv4-mapped addresses is the IPv4 block, as in `NetworkDatabases.look_up`."""
    network = mapped_network(network) or network
    first = int(network.network_address)
    return network.version, first, first + network.num_addresses - 1


def _parse(entry: str) -> AddressRange:
    """One address or network. Raises ValueError."""
    plain = _PLAIN.fullmatch(entry)
    if plain is None:
        return _range_of(ip_network(entry, strict=False))
    first, second, third, fourth = (int(part) for part in plain.groups()[:4])
    bits = 32 - int(plain[5] or 32)
    if max(first, second, third, fourth) > 255 or bits < 0:
        raise ValueError(entry)
    start = (first << 24 | second << 16 | third << 8 | fourth) >> bits << bits
    return 4, start, start + (1 << bits) - 1


def _merged(ranges: list[_Range], pause: Pause) -> list[_Range]:
    """The same addresses as ranges that neither overlap nor touch, in order.

    Sorts in pieces: no other thread runs while Python sorts a list, which takes 0.4 s for 220,000 entries.
    """
    pieces: list[list[_Range]] = []
    for first in range(0, len(ranges), _SORTED_AT_ONCE):
        pieces.append(sorted(ranges[first : first + _SORTED_AT_ONCE]))
        pause()
    merged: list[_Range] = []
    for start, end in merge(*pieces):
        pause()
        if merged and start <= merged[-1][1] + 1:
            if end > merged[-1][1]:
                merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged


def parse_address_list(path: str, content: bytes, least: int = 1, pause: Pause = no_pause) -> AddressSet:
    """The addresses of a list: one address or network a line; what follows `#` or `;` is a comment.

    A network may have host bits set: `10.1.2.3/8` is `10.0.0.0/8`. Raises `SettingsErrors` for any other line, and for
    fewer than `least` entries: a list that is read only in part, or that a failed download has cut, would call bad
    addresses good.
    """
    faults: list[Fault] = []
    networks: list[AddressRange] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        pause()
        entry = line.split(b"#", 1)[0].split(b";", 1)[0].strip()
        if not entry:
            continue
        try:
            if len(line) > MAX_LINE:
                raise ValueError
            networks.append(_parse(entry.decode("ascii")))
        except ValueError:
            shown = entry[:40].decode("ascii", "replace")
            faults.append(
                Fault(path, number, 1, f"`{shown}` is not an address or network", "correct or remove the line")
            )
        if len(faults) >= MAX_FAULTS or len(networks) > MAX_ENTRIES:
            break
    if len(networks) > MAX_ENTRIES:
        faults.append(Fault(path, 0, 0, f"has more than {MAX_ENTRIES} entries", "use a shorter list"))
    elif not faults and len(networks) < least:
        message = f"has {len(networks)} entries, fewer than {least}" if networks else "has no entries"
        faults.append(Fault(path, 0, 0, message, "download it again, or remove the list from `networks.reputation`"))
    if faults:
        raise SettingsErrors(faults)
    return AddressSet(networks, pause)

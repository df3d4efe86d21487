"""Any file gives typed facts in bounded time, or faults: databases in MaxMind DB format and lists of addresses.

The first byte chooses what the file is read as. The C reader of databases must not crash, hang or use much memory on
any bytes. A list is read as a slow reading of its lines says, or refused.
"""

from __future__ import annotations

import os
import re
import tempfile
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fuzz.target import Target, assert_telling, split_mode
from tests.support.mmdb import nested_mmdb, write_mmdb
from zta_authz.errors import SettingsErrors
from zta_authz.facts.address_lists import MAX_FAULTS, MAX_LINE, parse_address_list
from zta_authz.facts.networks import NetworkDatabases, NetworkSources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.facts import Fact, NetworkFacts

INVARIANT = "any database or list of addresses gives facts of the right type in bounded time, or faults"
_NAMES = ("country", "asn", "anonymous", "list")
_ADDRESSES = tuple(
    ip_address(text)
    for text in ("193.99.144.80", "8.8.8.8", "1.1.1.1", "223.255.255.254", "2a02::1", "2001:4860::8888", "::ffff:8.8.8.8", "2002:808:808::1")
)  # fmt: skip


def check(data: bytes) -> None:
    """Read the file, and look addresses up."""
    mode, content = split_mode(data, len(_NAMES))
    if _NAMES[mode] == "list":
        _check_list(content)
    else:
        _check_database(_NAMES[mode], content)


def _check_database(name: str, content: bytes) -> None:
    number = os.memfd_create("fuzz")
    try:
        os.write(number, content)
        path = f"/proc/self/fd/{number}"
        try:
            view = NetworkDatabases(NetworkSources(**{name: path}))
        except SettingsErrors as error:
            assert_telling(error.faults)
            return
    finally:
        os.close(number)
    built_at = view.loaded[0].as_of
    assert 0 <= built_at < 2**64
    for address in _ADDRESSES:
        found = view.look_up(address, built_at)
        unmapped = getattr(address, "ipv4_mapped", None) or address
        assert view.look_up(address, built_at) == found == view.look_up(unmapped, built_at)
        for fact_name, fact in _facts(found):
            assert fact_name == name or fact.unknown is not None
            _assert_typed(fact_name, fact)


def _facts(found: NetworkFacts) -> Iterator[tuple[str, Fact]]:
    return ((name, getattr(found, name)) for name in ("country", "asn", "anonymous", "reputation", "corporate"))


def _assert_typed(name: str, fact: Fact) -> None:
    assert (fact.value is None) is (fact.unknown is not None)
    value = fact.value
    if value is not None and name == "country":
        assert isinstance(value, str)
        assert re.fullmatch("[A-Z]{2}", value)
    elif value is not None and name == "asn":
        assert type(value) is int
        assert 0 < value < 2**32
    elif value is not None:
        assert type(value) is bool


def _check_list(content: bytes) -> None:
    lines = content.split(b"\n")
    networks = [_slow_network(line) for line in lines]
    try:
        addresses = parse_address_list("list", content)
    except SettingsErrors as error:
        faults = error.faults
    else:
        faults = ()
    if faults:
        assert_telling(faults)
        assert len(faults) <= MAX_FAULTS + 1
        assert None in networks or not any(networks), "a list without a wrong line is refused"
        return
    assert None not in networks, "a wrong line is left out"
    listed = [network for network in networks if network]
    assert addresses.size == len(listed)
    for network in listed[:20]:
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, last, last + 1):
            if 0 <= number < 2**network.max_prefixlen:
                address = type(network.network_address)(number)
                expected = any(address in other for other in listed if other.version == network.version)
                assert (address in addresses) is expected, address


def _slow_network(line: bytes) -> Any:
    """The network of a line by the standard library, "" for none, None for a line that is wrong."""
    entry = re.split(b"[#;]", line, maxsplit=1)[0].strip()
    if not entry:
        return ""
    try:
        return ip_network(entry.decode("ascii"), strict=False) if len(line) <= MAX_LINE else None
    except ValueError:
        return None


def seeds() -> dict[str, bytes]:
    """Sound databases of each kind and layout, nested ones that would be very large in memory, and lists."""
    found: dict[str, bytes] = {}
    records: dict[str, dict[str, Any]] = {
        "country": {"193.99.0.0/16": {"country": {"iso_code": "DE"}}, "2a02::/16": {"country_code": "FR"}, "8.8.8.0/24": {"country": 7}},
        "asn": {"193.99.0.0/16": {"autonomous_system_number": 12306}, "8.8.8.0/24": {"asn": "AS15169"}, "1.1.1.0/24": {"asn": True}},
        "anonymous": {"193.99.0.0/16": {"is_anonymous": True}, "8.8.8.0/24": {"is_anonymous": 1, "is_tor_exit_node": False}},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, of) in enumerate(records.items()):
            for version in (4, 6):
                networks = {network: record for network, record in of.items() if version == 6 or ":" not in network}
                path = write_mmdb(Path(folder, name), networks, built_at=1_800_000_000, ip_version=version)
                found[f"{name}-{version}"] = bytes([number]) + path.read_bytes()
    found |= {
        f"nested-{width}-{depth}": b"\0" + nested_mmdb(width, depth)
        for width, depth in ((2, 9), (10, 8), (28, 20), (1, 900))
    }
    lists = {
        "plain": b"8.8.8.8\n193.99.144.0/24 # here\n;none\n\n2a02::/16\r\n10.1.2.3/8",
        "overlap": b"10.0.0.0/8\n10.0.0.0/9\n10.128.0.0/9\n11.0.0.0/8\n0.0.0.0/0",
        "mask": b"10.0.0.0/255.0.0.0\n10.0.0.0/0.255.255.255\n1.2.3.4/32",
        "wrong": b"1.2.3\n1.2.3.4/33\n01.2.3.4\n::1%1\n1.2.3.4/-1\n1.2.3.4 5.6.7.8\n",
        "zeros": b"::/0\n::ffff:1.2.3.4\n255.255.255.255\nffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "long": b"1.2.3.4" + b" " * 600,
    }
    return found | {f"list-{name}": b"\x03" + content for name, content in lists.items()}


WORDS = (
    b"\xab\xcd\xefMaxMind.com", b"binary_format_major_version", b"build_epoch", b"database_type", b"ip_version", b"node_count",
    b"record_size", b"languages", b"description", b"iso_code", b"country", b"country_code", b"autonomous_system_number", b"asn",
    b"is_anonymous", b"\x20\x00", b"\x28\x00\x00", b"\x38\x00\x00\x00\x00", b"\x5f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xe1", b"\x01\x07",
    b"\x00\x07", b"\x1e\x04\xff\xff", b"\x0a\x02", b"\x08\x02", b"\x04\xc1\xff\xff\xff\xff", b"\n", b"/32", b"/0", b"/128", b"::", b"#", b";",
    b"255.255.255.255", b"%1", b"\xef\xbb\xbf",
)  # fmt: skip

TARGET = Target("network_files", INVARIANT, check, seeds, WORDS)

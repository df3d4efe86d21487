"""Address lists: exactly the listed addresses, whatever the order; anything that is no address refuses the file."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_address, ip_network
from random import Random

import pytest

from zta_authz.errors import SettingsErrors
from zta_authz.facts import address_lists as module
from zta_authz.facts.address_lists import AddressSet, parse_address_list


def test_a_set_holds_exactly_the_addresses_of_its_networks() -> None:
    random = Random("address sets")
    for _ in range(50):
        networks = [
            ip_network((IPv4Address(random.randrange(1 << 10) << 22), random.randint(4, 32)), strict=False)
            for _ in range(random.randint(0, 12))
        ]
        found = AddressSet(networks)
        edges = {
            int(n.network_address) + shift for n in networks for shift in (-1, 0, n.num_addresses - 1, n.num_addresses)
        }
        for number in (*edges, *(random.randrange(1 << 32) for _ in range(20))):
            if 0 <= number < 1 << 32:
                address = IPv4Address(number)
                assert (address in found) is any(address in network for network in networks)
        assert ip_address("2a02::1") not in found
        assert found.size == len(networks)


def test_comments_blank_lines_and_host_bits_are_fine() -> None:
    found = parse_address_list("l", b"# bad\r\n10.1.2.3/8 ; note\n\n 192.0.2.1\t# x\n2001:db8::/32")
    for address in ("10.9.9.9", "192.0.2.1", "2001:db8::1"):
        assert ip_address(address) in found
    assert found.size == 3


@pytest.mark.parametrize(
    "line",
    [b"example.com", b"10.0.0.0/33", b"10.0.0", b"\xff", b"10.0.0.1 10.0.0.2", b"1" * 600, b"10.0.0.1\x00", b"<html>"],
)
def test_a_line_that_is_no_address_refuses_the_list_at_its_place(line: bytes) -> None:
    with pytest.raises(SettingsErrors, match=r"list\.txt:2:1: .* is not an address or network"):
        parse_address_list("list.txt", b"10.0.0.1\n" + line + b"\n10.0.0.3")


def test_faults_and_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsErrors) as caught:
        parse_address_list("l", b"x\n" * 1000)
    assert len(caught.value.faults) == module.MAX_FAULTS
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    with pytest.raises(SettingsErrors, match="has more than 3 entries"):
        parse_address_list("l", b"10.0.0.1\n" * 4)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("0.0.0.0/0", "255.1.2.3", "::1"),
        ("10.0.0.0/31", "10.0.0.1", "10.0.0.2"),
        ("10.0.0.7/32", "10.0.0.7", "10.0.0.6"),
        ("1.2.3.4", "1.2.3.4", "1.2.3.5"),
    ],
)
def test_plain_networks_are_read_as_the_library_reads_them(entry: str, inside: str, outside: str) -> None:
    addresses = parse_address_list("l", entry.encode())
    assert ip_address(inside) in addresses
    assert ip_address(outside) not in addresses
    assert ip_address(inside) in ip_network(entry)


@pytest.mark.parametrize("entry", ["256.1.1.1", "1.2.3.4/33", "01.2.3.4", "1.2.3.4/", "1.2.3"])
def test_what_the_library_refuses_is_refused(entry: str) -> None:
    with pytest.raises(SettingsErrors):
        parse_address_list("l", entry.encode())


@pytest.mark.parametrize("content", [b"", b"\n \n", b"# nothing\n; at all\n"])
def test_a_list_without_entries_is_refused(content: bytes) -> None:
    with pytest.raises(SettingsErrors, match=r"list\.txt: has no entries; download it again"):
        parse_address_list("list.txt", content)


def test_a_list_with_fewer_entries_than_it_must_have_is_refused() -> None:
    assert parse_address_list("l", b"10.0.0.1\n10.0.0.2", 2).size == 2
    with pytest.raises(SettingsErrors, match="has 1 entries, fewer than 2"):
        parse_address_list("l", b"10.0.0.1\n", 2)


def test_a_block_of_ipv4_mapped_addresses_is_the_ipv4_block() -> None:
    addresses = parse_address_list("l", b"::ffff:192.0.2.0/120")
    assert ip_address("192.0.2.7") in addresses
    assert ip_address("192.0.3.7") not in addresses


def test_a_long_list_in_any_order_is_sorted_in_pieces_with_pauses() -> None:
    numbers = list(range(0, 20_000, 2))
    random.Random(1).shuffle(numbers)
    pauses: list[None] = []
    content = "\n".join(str(ip_address(0x0A000000 + number)) for number in numbers).encode()
    addresses = parse_address_list("bad.txt", content, pause=lambda: pauses.append(None))
    assert addresses.size == len(numbers)
    assert all((ip_address(0x0A000000 + number) in addresses) is (number % 2 == 0) for number in range(20_000))
    assert len(pauses) >= 2 * len(numbers)

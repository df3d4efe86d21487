"""IPv6 addresses that embed IPv4 addresses, compared with the standard library where it supports them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network

import pytest
from hypothesis import given, strategies as st

from zta_authz.model.addresses import address_forms, embedded_ipv4, mapped_network


@given(
    st.integers(0, 2**128 - 1) | st.integers(0, 2**49),
    st.sampled_from([0, 0x2002 << 112, 0x20010000 << 96, 0xFFFF << 32]),
)
def test_mapped_6to4_and_teredo_addresses_agree_with_the_standard_library(number: int, prefix: int) -> None:
    address = IPv6Address(
        (number & (2**80 - 1) if prefix >> 112 else number & (2**32 - 1)) | prefix if prefix else number
    )
    known = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
    if known is not None:
        assert embedded_ipv4(address) == known
        assert address_forms(address) == (address, known)


@pytest.mark.parametrize("text", ["::", "::1", "2001:db8::1", "fe80::1", "2001:1::1", "64:ff9c::1", "64:ff9b:2::1"])
def test_other_addresses_embed_no_ipv4_address(text: str) -> None:
    assert embedded_ipv4(IPv6Address(text)) is None
    assert address_forms(IPv6Address(text)) == (IPv6Address(text),)


def test_an_ipv4_address_embeds_no_other() -> None:
    assert address_forms(IPv4Address("10.0.0.1")) == (IPv4Address("10.0.0.1"),)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"), ("::ffff:192.0.2.1/128", "192.0.2.1/32"), ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", None), ("::/0", None), ("2001:db8::/32", None), ("10.0.0.0/8", None),
    ],
)  # fmt: skip
def test_a_block_of_mapped_addresses_is_a_block_of_ipv4_addresses(block: str, expected: str | None) -> None:
    assert mapped_network(ip_network(block, strict=False)) == (IPv4Network(expected) if expected else None)

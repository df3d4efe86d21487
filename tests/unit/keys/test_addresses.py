from __future__ import annotations

import ipaddress

import pytest

from zta_authz.keys.addresses import PUBLIC_ONLY, AddressRules, literal_address
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "::1",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
    "2002:c0a8:101::",
    # IANA's special-purpose registries, one address of each entry
    "0.1.2.3",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.171",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.175.48.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "2001::1",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2620:4f:8000::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "100::1",
    "100:0:0:1::1",
    "5f00::1",
    "64:ff9b:1::808:808",
    # not given out, or standing for an IPv4 address in a way that nothing routes
    "4000::1",
    "fe00::1",
    "::8.8.8.8",
    "::ffff:0:8.8.8.8",
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7",
]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "224.0.0.1",
    "239.1.1.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "::ffff:0.0.0.0",
    # where clouds keep metadata and credentials
    "192.0.0.192",
    "::ffff:192.0.0.192",
    "64:ff9b::c000:c0",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    "fe80::a9fe:a9fe",
    "169.254.170.2",
    "::a9fe:a9fe",
    "::ffff:0:169.254.169.254",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:1:2:3:4:5601:5601",
]
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "192.0.1.1",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2620:fe::fe",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_permitted(text: str) -> None:
    assert PUBLIC_ONLY.permit("issuer.example", ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_permitted_only_if_the_operator_allows_them(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not PUBLIC_ONLY.permit("issuer.example", address)
    assert AddressRules(allow_private=True).permit("issuer.example", address)
    named = AddressRules(private_hosts=frozenset(("issuer.example",)))
    assert named.permit("issuer.example", address)
    assert named.permit("Issuer.Example.", address)
    assert not named.permit("other.example", address)
    assert not named.permit("evil.issuer.example", address)


@pytest.mark.parametrize("text", NEVER)
def test_link_local_multicast_and_unspecified_addresses_are_never_permitted(text: str) -> None:
    rules = AddressRules(allow_private=True, private_hosts=frozenset(("issuer.example",)))
    assert not rules.permit("issuer.example", ipaddress.ip_address(text))


@pytest.mark.parametrize("host", ["issuer.example", "localhost", "a.b.c.svc", "1e100.net", "0x.example", "10.example"])
def test_a_name_is_not_an_address(host: str) -> None:
    assert literal_address(host) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "8.8.8.8"])
def test_an_address_in_standard_form_is_parsed(host: str) -> None:
    assert literal_address(host) == ipaddress.ip_address(host)


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "1.2.3.4.5", "a.0x7f", "::1::", "a:b"],
)
def test_spellings_that_only_some_parsers_accept_as_an_address_are_refused(host: str) -> None:
    with pytest.raises(FetchFailed) as caught:
        literal_address(host)
    assert caught.value.outcome is FetchOutcome.REFUSED_URL

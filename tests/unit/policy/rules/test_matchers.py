"""Each value form with texts that match and texts that do not, as in Istio's documentation and Envoy 1.40."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import ISTIO, STRICT, decided, faults, matches, operation, policy, request, source, when
from zta_authz.policy.rules.matchers import Exact, Prefix, Present, Suffix, ascii_lower

if TYPE_CHECKING:
    from zta_authz.model.options import Options

both = pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])

_STRINGS = [
    ("*", ["a", "*", " "], [""]),
    ("GET", ["GET"], ["get", "GETS", "AGET", ""]),
    ("*foo", ["foo", "xfoo", "*foo"], ["foox", "Foo", "fo"]),
    ("foo*", ["foo", "foox", "foo*"], ["xfoo", "Foo", "fo"]),
    ("*foo*", ["foo*", "xfoo*"], ["foo", "xfoox"]),
    ("a*b", ["a*b"], ["ab", "axb"]),
    ("**", ["*", "x*"], ["x", ""]),
    (".", ["."], ["x"]),
]


@both
@pytest.mark.parametrize(("value", "met", "missed"), _STRINGS)
def test_strings_are_suffix_prefix_or_exact_and_case_sensitive(
    value: str, met: list[str], missed: list[str], options: Options
) -> None:
    for text in met:
        assert matches(operation(methods=[value]), request(text), options=options), text
        assert not matches(operation(notMethods=[value]), request(text), options=options), text
    for text in missed:
        assert not matches(operation(methods=[value]), request(text), options=options), text
        assert matches(operation(notMethods=[value]), request(text), options=options), text


@both
@pytest.mark.parametrize(
    ("value", "met", "missed"),
    [
        ("example.com", ["example.com", "EXAMPLE.com"], ["example.com.", "api.example.com", ""]),
        ("EXAMPLE.com", ["example.com"], ["example.org"]),
        ("*.example.com", [".example.com", "a.Example.com", "a.b.example.com"], ["example.com", ""]),
        ("example.*", ["example.com", "Example.", "example.com:80"], ["xexample.com"]),
        ("example.com:*", ["example.com:80", "example.com:"], ["example.com"]),
        ("*", ["example.com", "a:80"], [""]),
        ("[2001:db8::1]", ["[2001:DB8::1]"], ["[2001:db8::1]:80"]),
        ("kk", ["KK"], ["\u212ak", "\u212a\u212a"]),
    ],
)
def test_the_hosts_of_an_allow_match_the_received_authority_ignoring_ascii_case(
    value: str, met: list[str], missed: list[str], options: Options
) -> None:
    for host in met:
        assert matches(operation(hosts=[value]), request(host=host), options=options), host
    for host in missed:
        assert not matches(operation(hosts=[value]), request(host=host), options=options), host


@both
@pytest.mark.parametrize("port", ["0", "80", "65535"])
def test_ports_are_the_proxys_local_ports(port: str, options: Options) -> None:
    assert matches(operation(ports=["1", port]), request(port=int(port)), options=options)
    assert not matches(operation(ports=[port]), request(port=8080), options=options)
    assert matches(operation(notPorts=[port]), request(port=8080), options=options)
    assert not matches(when("destination.port", negated=[port]), request(port=int(port)), options=options)


_BLOCKS = [
    ("10.0.0.0/8", ["10.0.0.0", "10.255.255.255"], ["11.0.0.0", "::ffff:10.0.0.1", "2001:db8::1"]),
    ("10.1.2.3/16", ["10.1.0.0", "10.1.255.255"], ["10.2.0.0"]),
    ("192.0.2.1", ["192.0.2.1"], ["192.0.2.0", "192.0.2.2"]),
    ("0.0.0.0/0", ["1.2.3.4"], ["::1"]),
    ("::/0", ["::1", "::ffff:1.2.3.4"], ["1.2.3.4"]),
    ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db9::"]),
    ("::ffff:10.0.0.1", ["::ffff:10.0.0.1"], ["10.0.0.1"]),
    ("2001:db8::1", ["2001:db8:0::1"], ["2001:db8::2"]),
]


STANDS_FOR_10_1_2_3 = {
    "itself": "10.1.2.3",
    "mapped": "::ffff:10.1.2.3",
    "mapped in hexadecimal": "0:0:0:0:0:FFFF:0a01:0203",
    "mapped with a zone": "::ffff:10.1.2.3%4",
    "compatible": "::10.1.2.3",
    "translated": "::ffff:0:10.1.2.3",
    "NAT64": "64:ff9b::10.1.2.3",
    "NAT64, local": "64:ff9b:1::10.1.2.3",
    "6to4": "2002:a01:203:1::7",
    "Teredo": "2001:0:1:2:3:4:f5fe:fdfc",
}


@pytest.mark.parametrize("ip", STANDS_FOR_10_1_2_3.values(), ids=STANDS_FOR_10_1_2_3)
@pytest.mark.parametrize("block", ["10.0.0.0/8", "10.1.2.3", "::ffff:10.0.0.0/104"])
def test_a_deny_matches_an_ipv4_address_in_every_form_and_an_allow_only_as_received(block: str, ip: str) -> None:
    for field, condition, asked in (
        ("ipBlocks", "source.ip", request(source_ip=ip)),
        ("remoteIpBlocks", "remote.ip", request(headers={"x-forwarded-for": f"10.9.9.9, {ip}"}, source_ip="9.9.9.9")),
        ("", "destination.ip", request(destination_ip=ip)),
    ):
        as_it_came = ip == "10.1.2.3" if block[0] == "1" else "ffff" in ip.lower() and "ffff:0:" not in ip
        excluded = f"not{field[:1].upper()}{field[1:]}"
        for rule, other in (
            *([(source(**{field: [block]}), source(**{excluded: [block]}))] if field else []),
            (when(condition, block), when(condition, negated=[block])),
        ):
            assert matches(rule, asked, deny=True), (rule, ip)
            assert not matches(other, asked), (other, ip)
            assert matches(rule, asked) is as_it_came, (rule, ip)
            assert matches(other, asked, deny=True) is not as_it_came, (other, ip)


@pytest.mark.parametrize(
    "ip", ["::", "::1", "2001:db8::a01:203", "2002:a02:203::", "64:ff9c::a01:203", "::ffff:1:a01:203"]
)
def test_other_ipv6_addresses_match_only_themselves(ip: str) -> None:
    assert not matches(source(ipBlocks=["10.1.0.0/16", "0.0.0.0/32", "0.0.0.1"]), request(source_ip=ip), deny=True)
    assert matches(source(ipBlocks=["::/0"]), request(source_ip=ip), deny=True)


def test_a_deny_of_all_ipv6_addresses_does_not_deny_ipv4() -> None:
    for block in ("::/0", "::/80", "::ffff:0:0/95"):
        assert not matches(source(ipBlocks=[block]), request(source_ip="10.1.2.3"), deny=True)


def test_many_blocks_match_like_few() -> None:
    blocks = [source(ipBlocks=[f"10.{number}.0.0/16"]) for number in range(200)]
    for ip in STANDS_FOR_10_1_2_3.values():
        asked = request(source_ip=ip)
        assert decided([policy("p", *blocks, action="DENY")], asked).rule == 1
        assert bool(decided([policy("p", *blocks)], asked).policy) is (ip == "10.1.2.3")


@both
@pytest.mark.parametrize(("block", "met", "missed"), _BLOCKS)
def test_blocks_contain_only_addresses_of_their_family(
    block: str, met: list[str], missed: list[str], options: Options
) -> None:
    for ip, expected in [*((ip, True) for ip in met), *((ip, False) for ip in missed)]:
        for rule, asked in (
            (source(ipBlocks=[block]), request(source_ip=ip)),
            (when("source.ip", block), request(source_ip=ip)),
            (source(remoteIpBlocks=[block]), request(headers={"x-forwarded-for": ip}, source_ip="9.9.9.9")),
            (when("destination.ip", block), request(destination_ip=ip)),
        ):
            assert matches(rule, asked, options=options) is expected, (rule, ip)
        if not options.strict or "::ffff:" not in block + ip:  # which strict reading takes for IPv4 as well
            assert matches(source(notIpBlocks=[block]), request(source_ip=ip), options=options) is not expected


@pytest.mark.parametrize("ip", ["", "10.0.0.1:80", "fe80::1%eth0", "010.0.0.1", "x"])
def test_an_invalid_address_is_in_no_block_in_istio_semantics_and_unknown_in_strict_mode(ip: str) -> None:
    inside, outside = source(ipBlocks=["0.0.0.0/0", "::/0"]), source(notIpBlocks=["10.0.0.0/8"])
    asked = request(source_ip=ip)
    for deny in (False, True):
        assert not matches(inside, asked, options=ISTIO, deny=deny)
        assert matches(outside, asked, options=ISTIO, deny=deny)
        assert matches(inside, asked, options=STRICT, deny=deny) is deny
        assert matches(outside, asked, options=STRICT, deny=deny) is deny


@both
def test_any_single_value_of_a_header_may_match(options: Options) -> None:
    repeated = request(headers={"x-a": ["zz", "v1"]})
    assert matches(when("request.headers[X-A]", "v1"), repeated, options=options)
    assert not matches(when("request.headers[x-a]", "zz,v1"), repeated, options=options)
    assert not matches(when("request.headers[x-a]", negated=["v1"]), repeated, options=options)
    assert matches(when("request.headers[x-a]", "v1,zz"), request(headers={"x-a": "v1,zz"}), options=options)
    assert not matches(when("request.headers[x-a]", "v1"), request(headers={"x-a": "v1,zz"}), options=options)


@both
def test_an_empty_header_matches_only_a_star(options: Options) -> None:
    empty = request(headers={"x-a": ""})
    assert matches(when("request.headers[x-a]", "*"), empty, options=options)
    assert not matches(when("request.headers[x-a]", negated=["*"]), empty, options=options)
    assert not matches(when("request.headers[x-a]", "*a"), empty, options=options)
    assert not matches(when("request.headers[x-a]", "*"), request(), options=options)
    assert matches(when("request.headers[x-a]", negated=["*"]), request(), options=options)


@both
def test_header_values_are_case_sensitive_and_compared_byte_for_byte(options: Options) -> None:
    assert not matches(when("request.headers[x-a]", "v1"), request(headers={"x-a": "V1"}), options=options)
    assert not matches(when("request.headers[x-a]", "v1"), request(headers={"x-a": " v1 "}), options=options)
    assert not matches(when("request.headers[x-a]", "v!"), request(headers={"x-a": "v\udcff"}), options=options)
    assert matches(when("request.headers[x-a]", "v*"), request(headers={"x-a": "v\udcff"}), options=options)


@both
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (":method", "POST"),
        (":path", "/a?b=c#d"),
        (":authority", "Example.com:80"),
        ("host", "Example.com:80"),
        ("Host", "Example.*"),
        (":scheme", "https"),
    ],
)
def test_pseudo_headers_are_compared_as_received(name: str, value: str, options: Options) -> None:
    asked = request("POST", "/a?b=c#d", "Example.com:80", {"host": "literal"}, scheme="https")
    assert matches(when(f"request.headers[{name}]", value), asked, options=options)
    assert not matches(when(f"request.headers[{name}]", value.lower() + "x"), asked, options=options)
    assert not matches(when(f"request.headers[{name}]", "*"), request("", "", ""), options=options)


@both
@pytest.mark.parametrize(
    ("sni", "value", "expected"),
    [
        ("a.example.com", "a.example.com", True),
        ("A.Example.com", "a.example.com", True),
        ("a.example.com", "A.example.com", False),
        ("a.example.com", "*.example.com", True),
        ("\u212a.example.com", "k.example.com", False),
        ("a", "*", True),
        ("", "*", False),
    ],
)
def test_the_server_name_is_lowered_and_compared_with_the_value_as_written(
    sni: str, value: str, expected: bool, options: Options
) -> None:
    assert matches(when("connection.sni", value), request(sni=sni), options=options) is expected
    assert matches(when("connection.sni", negated=[value]), request(sni=sni), options=options) is not expected


@both
@pytest.mark.parametrize(
    ("held", "value", "expected"),
    [
        ("v1", "v1", True),
        ("v1", "v*", True),
        ("", "*", False),
        ("v1", "[v1]", False),
        (["v1", 7], "[v1]", True),
        (["v1"], "[*1]", True),
        (["v1"], "v1", False),
        ([], "[*]", False),
        (7, "7", False),
        (True, "*", False),
        (None, "*", False),
        ({"v1": "v1"}, "v1", False),
    ],
)
def test_dynamic_metadata_is_a_string_or_with_brackets_a_list_of_strings(
    held: Any, value: str, expected: bool, options: Options
) -> None:
    asked = request(metadata={"envoy.filters.f": {"k": held}})
    assert matches(when("experimental.envoy.filters.f[k]", value), asked, options=options) is expected
    assert matches(when("experimental.envoy.filters.f[k]", negated=[value]), asked, options=options) is not expected


@both
def test_metadata_keys_do_not_nest(options: Options) -> None:
    nested = request(metadata={"envoy.filters.f": {"a": {"b": "v"}}})
    flat = request(metadata={"envoy.filters.f": {"a][b": "v"}})
    assert not matches(when("experimental.envoy.filters.f[a][b]", "v"), nested, options=options)
    assert matches(when("experimental.envoy.filters.f[a][b]", "v"), flat, options=options)
    assert not matches(when("experimental.envoy.filters.f[a]", "v"), request(), options=options)
    assert not matches(
        when("experimental.envoy.filters.f[a]", "v"), request(metadata={"envoy.filters.f": "v"}), options=options
    )


@pytest.mark.parametrize(
    ("matcher", "text"),
    [(Exact("a"), "a"), (Prefix("a"), "a*"), (Suffix("a"), "*a"), (Present(), "*")],
)
def test_matchers_are_displayed_as_written(matcher: Exact | Prefix | Suffix | Present, text: str) -> None:
    assert matcher.text == text


def test_a_suffix_does_not_overlap_the_required_start() -> None:
    assert Suffix("spiffe://x", "spiffe://").matches("spiffe://spiffe://x")
    assert not Suffix("spiffe://x", "spiffe://").matches("spiffe://x")


@pytest.mark.parametrize(
    ("text", "lower"), [("ABCxyz[]@", "abcxyz[]@"), ("\u212aK", "\u212ak"), ("İI", "İi"), ("\udcffA", "\udcffa")]
)
def test_only_ascii_letters_are_put_in_lower_case(text: str, lower: str) -> None:
    assert ascii_lower(text) == lower


def test_a_policy_with_every_field_is_accepted() -> None:
    assert not faults(
        """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: all}
spec:
  rules:
  - from:
    - source: {principals: [a], notPrincipals: [a], requestPrincipals: [a/b], notRequestPrincipals: [a/b],
               namespaces: [a], notNamespaces: [a], trustDomains: [a], notTrustDomains: [a],
               ipBlocks: [1.2.3.4], notIpBlocks: ['::/0'], remoteIpBlocks: [10.0.0.0/8], notRemoteIpBlocks: [1.2.3.4]}
    - source: {serviceAccounts: [a], notServiceAccounts: [b/c]}
    to:
    - operation: {hosts: [a], notHosts: [a], ports: ["1"], notPorts: ["2"], methods: [GET], notMethods: [POST],
                  paths: [/a], notPaths: ['/b/{*}']}
"""
    )

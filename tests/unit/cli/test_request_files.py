from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from zta_authz.cli.request_files import Subject, load_request, parse_time, read_request
from zta_authz.errors import Fault, FaultsError
from zta_authz.model.request import Address
from zta_authz.policy.yaml.fields import Reader
from zta_authz.policy.yaml.nodes import read_documents


def read(text: str, folder: Path = Path()) -> Subject:
    """The request that a YAML text describes."""
    faults: list[Fault] = []
    (node,) = read_documents("r.yaml", text, faults)
    subject = read_request(Reader("r.yaml", faults), node, folder)
    if faults or subject is None:
        raise FaultsError(faults)
    return subject


def faults(text: str, folder: Path = Path()) -> list[str]:
    with pytest.raises(FaultsError) as caught:
        read(text, folder)
    return [str(fault) for fault in caught.value.faults]


def test_every_field_of_a_request_is_read() -> None:
    subject = read(
        """
method: POST
path: /a?b=c
host: shop.example.com
scheme: https
headers: {X-Team: blue, x-many: [a, "", b]}
source: {ip: 10.0.0.1, port: 40000}
destination: {ip: "2001:db8::1", port: 8080}
sni: shop.example.com
principal: spiffe://td/x
claims: {iss: i, sub: s, level: 3, groups: [a, b]}
caller: spiffe://td/proxy
destinationPrincipal: spiffe://td/shop
contextExtensions: {zta.workload.namespace: default}
metadata: {envoy.filters.http.x: {k: [a]}}
"""
    )
    request = subject.request
    assert (request.method, request.path, request.host, request.scheme) == (
        "POST",
        "/a?b=c",
        "shop.example.com",
        "https",
    )
    assert (request.headers.all("x-team"), request.headers.all("x-many")) == (("blue",), ("a", "", "b"))
    assert request.headers.exact
    assert (request.source, request.destination) == (Address("10.0.0.1", 40000), Address("2001:db8::1", 8080))
    assert (request.sni, request.destination_principal) == ("shop.example.com", "spiffe://td/shop")
    assert request.context_extensions == {"zta.workload.namespace": "default"}
    assert request.metadata == {"envoy.filters.http.x": {"k": ["a"]}}
    assert (subject.principal, subject.caller) == ("spiffe://td/x", "spiffe://td/proxy")
    assert subject.claims == {"iss": "i", "sub": "s", "level": 3, "groups": ["a", "b"]}
    assert subject.evidence.principal == ""


def test_omitted_fields_are_absent() -> None:
    subject = read("{}")
    assert (subject.request.method, subject.request.path, subject.request.host) == ("GET", "/", "")
    assert (subject.assumed, len(subject.request.headers), subject.caller) == ((), 0, "")


def test_an_empty_path_can_be_asked_for() -> None:
    assert read('path: ""').request.path == ""


def test_a_principal_with_a_certificate_is_compared_with_it() -> None:
    subject = read("principal: spiffe://td/x\ncertificate: |\n  -----BEGIN CERTIFICATE-----\n  +/=\n")
    assert (subject.principal, subject.evidence.principal, subject.assumed) == ("", "spiffe://td/x", ())
    assert unquote(subject.evidence.certificate) == "-----BEGIN CERTIFICATE-----\n+/=\n"
    assert "+" not in subject.evidence.certificate


def test_a_certificates_file_is_looked_for_beside_the_request(tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_text("-----BEGIN X")
    (tmp_path / "request.yaml").write_text("certificate: leaf.pem\n")
    subject = load_request(str(tmp_path / "request.yaml"), binary=False)
    assert unquote(subject.evidence.certificate) == "-----BEGIN X"


def test_a_token_is_sent_as_a_bearer_token() -> None:
    assert read("token: a.b.c").request.headers.all("authorization") == ("Bearer a.b.c",)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "r.yaml:1:1: `a request` is a list where a mapping of fields is expected"),
        ("metod: GET", "1:1: unknown field `metod` in a request; did you mean `method`?"),
        ("method: [GET]", "1:9: `method` is a list where a string is expected"),
        ("method: NO", "1:9: `method` has the boolean `NO` where a string is expected"),
        ("headers: [a]", "1:10: `headers` is a list instead of a mapping"),
        ("headers: {x: 1}", "1:14: `x` has the integer `1` where a string is expected"),
        ("headers: {x: []}", "1:14: `x` is an empty list"),
        ('headers: {":path": /x}', "1:11: `:path` is not a valid header name; write it as `method`, `path`"),
        ('headers: {"a b": x}', "1:11: `a b` is not a valid header name"),
        ("source: 10.0.0.1", "1:9: `source` is a string where a mapping of fields is expected"),
        ("source: {ip: here}", "1:14: `here` is not an IP address"),
        ("source: {port: 65536}", "1:16: `source.port` is not a port"),
        ('source: {port: "80"}', "1:16: `source.port` is not a port"),
        ("destination: {port: true}", "1:21: `destination.port` is not a port"),
        ("claims: x", "1:9: `claims` is a string instead of a mapping"),
        ("claims: {sub: 7}", "1:15: `claims.sub` has the integer `7` where a string is expected"),
        ("{token: x, claims: {}}", "1:9: the request has both `token` and `claims`"),
        ("{token: x, headers: {Authorization: b}}", "both `token` and an `authorization` header"),
        ("certificate: missing.pem", "1:14: `certificate`: `missing.pem` cannot be read"),
        ("metadata: x", "1:11: `metadata` is a string instead of a mapping"),
        ("metadata: {f: x}", "1:15: `metadata.f` is a string where a mapping of fields is expected"),
        ("contextExtensions: [x]", "1:20: `contextExtensions` is a list where a mapping of strings is expected"),
    ],
)
def test_faults_of_a_request_have_their_location(text: str, fault: str) -> None:
    assert fault in "\n".join(faults(text))


def test_a_secret_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(
        read("{headers: {x: secret1}, claims: {sub: secret2}, certificate: '-----BEGIN secret3'}")
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "the file has 0 documents instead of one request"),
        (b"{}\n---\n{}\n", "the file has 2 documents"),
        (b"a: \xff", "the file is not UTF-8"),
        (b"\x0a\x00\xff", "CheckRequest"),
        (b"{", "not valid YAML"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1024 KiB"),
    ],
)
def test_files_without_a_single_request_are_faults(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "request").write_bytes(content)
    with pytest.raises(FaultsError) as caught:
        load_request(str(tmp_path / "request"), binary=False)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T01:01:00+01:00", 60.0), ("1970-01-01T00:00:00.5Z", 0.5)],
)
def test_times_have_an_offset(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds

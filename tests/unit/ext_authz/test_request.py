"""What is read from a CheckRequest, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.check_requests import FRONTEND, check_request
from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.errors import Reason, Refused
from zta_authz.ext_authz import request as request_module
from zta_authz.ext_authz.request import CheckRequestParser, parse_check_request
from zta_authz.model.request import NO_ADDRESS, Address, RequestAttributes

if TYPE_CHECKING:
    from collections.abc import Callable


def parsed(message: CheckRequest) -> RequestAttributes:
    return parse_check_request(message.SerializeToString())[0]


def test_each_attribute_lands_in_its_field() -> None:
    message = check_request(method="POST", path="/orders?x=1")
    message.attributes.destination.principal = "spiffe://cluster.local/ns/default/sa/orders"
    message.attributes.tls_session.sni = "orders.default"
    message.attributes.context_extensions["virtual_host"] = "shop"
    message.attributes.request.http.protocol = "HTTP/2"
    request = parsed(message)
    assert (request.method, request.path, request.host) == ("POST", "/orders?x=1", "orders:8080")
    assert (request.scheme, request.protocol, request.request_id) == ("http", "HTTP/2", "7")
    assert (request.source, request.destination) == (Address("10.0.0.1", 41234), Address("10.0.0.2", 8080))
    assert request.destination_principal == "spiffe://cluster.local/ns/default/sa/orders"
    assert request.sni == "orders.default"
    assert request.context_extensions == {"virtual_host": "shop"}
    assert dict(request.metadata) == {}


def test_what_was_presented_is_evidence_and_not_part_of_the_request() -> None:
    message = check_request()
    message.attributes.source.certificate = "-----BEGIN%20CERTIFICATE-----"
    _, evidence = parse_check_request(message.SerializeToString())
    assert (evidence.principal, evidence.certificate) == (FRONTEND, "-----BEGIN%20CERTIFICATE-----")


def test_header_lines_stay_apart_and_in_order() -> None:
    request = parsed(check_request([("X-A", b"1"), ("b", b""), ("x-a", b"2,3"), ("X-a", b"1")]))
    assert request.headers.exact
    assert request.headers.all("x-a") == ("1", "2,3", "1")
    assert request.headers.all("b") == ("",)
    assert set(request.headers.names()) == {"x-a", "b"}


def test_bytes_that_are_no_text_differ_from_every_other_value() -> None:
    request = parsed(check_request([("x-a", b"\xff\x00ok"), ("x-b", b"\xfe\x00ok")]))
    assert request.headers.all("x-a") == ("\udcff\x00ok",)
    assert request.headers.joined("x-a") != request.headers.joined("x-b")


def test_a_header_value_that_came_as_text_is_taken() -> None:
    message = check_request()
    message.attributes.request.http.header_map.headers.add(key="x-a", value="text")
    assert parsed(message).headers.all("x-a") == ("text",)


def test_joined_headers_are_known_to_be_joined() -> None:
    message = check_request()
    message.attributes.request.http.headers.update({"x-a": "1,2", "X-B": "3", "x-b": "4"})
    headers = parsed(message).headers
    assert not headers.exact
    assert headers.all("x-a") == ("1,2",)
    assert sorted(headers.all("x-b")) == ["3", "4"]


def malformed(message: CheckRequest) -> str:
    """Why the request is refused as malformed."""
    with pytest.raises(Refused) as refused:
        parsed(message)
    assert refused.value.reason is Reason.REQUEST_MALFORMED
    return refused.value.detail


def test_header_lines_beside_joined_headers_are_malformed() -> None:
    message = check_request([("x-a", b"line")])
    message.attributes.request.http.headers["x-a"] = "joined"
    assert malformed(message) == "the CheckRequest has both `headers` and `header_map`"
    del message.attributes.request.http.header_map.headers[:]  # there, but empty
    assert malformed(message) == "the CheckRequest has both `headers` and `header_map`"
    message.attributes.request.http.ClearField("header_map")
    assert parsed(message).headers.all("x-a") == ("joined",)


def test_a_request_without_headers_hides_no_repeats() -> None:
    headers = parsed(check_request()).headers
    assert (len(headers), headers.exact) == (0, True)


SAID = {":method": "PUT", ":path": "/p?x", ":authority": "shop", ":scheme": "https"}


def described(headers: dict[str, str], *, raw: bool, **attributes: str) -> CheckRequest:
    """A request with these attributes, and headers in either form."""
    message = CheckRequest()
    http = message.attributes.request.http
    http.method, http.path, http.host, http.scheme = "PUT", "/p?x", "shop", "https"
    for name, value in attributes.items():
        setattr(http, name, value)
    for name, value in headers.items():
        if raw:
            http.header_map.headers.add(key=name, raw_value=value.encode())
        else:
            http.headers[name] = value
    return message


either_form = pytest.mark.parametrize("raw", [True, False], ids=["raw", "joined"])


@either_form
def test_pseudo_headers_that_agree_with_the_attributes_are_no_headers(raw: bool) -> None:
    said = {**SAID, ":protocol": "websocket", "host": "shop", "a": "1"}
    request = parsed(described(said, raw=raw))
    assert (request.method, request.path, request.host, request.scheme) == ("PUT", "/p?x", "shop", "https")
    assert sorted(request.headers.names()) == ["a", "host"]


@either_form
@pytest.mark.parametrize("left_out", [*SAID, *SAID.items()], ids=str)
def test_headers_that_the_filter_does_not_send_are_not_missed(left_out: str | tuple[str, str], raw: bool) -> None:
    """`allowed_headers` and `disallowed_headers` leave out what they please."""
    kept = dict([left_out]) if isinstance(left_out, tuple) else {n: v for n, v in SAID.items() if n != left_out}
    request = parsed(described(kept, raw=raw))
    assert (request.method, request.path, request.host, request.scheme) == ("PUT", "/p?x", "shop", "https")


@either_form
@pytest.mark.parametrize(
    ("name", "attribute"), [*zip(SAID, ("method", "path", "host", "scheme"), strict=True), ("host", "host")]
)
@pytest.mark.parametrize("said", ["", "other"])
def test_a_pseudo_header_and_an_attribute_that_differ_are_malformed(
    name: str, attribute: str, said: str, raw: bool
) -> None:
    """One of the two was decided on, and the upstream might have seen the other."""
    expected = f"the header `{name}` and the request's attribute differ"
    headers = {**SAID, "host": "shop"}
    assert malformed(described({**headers, name: said}, raw=raw)) == expected
    del headers["host" if name == ":authority" else ":authority"]
    assert malformed(described(headers, raw=raw, **{attribute: said})) == expected


@pytest.mark.parametrize("name", [*SAID, ":protocol", "host"])
@pytest.mark.parametrize("again", [str.lower, str.upper])
def test_a_pseudo_header_that_comes_twice_is_malformed(name: str, again: Callable[[str], str]) -> None:
    message = described({**SAID, ":protocol": "websocket", "host": "shop"}, raw=True)
    lines = message.attributes.request.http.header_map.headers
    value = next(line.raw_value for line in lines if line.key == name)
    lines.add(key=again(name), raw_value=value)
    assert malformed(message) == f"`{name}` comes 2 times"


def test_joined_pseudo_headers_that_differ_in_case_only_are_malformed() -> None:
    assert malformed(described({**SAID, ":Path": "/p?x"}, raw=False)) == "`:path` comes 2 times"


def test_connect_has_neither_path_nor_scheme() -> None:
    message = described(
        {":method": "CONNECT", ":authority": "shop:443"},
        raw=True,
        method="CONNECT",
        host="shop:443",
        path="",
        scheme="",
    )
    request = parsed(message)
    assert (request.method, request.path, request.host, request.scheme) == ("CONNECT", "", "shop:443", "")


def test_a_unix_socket_has_no_address() -> None:
    message = check_request()
    message.attributes.source.address.pipe.path = "/tmp/socket"
    assert parsed(message).source == NO_ADDRESS


def test_dynamic_metadata_becomes_plain_values() -> None:
    message = check_request()
    fields = message.attributes.metadata_context.filter_metadata["envoy.filters.x"]
    fields.update({"s": "text", "n": 1.5, "b": True, "z": None, "l": ["a", {"k": "v"}]})
    metadata = parsed(message).metadata
    assert list(metadata) == ["envoy.filters.x"]
    assert len(metadata) == 1
    assert metadata["envoy.filters.x"] == {"s": "text", "n": 1.5, "b": True, "z": None, "l": ["a", {"k": "v"}]}
    assert metadata["envoy.filters.x"] is metadata["envoy.filters.x"]  # converted once, whatever number of rules ask


def test_asking_for_metadata_that_is_not_there_does_not_make_it() -> None:
    message = check_request()
    message.attributes.metadata_context.filter_metadata["a"].update({"k": "v"})
    metadata = parsed(message).metadata
    assert metadata.get("b") is None
    assert list(metadata) == ["a"]


@pytest.mark.parametrize(
    "payload",
    [b"\xff", b"\x0a\x05abc", b"not a message", CheckRequest().SerializeToString(), b"\x0a\x00", b"\x0a\x02\x22\x00"],
)
def test_bytes_without_an_http_request_are_refused_by_name(payload: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_check_request(payload)
    assert refused.value.reason is Reason.REQUEST_MALFORMED


def test_text_that_is_not_utf8_is_refused() -> None:
    payload = check_request(path="/XX").SerializeToString().replace(b"/XX", b"/\xff\xfe")
    with pytest.raises(Refused):
        parse_check_request(payload)


def test_connections_that_are_cached_are_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_module, "MAX_CACHED_CONNECTIONS", 10)
    monkeypatch.setattr(request_module, "MAX_CACHED_BYTES", 5000)
    parser = CheckRequestParser()
    message = check_request()
    for port in range(1, 50):
        message.attributes.source.address.socket_address.port_value = port
        for _ in range(2):
            request, _ = parser.parse(message.SerializeToString())
            assert request.source == Address("10.0.0.1", port)
        assert 0 < len(parser._connections) <= 10
    for size in range(500, 6000, 500):
        message.attributes.source.certificate = "c" * size
        _, evidence = parser.parse(message.SerializeToString())
        assert evidence.certificate == "c" * size
        kept = (*parser._connections, *parser._connections._old)
        assert sum(len(source) + len(destination) for source, destination in kept) <= 5000


def test_a_source_is_not_taken_for_that_of_another_destination() -> None:
    parser, message = CheckRequestParser(), check_request()
    for principal in ("spiffe://a/one", "spiffe://a/two") * 2:
        message.attributes.destination.principal = principal
        request, evidence = parser.parse(message.SerializeToString())
        assert (request.destination_principal, evidence.principal) == (principal, FRONTEND)


def test_header_values_are_read_when_asked_and_the_same_each_time() -> None:
    headers = parsed(check_request([("x-a", b"1"), ("x-b", b"\xff"), ("x-a-b", b"")])).headers
    for _ in range(2):
        assert headers.all("x-a") == ("1",)
        assert headers.joined("x-b") == "\udcff"
        assert (headers.all("x-a-b"), headers.joined("x-a-b")) == (("",), "")
        assert (headers.all("x-c"), headers.joined("x-c"), "x-c" in headers) == ((), None, False)
    assert headers.listing.split("\n") == list(headers.names()) == ["x-a", "x-b", "x-a-b"]


def test_a_hundred_thousand_repeats_of_a_header_take_no_quadratic_time() -> None:
    request = parsed(check_request([("x-a", b"1")] * 100_000))
    assert len(request.headers.all("x-a")) == 100_000

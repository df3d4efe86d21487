"""Laws of the wire: any request reads the same through an independent encoder, any bytes are answered or refused."""

from __future__ import annotations

import json

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.auth import v3 as envoy
from hypothesis import given, settings, strategies as st

from tests.support.check_requests import DECISION_ID, allow, answer, deny
from tests.support.plain_request import as_plain, read_plainly
from zta_authz._proto.ext_authz_pb2 import AttributeContext, CheckResponse
from zta_authz.errors import DENIAL_RESPONSES, Reason, Refused
from zta_authz.ext_authz.partial_request import LEFT_AS_BYTES, PartialCheckRequest
from zta_authz.ext_authz.request import CheckRequestParser
from zta_authz.model.changed_headers import GuardedNames, folded_name
from zta_authz.model.decision import Decision, Response, Verdict
from zta_authz.model.identity import Changes, Identity, Peer, PeerTrust
from zta_authz.model.request import Headers, RequestAttributes

parse_check_request = CheckRequestParser().parse  # one for all, so that it meets what it has parsed before
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # what protobuf's strings can hold
anything = st.text(max_size=20)
header_names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
spoofs = st.sampled_from(["x-zta-principal", "x_zta_principal", "x-zta_role", "x-user", "x_user", "accept"])


@given(
    lines=st.lists(st.tuples(header_names, st.binary(max_size=20)), max_size=8),
    method=texts,
    path=texts,
    host=texts,
    principal=texts,
    port=st.integers(0, 65535),
)
@settings(max_examples=60, deadline=None)
def test_a_request_reads_the_same_through_an_independent_encoder(
    lines: list[tuple[str, bytes]], method: str, path: str, host: str, principal: str, port: int
) -> None:
    headers = [core.HeaderValue(key=name, raw_value=value) for name, value in lines]
    address = core.Address(socket_address=core.SocketAddress(address="10.0.0.1", port_value=port))
    http = envoy.AttributeContextHttpRequest(
        method=method, path=path, host=host, header_map=core.HeaderMap(headers=headers)
    )
    sent = envoy.CheckRequest(
        attributes=envoy.AttributeContext(
            source=envoy.AttributeContextPeer(address=address, principal=principal),
            request=envoy.AttributeContextRequest(http=http),
        )
    )
    request, evidence = parse_check_request(bytes(sent))
    assert (request.method, request.path, request.host, evidence.principal) == (method, path, host, principal)
    assert (request.source.ip, request.source.port) == ("10.0.0.1", port)
    names = {name.lower() for name, _ in lines}
    assert set(request.headers.names()) == names
    for name in names:
        values = tuple(value.decode("utf-8", "surrogateescape") for key, value in lines if key.lower() == name)
        assert request.headers.all(name) == values


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_request_or_refused_as_malformed(payload: bytes) -> None:
    try:
        read: RequestAttributes | Reason = parse_check_request(payload)[0]
    except Refused as refused:
        read = refused.reason
    assert isinstance(read, RequestAttributes) or read is Reason.REQUEST_MALFORMED


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field, as protobuf writes it."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + bytes(length) + content


lines = st.builds(
    lambda key, value, raw: field(1, key) + field(2, value) + field(3, raw),
    st.sampled_from([b"a", b"A", b"host", b"Cookie", b":path", b":method", b":authority", b":scheme", b"\xff"]),
    st.sampled_from([b"", b"text", b"\xff"]),
    st.sampled_from([b"", b"raw", b"\xff\xfe", "é".encode()]),
)
addresses = st.builds(
    lambda ip, port: field(1, field(1, field(2, ip) + b"\x18" + bytes((port,)))),
    st.sampled_from([b"", b"10.0.0.1", b"::1", b"\xff"]),
    st.integers(1, 127),
)
peers = st.lists(
    addresses
    | st.sampled_from(
        [field(4, b"spiffe://a/b"), field(4, b"\xff"), field(5, b"PEM"), field(5, b"P" * 300), b"\x40\x01", b"\x3a"]
    )
    | st.binary(max_size=6),
    max_size=3,
).map(b"".join)
https = st.lists(
    lines.map(lambda line: field(13, field(1, line)))
    | st.sampled_from([field(2, b"GET"), field(4, b"/p"), field(5, b"shop"), field(3, field(1, b"x") + field(2, b"y"))])
    | st.binary(max_size=4),
    max_size=5,
).map(b"".join)
contexts = st.lists(
    peers.map(lambda peer: field(1, peer))
    | peers.map(lambda peer: field(2, peer))
    | https.map(lambda http: field(4, field(2, http)))
    | st.sampled_from(
        [field(10, field(1, b"k") + field(2, b"v")), field(11, b""), field(12, field(1, b"sni")), field(3, b"x")]
    )
    | st.binary(max_size=4),
    max_size=5,
).map(b"".join)
payloads = st.lists(contexts.map(lambda context: field(1, context)) | st.binary(max_size=3), max_size=2).map(b"".join)


@given(payloads)
@settings(max_examples=600, deadline=None)
def test_what_is_known_from_before_reads_as_if_all_were_read_plainly(payload: bytes) -> None:
    wanted = read_plainly(payload)
    for _ in range(2):  # the second time the peers are known
        try:
            read = as_plain(*parse_check_request(payload))
        except Refused:
            read = None
        assert read == wanted


def test_a_peer_in_two_pieces_is_one_peer_although_each_piece_is_known() -> None:
    name, certificate = field(1, field(4, b"spiffe://a/b")), field(1, field(5, b"PEM"))
    http = field(2, field(4, b"spiffe://a/c")) + field(4, field(2, field(4, b"/p")))
    for context, wanted in (
        (name, ("spiffe://a/b", "")),
        (certificate, ("", "PEM")),
        (name + certificate, ("spiffe://a/b", "PEM")),
        (certificate + name, ("spiffe://a/b", "PEM")),
    ):
        for payload in (field(1, context + http), field(1, http + context), field(1, context) + field(1, http)):
            evidence = parse_check_request(payload)[1]
            assert (evidence.principal, evidence.certificate) == wanted


def test_a_peer_that_was_refused_is_refused_again() -> None:
    payload = field(1, field(1, field(4, b"\xff")) + field(4, field(2, field(4, b"/p"))))
    for _ in range(2):
        with pytest.raises(Refused):
            parse_check_request(payload)


def test_the_fields_of_our_own_type_are_those_of_protobufs() -> None:
    ours, theirs = PartialCheckRequest.DESCRIPTOR.fields_by_name["attributes"].message_type, AttributeContext.DESCRIPTOR
    kept = [name for name, each in theirs.fields_by_name.items() if name not in LEFT_AS_BYTES]
    assert {name: each.number for name, each in ours.fields_by_name.items()} == {
        name: each.number for name, each in theirs.fields_by_name.items()
    }
    assert all(ours.fields_by_name[name].message_type == theirs.fields_by_name[name].message_type for name in kept)


@given(
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from(Reason),
    principal=anything,
    policy=texts,
    rule=st.none() | st.integers(0, 2**31),
    pairs=st.lists(st.tuples(anything, anything), max_size=4),
    removed=st.lists(anything, max_size=4),
    status=st.integers(-1, 1000),
    message=anything,
)
@settings(max_examples=200, deadline=None)
def test_any_decision_is_answered_and_allowed_only_where_verdict_and_reason_say_so(
    verdict: Verdict,
    reason: Reason,
    principal: str,
    policy: str,
    rule: int | None,
    pairs: list[tuple[str, str]],
    removed: list[str],
    status: int,
    message: str,
) -> None:
    changes = Changes(tuple(pairs), tuple(removed))
    who = Identity(peer=Peer((principal,), None, PeerTrust.PROXY), changes=changes)
    response = Response(tuple(pairs), tuple(removed), status, message)
    decision = Decision(verdict, reason, policy, rule, who, response=response)
    told = CheckResponse.FromString(answer(decision, DECISION_ID, None))
    assert told.HasField("status")
    if told.status.code == 0:
        assert verdict is Verdict.ALLOW
        assert reason not in DENIAL_RESPONSES
        assert told.WhichOneof("http_response") == "ok_response"
    else:
        assert 400 <= told.denied_response.status.code <= 599
        assert json.loads(told.denied_response.body)["decision_id"] == DECISION_ID


@given(
    inbound=st.lists(spoofs | header_names.map(str.lower), max_size=8, unique=True),
    set_names=st.lists(spoofs | header_names, max_size=4),
    remove_names=st.lists(spoofs | header_names, max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_nothing_of_ours_passes_in_from_the_client_and_nothing_is_both_set_and_removed(
    inbound: list[str], set_names: list[str], remove_names: list[str]
) -> None:
    request = RequestAttributes(method="GET", headers=Headers(dict.fromkeys(inbound, ("spoofed",)), exact=True))
    outputs = {"x-user", *set_names}
    decision = allow(Changes(tuple((name, "v") for name in set_names), tuple(remove_names)))
    told = CheckResponse.FromString(answer(decision, DECISION_ID, request, GuardedNames(outputs))).ok_response
    were_set = {option.header.key for option in told.headers}
    were_removed = set(told.headers_to_remove)
    assert were_set.isdisjoint(were_removed)
    untouched = [name for name in inbound if name not in were_set | were_removed and name != "host"]
    assert not [name for name in untouched if folded_name(name).startswith("x-zta-")]
    assert not [name for name in untouched if folded_name(name) in {folded_name(output) for output in outputs}]
    assert {name.lower() for name in remove_names} <= were_set | were_removed | {"host"}


@given(st.sampled_from(sorted(DENIAL_RESPONSES)), st.sampled_from(["application/grpc", "text/html"]))
def test_a_denial_to_a_grpc_caller_is_one_line(reason: Reason, content_type: str) -> None:
    request = RequestAttributes(method="POST", headers=Headers({"content-type": (content_type,)}, exact=True))
    body = CheckResponse.FromString(answer(deny(reason), DECISION_ID, request)).denied_response.body
    assert "\n" not in body
    assert body.startswith("{") is (content_type == "text/html")

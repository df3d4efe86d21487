"""Laws of the wire: any request reads the same through an independent encoder, any bytes are answered or refused."""

from __future__ import annotations

import json

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.auth import v3 as envoy
from hypothesis import given, settings, strategies as st

from tests.support.check_requests import DECISION_ID, allow, deny
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.errors import ANSWERS, Reason, Refused
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.ext_authz.response import answer, spoof_name
from zta_authz.model.decision import Decision, Response, Verdict
from zta_authz.model.identity import Changes, Identity, Peer, PeerTrust
from zta_authz.model.request import Headers, RequestAttributes

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
        assert reason not in ANSWERS
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
    outputs = frozenset(spoof_name(name) for name in ("x-user", *set_names))
    decision = allow(Changes(tuple((name, "v") for name in set_names), tuple(remove_names)))
    told = CheckResponse.FromString(answer(decision, DECISION_ID, request, outputs)).ok_response
    were_set = {option.header.key for option in told.headers}
    were_removed = set(told.headers_to_remove)
    assert were_set.isdisjoint(were_removed)
    untouched = [name for name in inbound if name not in were_set | were_removed and name != "host"]
    assert not [name for name in untouched if name.replace("_", "-").startswith("x-zta-")]
    assert not [name for name in untouched if spoof_name(name) in outputs]
    assert {name.lower() for name in remove_names} <= were_set | were_removed | {"host"}


@given(st.sampled_from(sorted(ANSWERS)), st.sampled_from(["application/grpc", "text/html"]))
def test_a_denial_to_a_grpc_caller_is_one_line(reason: Reason, content_type: str) -> None:
    request = RequestAttributes(method="POST", headers=Headers({"content-type": (content_type,)}, exact=True))
    body = CheckResponse.FromString(answer(deny(reason), DECISION_ID, request)).denied_response.body
    assert "\n" not in body
    assert body.startswith("{") is (content_type == "text/html")

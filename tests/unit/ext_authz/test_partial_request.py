"""Our definitions speak Envoy's wire format: an independent encoder reads and writes the same messages."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.service.auth import v3 as envoy
from envoy_data_plane.google.protobuf import Struct, Value

from tests.support.check_requests import DECISION_ID, FRONTEND, allow, answer, attributes, deny
from zta_authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse
from zta_authz.errors import DENIAL_RESPONSES, Reason
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.identity import Changes
from zta_authz.model.request import Address

# we use `append` on purpose: Envoy 1.40 did not overwrite where only `append_action` said so
pytestmark = pytest.mark.filterwarnings("ignore:HeaderValueOption.append is deprecated:DeprecationWarning")

ROOT = Path(__file__).parents[3]


def peer(address: str, port: int, principal: str) -> envoy.AttributeContextPeer:
    socket = core.SocketAddress(address=address, port_value=port)
    return envoy.AttributeContextPeer(
        address=core.Address(socket_address=socket), principal=principal, certificate="PEM%0A", labels={"app": "x"}
    )


def full_request() -> envoy.CheckRequest:
    headers = [core.HeaderValue(key="x-a", raw_value=b"\xff1"), core.HeaderValue(key="x-a", raw_value=b"2")]
    http = envoy.AttributeContextHttpRequest(
        id="42",
        method="POST",
        header_map=core.HeaderMap(headers=headers),
        path="/a?b=c",
        host="shop",
        scheme="https",
        size=12,
        protocol="HTTP/2",
        raw_body=b"\x00\x01",
    )
    metadata = core.Metadata(filter_metadata={"f": Struct(fields={"k": Value(string_value="v")})})
    return envoy.CheckRequest(
        attributes=envoy.AttributeContext(
            source=peer("10.0.0.1", 1234, FRONTEND),
            destination=peer("::1", 8080, "spiffe://cluster.local/ns/default/sa/orders"),
            request=envoy.AttributeContextRequest(time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), http=http),
            context_extensions={"a": "b"},
            metadata_context=metadata,
            route_metadata_context=metadata,
            tls_session=envoy.AttributeContextTlsSession(sni="shop.example"),
        )
    )


def test_a_request_of_an_independent_encoder_reads_the_same() -> None:
    request, evidence = parse_check_request(bytes(full_request()))
    assert (request.method, request.path, request.host) == ("POST", "/a?b=c", "shop")
    assert (request.scheme, request.protocol, request.request_id) == ("https", "HTTP/2", "42")
    assert request.headers.all("x-a") == ("\udcff1", "2")
    assert (request.source, request.destination) == (Address("10.0.0.1", 1234), Address("::1", 8080))
    assert request.destination_principal == "spiffe://cluster.local/ns/default/sa/orders"
    assert (request.sni, request.context_extensions) == ("shop.example", {"a": "b"})
    assert request.metadata == {"f": {"k": "v"}}
    assert (evidence.principal, evidence.certificate) == (FRONTEND, "PEM%0A")


def test_no_field_of_a_full_request_is_unknown_to_us() -> None:
    message = CheckRequest.FromString(bytes(full_request()))
    size = message.ByteSize()
    message.DiscardUnknownFields()
    assert message.ByteSize() == size
    http = message.attributes.request.http
    assert (http.size, http.raw_body, message.attributes.request.time.seconds) == (12, b"\x00\x01", 1767323045)
    assert dict(message.attributes.source.labels) == {"app": "x"}
    assert message.attributes.route_metadata_context.filter_metadata["f"].fields["k"].string_value == "v"


def test_fields_of_a_newer_envoy_survive_and_disturb_nothing() -> None:
    unknown = b"\xfa\x7f\x03new"  # field 2047, length-delimited
    payload = bytes(full_request()) + unknown
    assert parse_check_request(payload)[0].method == "POST"
    assert unknown in CheckRequest.FromString(payload).SerializeToString()


def test_an_allow_reads_the_same_in_an_independent_decoder() -> None:
    changes = Changes((("x-user", "Jürgen"),), ("authorization",), ("access_token",))
    message = envoy.CheckResponse.parse(answer(allow(changes), DECISION_ID, attributes(x_user="root")))
    assert message.status is not None
    assert message.status.code == 0
    assert message.denied_response is None
    assert message.ok_response is not None
    upstream = {option.header.key: option.header.value for option in message.ok_response.headers if option.header}
    assert upstream == {"x-user": "Jürgen", "x-zta-decision-id": DECISION_ID, "x-zta-principal": FRONTEND}
    assert [option.append for option in message.ok_response.headers] == [False] * 3
    assert message.ok_response.headers_to_remove == ["authorization"]
    assert message.ok_response.query_parameters_to_remove == ["access_token"]
    assert message.dynamic_metadata is not None
    assert message.dynamic_metadata.fields["policy"].string_value == "default/hatshop-policy"


@pytest.mark.parametrize("reason", DENIAL_RESPONSES)
def test_a_denial_reads_the_same_in_an_independent_decoder(reason: Reason) -> None:
    message = envoy.CheckResponse.parse(answer(deny(reason), DECISION_ID, attributes()))
    assert message.status is not None
    assert message.status.code != 0
    assert message.ok_response is None
    assert message.denied_response is not None
    assert message.denied_response.status is not None
    assert message.denied_response.status.code == DENIAL_RESPONSES[reason].status
    assert DECISION_ID in message.denied_response.body


def test_an_empty_response_which_envoy_reads_as_allow_is_never_what_we_say() -> None:
    decisions = [Decision(verdict, reason) for verdict in Verdict for reason in Reason]
    for decision in decisions:
        message = CheckResponse.FromString(answer(decision, DECISION_ID, None))
        allowed = decision.allowed and decision.reason not in DENIAL_RESPONSES
        assert message.HasField("status")
        assert message.HasField("ok_response") is allowed
        assert (message.status.code == 0) is allowed


def normal(generated: str) -> str:
    """Generated code without the version of its generator."""
    text = re.sub(r"# Protobuf Python Version: .*", "", generated)
    return re.sub(r"(Domain\.PUBLIC,)\s+\d+,\s+\d+,\s+\d+,\s+'[^']*',", r"\1", text)


@pytest.mark.parametrize("proto", sorted(path.name for path in (ROOT / "protos").glob("*.proto")))
def test_the_committed_code_is_what_the_definitions_generate(proto: str, tmp_path: Path) -> None:
    arguments = ["-Izta_authz/_proto=protos", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *arguments, f"zta_authz/_proto/{proto}"], cwd=ROOT, check=True
    )
    fresh = sorted((tmp_path / "zta_authz" / "_proto").iterdir())
    assert len(fresh) == 2
    for path in fresh:
        assert normal((ROOT / "zta_authz" / "_proto" / path.name).read_text()) == normal(path.read_text())

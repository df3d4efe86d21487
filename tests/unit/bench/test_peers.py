"""The comparison with peers: each gets the same policy, and stalls count as latency."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from bench import scenario
from bench.peers import policy, servers
from bench.peers.paced import PacedClient, header_block
from bench.peers.report import overheads, ratio
from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.ext_authz.request import parse_check_request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def policies(tmp_path: Path) -> policy.PolicySet:
    scenario.build("token", 6, tmp_path)
    return policy.read(tmp_path / "policies" / "policies.yaml")


def test_every_policy_of_the_scenario_is_read_with_its_issuer(policies: policy.PolicySet) -> None:
    assert [rule.deny for rule in policies.rules] == [True, False, False, False, False, False]
    assert policies.rules[-1] == policy.Rule(
        "cluster.local/ns/default/sa/frontend", False, ("GET",), ("/orders/*",), "https://issuer.example/alice"
    )
    assert (policies.issuer, policies.audience) == ("https://issuer.example", "orders")
    assert json.loads(policies.jwks)["keys"]


def test_rego_as_rules_holds_each_rule_once_and_none_as_data(policies: policy.PolicySet) -> None:
    module, data = policy.to_rego(policies, "rules")
    for rule in policies.rules:
        assert module.count(f'input.attributes.source.principal == "spiffe://{rule.principal}"') == 1
    assert list(json.loads(data)) == ["jwt"]


def test_rego_as_data_holds_the_same_rules_scanned_or_keyed(policies: policy.PolicySet) -> None:
    _, scanned = policy.to_rego(policies, "list")
    _, keyed = policy.to_rego(policies, "keyed")
    assert [rule for rules in json.loads(keyed)["rules"].values() for rule in rules] == json.loads(scanned)["rules"]
    assert len(json.loads(scanned)["rules"]) == len(policies.rules)


def test_envoy_gets_deny_and_allow_rules_in_filters_of_their_own(policies: policy.PolicySet) -> None:
    deny, allow = (policy.to_rbac(policies, deny=deny)["rules"] for deny in (True, False))
    assert (deny["action"], len(deny["policies"])) == ("DENY", 1)
    assert (allow["action"], len(allow["policies"])) == ("ALLOW", 5)


def test_header_blocks_carry_values_longer_than_one_length_byte() -> None:
    block = header_block({"cookie": "c" * 300})
    # RFC 7541, section 5.1: 127 in the 7-bit prefix, then 300 - 127 = 173 as 0x2d + 0x80, 0x01
    assert block == b"\x00\x06cookie\x7f\xad\x01" + b"c" * 300


def _answer_after(server: socket.socket, stall: float) -> None:
    """Read requests, stall once, then answer each stream with `:status: 200`."""
    server.recv(65536)
    time.sleep(stall)
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        server.recv(1 << 20)
    server.setblocking(True)
    for stream in range(1, 41, 2):
        server.sendall(b"\x00\x00\x01\x01\x05" + stream.to_bytes(4, "big") + b"\x88")


def test_requests_that_a_stalled_server_kept_waiting_count_from_their_moment() -> None:
    client_side, server_side = socket.socketpair()
    with client_side, server_side:
        client = PacedClient(client_side, {":method": "GET"}, None)
        thread = threading.Thread(target=_answer_after, args=(server_side, 0.3))
        thread.start()
        outcome = client.run(200, 0.1)  # 20 requests, 5 ms apart, all within the stall
        thread.join()
    assert (len(outcome.latencies), outcome.failures) == (20, 0)
    assert min(outcome.latencies) > 0.15
    assert outcome.latencies[0] - outcome.latencies[-1] == pytest.approx(0.095, abs=0.05)


def test_ratios_and_overheads_compare_within_a_round() -> None:
    slow, fast = [{"x": 4.0}, {"x": 40.0}, {"x": 8.0}], [{"x": 2.0}, {"x": 20.0}, {"x": 2.0}]
    assert ratio(slow, fast, "x") == 2.0
    assert overheads({"no check": fast, "check": slow}, "check", "x") == [2.0, 20.0, 6.0]


def test_all_peers_get_headers_where_opa_envoy_reads_them(tmp_path: Path) -> None:
    made = scenario.build("token", 2, tmp_path).request
    raw, joined = (
        CheckRequest.FromString(request).attributes.request.http for request in (made, servers.joined_headers(made))
    )
    assert dict(joined.headers) == {header.key: header.raw_value.decode() for header in raw.header_map.headers}
    assert not joined.header_map.headers
    assert "authorization" in joined.headers


@pytest.mark.parametrize("joined", [True, False], ids=["headers", "header_map"])
def test_a_token_is_broken_wherever_it_stands(tmp_path: Path, joined: bool) -> None:
    made = scenario.build("token", 2, tmp_path).request
    request = CheckRequest.FromString(servers.joined_headers(made) if joined else made)
    before = request.SerializeToString(deterministic=True)
    servers._break_token(request)
    assert request.SerializeToString(deterministic=True) != before
    other = tmp_path / "other"
    other.mkdir()
    none = CheckRequest.FromString(scenario.build("principal", 2, other).request)
    with pytest.raises(SystemExit, match="no token"):
        servers._break_token(none)


@pytest.mark.parametrize("joined", [True, False], ids=["headers", "header_map"])
def test_a_changed_question_is_one_that_envoy_could_ask(tmp_path: Path, joined: bool) -> None:
    made = scenario.build("principal", 2, tmp_path).request
    request = CheckRequest.FromString(servers.joined_headers(made) if joined else made)
    http = request.attributes.request.http
    http.method, http.path = "POST", "/else"
    servers.agree(request)
    seen, _ = parse_check_request(request.SerializeToString())
    assert (seen.method, seen.path) == ("POST", "/else")

"""Just-in-time access through the real Envoy: asked for, approved, used, ended, and found again in the logs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml

from envoy.demo import access
from envoy.demo.authz_connection import unix_connection
from envoy.demo.processes import Child, ProcessError, wait_until
from envoy.demo.row_runner import decision_id
from envoy.demo.stack import Stack, StackOptions, authz_settings, running
from envoy.demo.story import DATABASE, Row
from tests.support.service import run_cli
from zta_authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.client import Answer

REASON = "INC-4711 stuck payment"


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack, with an administrator."""
    options = StackOptions(envoy=envoy_binary, administrator=True)
    with running(tmp_path_factory.mktemp("stack"), options) as started:
        yield started


def ask(stack: Stack, person: str) -> Answer:
    row = Row("database", "laptop", DATABASE, 0, "", token=person)
    return stack.send("laptop", row.full_request(stack.layout))


def until(stack: Stack, person: str, status: int) -> float:
    """Ask until the answer has `status`, and return how long that took."""
    began = time.monotonic()
    while ask(stack, person).status != status:
        assert time.monotonic() - began < 5.0
        time.sleep(0.01)
    return time.monotonic() - began


def requested(stack: Stack, person: str) -> dict[str, Any]:
    why = ("--for", "1h", "--reason", REASON)
    request: dict[str, Any] = access.zta_authz(stack, person, "access", "request", access.ENTITLEMENT, *why)["item"]
    return request


def test_a_grant_is_asked_for_approved_used_ended_and_explained_by_the_logs(stack: Stack) -> None:
    refused = ask(stack, "dana")
    assert (refused.status, refused.json()["entitlement"]) == (403, access.ENTITLEMENT)

    request = requested(stack, "dana")
    assert ask(stack, "dana").status == 403, "a request is no grant"
    scope = ("--scope", request["scope_sha256"])
    with pytest.raises(ProcessError, match="not_allowed"):
        access.zta_authz(stack, "dora", "access", "approve", request["id"], *scope)
    approved = access.zta_authz(stack, access.MANAGER, "access", "approve", request["id"], *scope)["item"]
    assert until(stack, "dana", 200) < 1.0
    used = ask(stack, "dana")
    assert ask(stack, "dora").status == 403, "the grant is for one person"
    access.zta_authz(stack, "dana", "access", "end", approved["grant_id"])
    assert until(stack, "dana", 403) < 1.0

    log = str(stack.layout.root / access.ACCESS_LOG)
    verified = run_cli("audit", "verify", str(stack.decisions), "--access-log", log)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    shown = run_cli(
        "audit", "show", str(stack.decisions), "--access-log", log, "--request", request["id"], "-o", "json"
    )
    assert shown.returncode == 0, shown.stderr
    for step in ("access.requested", "access.approved", "access.activated", "access.ended", REASON, decision_id(used)):
        assert step in shown.stdout, shown.stdout


def test_every_decision_point_allows_and_revokes_within_a_second(stack: Stack, tmp_path: Path) -> None:
    """A second decision point, which nobody asked to be told, follows the same administrator."""
    second = Second(stack, tmp_path)
    try:
        request = requested(stack, "drew")
        assert second.reason("drew") == "grant_required"
        scope = ("--scope", request["scope_sha256"])
        access.zta_authz(stack, access.MANAGER, "access", "approve", request["id"], *scope)
        assert second.until("drew", "allow_policy") < 1.0
        who = ("revoke", "subject", "drew", "--issuer", "https://login.hatshop.example", "--reason", "laptop stolen")
        revocation = access.zta_authz(stack, access.MANAGER, *who)["item"]
        assert second.until("drew", "token_revoked") < 1.0
        assert until(stack, "drew", 401) < 1.0
        access.zta_authz(stack, access.MANAGER, "unrevoke", revocation["id"], "--reason", "found again")
        assert second.until("drew", "allow_policy") < 1.0
    finally:
        second.child.stop()


class Second:
    """Another `zta-authz serve`, asked directly as Envoy asks it."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._stack = stack
        socket = stack.sockets / "second.sock"
        connection = unix_connection(socket, 1)
        settings = authz_settings(stack.layout, connection) | {
            "administrator": {"follow": f"unix:{stack.sockets}/views.sock"},
            "peer": {"trust_proxy": True, "verify_certificate": "never"},
        }
        config = directory / "second.yaml"
        config.write_text(yaml.safe_dump(settings))
        log = directory / "second.log"
        self.decisions = directory / "second.jsonl"
        command = [sys.executable, "-m", "zta_authz", "serve", "--config", str(config)]
        self.child = Child("second", command, stdout=self.decisions, stderr=log)
        wait_until(connection.serving, self.child)
        self._socket = socket

    def reason(self, person: str) -> str:
        """The reason of the decision on a request of `person`."""
        message = CheckRequest()
        http = message.attributes.request.http
        http.method, http.path, http.host = "GET", DATABASE.path, "localhost"
        http.headers["authorization"] = f"Bearer {self._stack.layout.token(person).read_text()}"
        message.attributes.source.principal = "spiffe://cluster.local/ns/default/sa/laptop"
        message.attributes.source.address.socket_address.address = "127.0.0.1"
        with grpc.insecure_channel(f"unix:{self._socket}") as channel:
            call = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check")
            response = CheckResponse.FromString(call(message.SerializeToString(), timeout=5))
        return response.status.message or "allow_policy"

    def until(self, person: str, reason: str) -> float:
        """Ask until the decision has `reason`, and return how long that took."""
        began = time.monotonic()
        while (now := self.reason(person)) != reason:
            assert time.monotonic() - began < 5.0, now
            time.sleep(0.01)
        return time.monotonic() - began

"""Facts through the real Envoy: devices by certificate, trust levels, classes of resources, and the headers about trust."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from envoy.demo.identities import request_authentication
from envoy.demo.stack import Stack, StackOptions, running
from envoy.demo.tokens import Issuer

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator
    from pathlib import Path

LOGINS = Issuer()
HEAD = "apiVersion: zta.dev/v1\nkind: {}\nmetadata: {{name: facts, namespace: default}}\nspec:\n"
POLICIES = "---\n".join(
    HEAD.format(kind) + spec
    for kind, spec in {
        "AccessPolicy": """  rules:
  - to: [{operation: {paths: [/managed]}}]
    require: {device: {managed: true, osAtLeast: {macOS: "26.1"}}, network: {corporate: true}}
  - to: [{operation: {paths: [/high]}}]
    require: {trust: {level: HIGH}}
  - to: [{operation: {paths: [/open, /payroll]}}]
""",
        "TrustModel": "  components: {behavior: {assume: 100}}\n",
        "DeviceInventory": """  source: {file: devices.jsonl}
  id: spiffe
  identify: {certificate: spiffeId, tokenClaim: device_id}
  fields: {managed: managed, encrypted: encrypted, firewall: firewall, antivirus: antivirus, os: os, osVersion: version}
  times: {posture: at}
""",
        "ResourceClassification": """  default: internal
  rules: [{class: restricted, to: [{operation: {paths: [/payroll]}}]}]
  demands: {restricted: {level: HIGH, device: 80}}
""",
    }.items()
)
FRONTEND, ORDERS, PAYMENTS = (
    f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("frontend", "orders", "payments")
)
GOOD = {"managed": True, "encrypted": True, "firewall": True, "antivirus": True, "os": "macOS", "version": "26.1.1"}


def devices() -> list[dict[str, Any]]:
    """The frontend's laptop is good, that of orders is not managed, and that of payments has not reported for days."""
    now = time.time()
    return [
        {"spiffe": FRONTEND, **GOOD, "at": now},
        {"spiffe": ORDERS, **GOOD, "managed": False, "encrypted": False, "at": now},
        {"spiffe": PAYMENTS, **GOOD, "at": now - 3 * 86400},
    ]


class FactStack(Stack):
    """The demo's stack with policies that read facts."""

    def start_authz(self, cleanup: contextlib.ExitStack) -> None:
        for file in self.layout.policies.glob("*.yaml"):
            if file.name != "trust-bundle.yaml":
                file.unlink()
        (self.layout.policies / "login.yaml").write_text(
            json.dumps(request_authentication(LOGINS, "default", "hatshop"))
        )
        (self.layout.policies / "facts.yaml").write_text(POLICIES)
        folder = self.layout.facts
        (folder / "devices.jsonl").write_text("\n".join(map(json.dumps, devices())))
        settings = {"facts": {"directory": str(folder)}, "networks": {"corporate": ["10.0.0.0/8"]}}
        self.options = replace(self.options, settings={**self.options.settings, **settings})
        super().start_authz(cleanup)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary), kind=FactStack) as started:
        yield started


def token(**claims: Any) -> str:
    return LOGINS.token(
        **{"amr": ["pwd", "hwk"], "account_created_at": 1_500_000_000, "security_violations": 0, **claims}
    )


def answer(stack: Stack, path: str, who: str = "frontend", **headers: str) -> tuple[int, dict[str, Any]]:
    """Status, and the body: what the application saw, or why the request was denied."""
    connection = http.client.HTTPSConnection("localhost", stack.port, context=stack.context(who), timeout=15)
    try:
        connection.request(
            "GET", path, headers={"authorization": f"Bearer {token()}", "x-forwarded-for": "10.1.2.3", **headers}
        )
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content.startswith(b"{") else {}
    finally:
        connection.close()


def seen(body: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in body["headers"]}


def test_a_managed_device_is_allowed_and_others_are_not(stack: Stack) -> None:
    assert answer(stack, "/managed")[0] == 200
    for who in ("orders", "payments"):
        status, body = answer(stack, "/managed", who)
        assert (status, body["reason"]) == (403, "no_matching_policy")


def test_no_header_makes_a_device_good(stack: Stack) -> None:
    forged = {"x-device-id": FRONTEND, "x-zta-device-id": FRONTEND, "device_id": FRONTEND, "x-zta-trust-level": "HIGH"}
    assert answer(stack, "/managed", "orders", **forged)[0] in (400, 403)
    bearer = {"authorization": f"Bearer {token(device_id=FRONTEND)}"}
    assert answer(stack, "/managed", "orders", **bearer)[0] == 403  # the token is not bound to its presenter


def test_the_trust_level_decides_and_reaches_the_application(stack: Stack) -> None:
    status, body = answer(stack, "/high")
    assert status == 200
    headers = seen(body)
    assert (headers["x-zta-trust-level"], headers["x-zta-trust-score"]) == ("HIGH", "100.00")
    assert 0 <= int(headers["x-zta-session-expires"]) - time.time() - 7200 + 60 <= 60
    for who in ("orders", "payments"):
        status, body = answer(stack, "/high", who)
        assert (status, body["reason"]) == (403, "trust_too_low")


def test_a_forged_trust_header_never_reaches_the_application(stack: Stack) -> None:
    status, body = answer(stack, "/open", "orders", **{"x-zta-trust-level": "HIGH", "X-Zta-Trust-Score": "100"})
    headers = [value for name, value in body["headers"] if name.lower().startswith("x-zta-trust")]
    assert status == 200
    assert headers == ["DENY", "79.41"]


def test_a_restricted_resource_demands_trust_whatever_the_rule_says(stack: Stack) -> None:
    assert answer(stack, "/payroll")[0] == 200
    status, body = answer(stack, "/payroll", "orders")
    assert (status, body["reason"]) == (403, "trust_too_low")
    assert answer(stack, "/p%61yroll", "orders")[0] in (400, 403)


def test_the_record_says_what_the_decision_rests_on(stack: Stack) -> None:
    answer(stack, "/high", "orders")
    deadline = time.monotonic() + 10
    records: list[dict[str, Any]] = []
    while time.monotonic() < deadline and not records:
        lines = [json.loads(line) for line in stack.decisions.read_text().splitlines()]
        records = [line for line in lines if line.get("path") == "/high" and line.get("principal") == ORDERS]
        time.sleep(0.05)
    record = records[-1]
    assert record["trust"]["lost"] == [
        {"component": "device", "signal": "unmanaged", "points": 40.0, "state": "false"},
        {"component": "device", "signal": "unencrypted", "points": 30.0, "state": "false"},
    ]
    assert record["device"]["id"] == ORDERS
    assert (record["network"]["corporate"], record["resource_class"]) == (True, "")  # an allow would ask for the class

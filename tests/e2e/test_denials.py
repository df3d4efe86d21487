"""Responses of denials through the real Envoy: headers of the policy, and redirects for browsers."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import grpc
import pytest
import yaml

from envoy.demo.client import Request
from envoy.demo.stack import Stack, StackOptions, running

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator
    from pathlib import Path

LOGIN = "https://login.hatshop.example/start"
HEADERS = (
    ("cache-control", "max-age=60"),
    ("retry-after", "120"),
    ("set-cookie", "session=; Max-Age=0"),
    ("www-authenticate", 'Bearer realm="hats"'),
    ("set-cookie", "back=/told"),
    ("www-authenticate", "DPoP"),
    ("vary", "cookie"),
    ("link", "</help>; rel=help"),
    ("date", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ("x-request-id", "of the policy"),
)


POLICIES = f"""
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: a-told, namespace: default}}
spec:
  action: DENY
  rules: [{{to: [{{operation: {{paths: [/told, /shop.Shop/Told]}}}}]}}]
  response: {{status: 401, message: "später", headers: {{set: {json.dumps([{"name": name, "value": value} for name, value in HEADERS])}}}}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: a-login, namespace: default}}
spec:
  action: DENY
  response:
    redirect: {{location: "{LOGIN}"}}
    message: log in first
    headers: {{set: [{{name: set-cookie, value: session=; Max-Age=0}}]}}
    tokenDenials: [token_expired]
  rules:
  - from: [{{source: {{notRequestPrincipals: ["*"]}}}}]
    to: [{{operation: {{paths: [/page, /shop.Shop/Page]}}}}]
"""


class DenyingStack(Stack):
    """The demo's stack with policies that answer."""

    def start_authz(self, cleanup: contextlib.ExitStack) -> None:
        file = self.layout.policies / "hatshop-login.yaml"
        login = yaml.safe_load(file.read_text())
        login["spec"]["jwtRules"][0]["fromCookies"] = ["session"]
        file.write_text(yaml.safe_dump(login))
        (self.layout.policies / "answers.yaml").write_text(POLICIES)
        super().start_authz(cleanup)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary), kind=DenyingStack) as started:
        yield started


def lines(stack: Stack, path: str, **headers: str) -> tuple[int, list[tuple[str, str]]]:
    """Status and header lines as they arrive, repeated ones apart."""
    connection = http.client.HTTPSConnection("localhost", stack.port, context=stack.context("frontend"), timeout=15)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, [(name.lower(), value) for name, value in response.getheaders()]
    finally:
        connection.close()


def call(stack: Stack, method: str, **metadata: str) -> grpc.RpcError:
    layout = stack.layout
    files = (layout.ca, layout.key("frontend"), layout.certificate("frontend"))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    with grpc.secure_channel(f"localhost:{stack.port}", credentials) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(f"/shop.Shop/{method}")(b"", metadata=tuple(metadata.items()), timeout=10)
    return error.value


def test_the_headers_of_a_denial_arrive_as_the_policy_has_them(stack: Stack) -> None:
    status, names = lines(stack, "/told")
    assert status == 401
    for name in {name for name, _ in HEADERS}:
        assert [value for seen, value in names if seen == name] == [value for seen, value in HEADERS if seen == name]
    assert ("content-type", "application/problem+json") in names


def test_a_browser_with_an_expired_cookie_is_sent_to_log_in_and_only_on_pages(stack: Stack) -> None:
    expired = {"cookie": f"session={stack.layout.token('expired').read_text()}"}
    for headers in ({}, expired):
        status, names = lines(stack, "/page", **headers)
        assert (status, dict(names)["location"]) == (302, LOGIN)
        assert ("set-cookie", "session=; Max-Age=0") in names
    assert lines(stack, "/orders", **expired)[0] == 401
    forged = {"cookie": f"session={stack.layout.token('forged').read_text()}"}
    assert lines(stack, "/page", **forged)[0] == 401
    assert stack.send("frontend", Request(path="/orders")).status == 200


def test_a_grpc_caller_gets_the_message_and_a_redirect_is_not_unknown(stack: Stack) -> None:
    status = call(stack, "Told")
    assert status.code() is grpc.StatusCode.UNAUTHENTICATED
    assert status.details().startswith("deny_policy: später (decision ")
    page = call(stack, "Page")
    assert page.code() is grpc.StatusCode.PERMISSION_DENIED
    assert page.details().startswith("deny_policy: log in first (decision ")
    expired = call(stack, "Page", cookie=f"session={stack.layout.token('expired').read_text()}")
    assert expired.code() is grpc.StatusCode.UNAUTHENTICATED
    assert expired.details().startswith("token_expired: log in first (decision ")

"""Challenges through the real Envoy: the header arrives, browsers are redirected, and gRPC gets its own status."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from envoy.demo.identities import request_authentication
from envoy.demo.stack import Stack, StackOptions, running
from envoy.demo.tokens import ISSUER, Issuer

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOGIN = "https://login.hatshop.example/start?app=hats"
POLICIES = f"""
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: step-up, namespace: default}}
spec:
  rules:
  - to: [{{operation: {{paths: [/refunds, /shop.Shop/Refund]}}}}]
    require: {{authentication: {{acrAtLeast: 2, maxAge: 5m}}}}
  - to: [{{operation: {{paths: [/settings]}}}}]
    require: {{authentication: {{acr: [phr], login: "{LOGIN}"}}}}
---
apiVersion: zta.dev/v1
kind: IssuerPolicy
metadata: {{name: levels, namespace: istio-system}}
spec: {{issuer: {ISSUER}, acrLevels: {{pwd: 1, phr: 2, phrh: 3}}}}
"""
CHALLENGE = (
    'Bearer error="insufficient_user_authentication", error_description="A stronger or more recent login is required", '
    'acr_values="phr phrh", max_age="300"'
)
LOGINS = Issuer()


class StepUpStack(Stack):
    """The demo's stack with rules that require a login, and tokens of an issuer that the test can sign with."""

    def start_authz(self, cleanup: contextlib.ExitStack) -> None:
        for file in self.layout.policies.glob("*.yaml"):
            if file.name != "trust-bundle.yaml":
                file.unlink()
        (self.layout.policies / "hatshop-login.yaml").write_text(
            json.dumps(request_authentication(LOGINS, "default", "hatshop"))
        )
        (self.layout.policies / "step-up.yaml").write_text(POLICIES)
        super().start_authz(cleanup)


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("stack"), StackOptions(envoy=envoy_binary), kind=StepUpStack) as started:
        yield started


def answer(stack: Stack, path: str, token: str, **headers: str) -> tuple[int, Mapping[str, str]]:
    connection = http.client.HTTPSConnection("localhost", stack.port, context=stack.context("frontend"), timeout=15)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}", **headers})
        response = connection.getresponse()
        response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


def test_a_challenge_arrives_and_the_login_that_it_asks_for_lets_in(stack: Stack) -> None:
    status, headers = answer(stack, "/refunds", LOGINS.token(acr="pwd", auth_time=int(time.time())))
    assert (status, headers["www-authenticate"]) == (401, CHALLENGE)
    assert headers["cache-control"] == "no-store"
    assert answer(stack, "/refunds", LOGINS.token(acr="phr", auth_time=int(time.time())))[0] != 401
    assert answer(stack, "/refunds", LOGINS.token(acr="phr", auth_time=int(time.time())))[0] != 403
    assert answer(stack, "/refunds", LOGINS.token(acr="phr", auth_time=int(time.time()) - 600))[0] == 401


def test_a_browser_is_redirected_and_an_api_client_is_challenged(stack: Stack) -> None:
    token = LOGINS.token(sub="bob", acr="pwd")
    status, headers = answer(stack, "/settings", token, accept="text/html,*/*;q=0.8")
    assert (status, headers["location"]) == (302, f"{LOGIN}&acr_values=phr")
    status, headers = answer(stack, "/settings", token, accept="application/json")
    assert status == 401
    assert 'acr_values="phr"' in headers["www-authenticate"]


def test_a_grpc_caller_is_answered_in_kind(stack: Stack) -> None:
    layout = stack.layout
    files = (layout.ca, layout.key("frontend"), layout.certificate("frontend"))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))
    metadata = (("authorization", f"Bearer {LOGINS.token(sub='carol', acr='pwd')}"),)
    with grpc.secure_channel(f"localhost:{stack.port}", credentials) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/shop.Shop/Refund")(b"", metadata=metadata, timeout=10)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert error.value.details().startswith("step_up_required (decision ")
    challenge = dict((*error.value.initial_metadata(), *error.value.trailing_metadata()))["www-authenticate"]
    assert challenge == CHALLENGE


def test_a_client_that_does_not_log_in_is_refused_in_the_end(stack: Stack) -> None:
    token = LOGINS.token(sub="loop", acr="pwd")
    statuses = [answer(stack, "/refunds", token)[0] for _ in range(10)]
    assert statuses == [401] * 8 + [403] * 2


def test_forged_logins_in_headers_count_for_nothing(stack: Stack) -> None:
    token = LOGINS.token(sub="mallory", acr="pwd", auth_time=str(int(time.time())))
    status, _ = answer(stack, "/refunds", token, acr="phr", **{"x-acr": "phr", "x-auth-time": "0"})
    assert status == 401
    status, headers = answer(stack, "/refunds", Issuer().token(acr="phr", auth_time=int(time.time())))
    assert status == 401
    assert "acr_values" not in headers["www-authenticate"]

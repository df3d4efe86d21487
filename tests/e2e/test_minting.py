"""Tokens that zta-authz mints, from the client through Envoy to the Envoy of the application, which verifies them."""

from __future__ import annotations

import http.client
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import yaml

from envoy.demo.client import Request
from envoy.demo.envoyproc import Envoy
from envoy.demo.processes import wait_until
from envoy.demo.stack import StackOptions, running
from tests.docs.fences import ROOT
from tests.support.minting import ISSUER, key_pem, signing_key
from tests.support.pki import Signer, jwks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from envoy.demo.stack import Stack

IDP = "https://idp.example"
FIRST, NEXT = signing_key("P-256", 0), signing_key("Ed25519", 1)
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: default}}
spec: {{jwtRules: [{{issuer: "{IDP}", jwks: '{jwks()}', forwardOriginalToken: true}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: orders, namespace: default}}
spec:
  rules:
  - to: [{{operation: {{paths: [/orders]}}}}]
    response: {{mint: {{audience: orders.shop}}}}
  - to: [{{operation: {{paths: [/payments]}}}}]
    response: {{mint: {{audience: payments.shop}}}}
  - to: [{{operation: {{paths: [/plain]}}}}]
"""


def user_token() -> str:
    return Signer().token(iss=IDP, sub="ann", exp=time.time() + 600, nbf=None, iat=None)


class Application:
    """The Envoy of the application, which requires a token for `orders.shop`."""

    def __init__(self, binary: Path, folder: Path, stack: Stack) -> None:
        config = yaml.safe_load((ROOT / "envoy" / "upstream-jwt.yaml").read_text(encoding="utf-8"))
        config["admin"] = {"address": {"pipe": {"path": str(stack.sockets / "application.sock")}}}
        (listener,) = config["static_resources"]["listeners"]
        listener["address"]["socket_address"]["port_value"] = 0
        application, keys = config["static_resources"]["clusters"]
        _endpoint(application)["address"] = {"pipe": {"path": str(stack.sockets / "upstream.sock")}}
        keys["type"] = "STATIC"
        address = {"address": "127.0.0.1", "port_value": health_port(stack)}
        _endpoint(keys)["address"] = {"socket_address": address}
        filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        filters[0]["typed_config"]["providers"]["zta"]["remote_jwks"]["cache_duration"] = {"seconds": 1}
        (folder / "application.yaml").write_text(yaml.safe_dump(config))
        self.envoy = Envoy(binary, folder / "application.yaml", admin=stack.sockets / "application.sock")

    def get(self, *tokens: str, header: str = "x-zta-token") -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.envoy.port(), timeout=10)
        connection.putrequest("GET", "/orders")
        for token in tokens:
            connection.putheader(header, token)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body) if answer.status == 200 else {}


def _endpoint(cluster: dict[str, Any]) -> dict[str, Any]:
    endpoint: dict[str, Any] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return endpoint


def health_port(stack: Stack) -> int:
    lines = (stack.layout.root / "zta-authz.log").read_text().splitlines()
    serving = next(entry for entry in map(json.loads, lines) if "health" in entry)
    return int(serving["health"].rpartition(":")[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the signing keys."""
    folder = tmp_path_factory.mktemp("minting")
    (folder / "first.pem").write_bytes(key_pem("P-256", 0))
    (folder / "next.pem").write_bytes(key_pem("Ed25519", 1))
    (folder / "keys.yaml").write_text("keys: [{file: first.pem}]")
    (folder / "policies.yaml").write_text(POLICIES)
    return folder


@pytest.fixture(scope="module")
def stack(envoy_binary: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo's stack, which mints tokens for three paths."""
    root = tmp_path_factory.mktemp("stack")
    settings = {
        "policies": [str(folder / "policies.yaml"), str(root / "policies" / "trust-bundle.yaml")],
        "minting": {"issuer": ISSUER, "keys": str(folder / "keys.yaml")},
        "health": {"listen": "127.0.0.1:0"},
        "root_documents": {"namespaces": ["*"]},
    }
    with running(root, StackOptions(envoy=envoy_binary, settings=settings)) as started:
        yield started


@pytest.fixture(scope="module")
def application(envoy_binary: Path, folder: Path, stack: Stack) -> Iterator[Application]:
    """The application's Envoy, in front of the demo's upstream."""
    application = Application(envoy_binary, folder, stack)
    try:
        application.envoy.wait_ready()
        yield application
    finally:
        application.envoy.child.stop()


def carried(stack: Stack, path: str = "/orders", *headers: tuple[str, str]) -> list[str]:
    """The tokens that reach the upstream with a request of ann through the workload `frontend`."""
    bearer = ("authorization", f"Bearer {user_token()}")
    answer = stack.send("frontend", Request(path=path, headers=(bearer, *headers)))
    assert answer.status == 200, answer.body
    return [value for name, value in answer.upstream_headers() if name.replace("_", "-") == "x-zta-token"]


def test_the_application_accepts_the_token_of_an_allowed_request_and_learns_the_caller(
    stack: Stack, application: Application
) -> None:
    [token] = carried(stack)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["iss"], claims["sub"], claims["aud"]) == (ISSUER, "ann", "orders.shop")
    assert claims["act"] == {"sub": "spiffe://cluster.local/ns/default/sa/frontend"}
    assert claims["sub_id"]["iss"] == IDP
    status, seen = application.get(token)
    assert status == 200
    assert ["x-user", "ann"] in seen["headers"]


def test_what_a_client_sends_in_its_place_never_arrives(stack: Stack) -> None:
    forged = [("x-zta-token", "forged"), ("X-Zta-Token", "again")]
    [token] = carried(stack, "/orders", *forged)
    assert token.count(".") == 2
    assert carried(stack, "/plain", *forged) == []


def test_the_application_refuses_everything_else(stack: Stack, application: Application) -> None:
    [token] = carried(stack)
    [other] = carried(stack, "/payments")
    head, _, rest = token.partition(".")
    none = jwt.encode({"iss": ISSUER, "sub": "ann", "aud": "orders.shop", "exp": time.time() + 60}, None, "none")
    shared = jwt.encode(
        {"iss": ISSUER, "sub": "root", "aud": "orders.shop", "exp": time.time() + 60}, FIRST.jwk["x"], "HS256"
    )
    assert application.get()[0] == 401
    assert application.get(other)[0] == 403, "a token for another application"
    for wrong in (f"{head}.{rest[::-1]}", none, shared, user_token(), "x"):
        assert application.get(wrong)[0] == 401, wrong
    assert application.get(token, header="x-other")[0] == 401


def test_a_minted_token_is_no_credential_of_a_caller(stack: Stack) -> None:
    [token] = carried(stack)
    answer = stack.send("frontend", Request(path="/orders", headers=(("authorization", f"Bearer {token}"),)))
    assert (answer.status, json.loads(answer.body)["reason"]) == (401, "token_issuer_unknown")


def test_keys_are_rotated_without_a_refused_request(stack: Stack, application: Application, folder: Path) -> None:
    [old] = carried(stack)
    begin = datetime.fromtimestamp(time.time() + 4, UTC).isoformat()
    (folder / "keys.yaml").write_text(f'keys: [{{file: first.pem}}, {{file: next.pem, signFrom: "{begin}"}}]')
    seen: set[str] = set()

    def rotated() -> bool:
        [token] = carried(stack)
        seen.add(jwt.get_unverified_header(token)["kid"])
        assert application.get(token)[0] == 200
        return NEXT.key_id in seen

    wait_until(rotated, application.envoy.child)
    assert seen == {FIRST.key_id, NEXT.key_id}
    assert application.get(old)[0] == 200

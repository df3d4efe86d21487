"""`zta-authz serve` with issuers whose keys it has to fetch, and some that it must not."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.support.check_requests import check_request
from tests.support.issuer import KEYS, METADATA, issuer_in_thread, server_tls
from tests.support.pki import Signer
from tests.support.service import RunningService, run_cli
from zta_authz._proto import admin_pb2
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: login}
spec: {jwtRules: [RULE]}
"""


class Place:
    """Settings, policies with one JWT rule, and sockets of a service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "settings.yaml"

    def write(self, rule: dict[str, Any], **jwks: Any) -> None:
        (self.directory / "policies.yaml").write_text(POLICIES.replace("RULE", json.dumps(rule)))
        settings = {
            "listen": [f"unix:{self.directory}/authz.sock"],
            "policies": [f"{self.directory}/policies.yaml"],
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": f"unix:{self.directory}/admin.sock"},
            "jwks": jwks,
        }
        self.config.write_text(json.dumps(settings))

    def check(self, token: str = "") -> tuple[int, str]:
        """The HTTP status and the reason for a request with `token`; 200 where it is allowed."""
        headers = [("authorization", f"Bearer {token}".encode())] if token else []
        asked = check_request(headers).SerializeToString()
        answer = CheckResponse.FromString(self._call("authz", "envoy.service.auth.v3.Authorization/Check", asked))
        if answer.status.code == 0:
            return 200, ""
        return answer.denied_response.status.code, json.loads(answer.denied_response.body)["reason"]

    def key_sets(self) -> list[admin_pb2.KeyMaterial]:
        said = admin_pb2.GetStatusResponse.FromString(self._call("admin", "zta.admin.v1.Admin/GetStatus", b""))
        assert said.ready
        return [key for key in said.keys if key.kind == admin_pb2.KeyMaterial.JWKS]

    def _call(self, socket_name: str, method: str, payload: bytes) -> bytes:
        async def ask() -> bytes:
            async with grpc.aio.insecure_channel(f"unix:{self.directory}/{socket_name}.sock") as channel:
                answer: bytes = await channel.unary_unary("/" + method)(payload, timeout=10)
                return answer

        return asyncio.run(ask())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def token(issuer: str, signer: Signer) -> str:
    return signer.token(iss=issuer, iat=time.time(), exp=time.time() + 600)


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        body: bytes = answer.read()
        return body.decode()


def wait_until(reached: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_keys_are_discovered_over_tls_rotated_and_told_of(place: Place, tmp_path: Path) -> None:
    context, authority = server_tls(tmp_path, "localhost")
    old, new = Signer(kid="old", number=1), Signer(kid="new", number=2)
    with issuer_in_thread(context) as server:
        issuer = server.url(host="localhost")
        server.describe(issuer, jwks_uri=server.url(KEYS, "localhost"))
        server.publish(old, Cache_Control="max-age=600")
        place.write({"issuer": issuer}, private_hosts=["localhost"], ca_file=str(authority), unknown_kid_seconds=1)
        with RunningService(place.config) as service:
            health = service.wait_for("serving")["health"]
            assert place.check(token(issuer, old)) == (200, "")
            keys = place.key_sets()
            assert [(key.name, key.count) for key in keys] == [(issuer, 1)]
            assert 0 <= keys[0].age_seconds < 60
            assert keys[0].expires_at_seconds == pytest.approx(time.time() + 600 + 3600, abs=60)
            server.publish(new)
            assert place.check(token(issuer, new)) == (401, "token_key_unknown")
            wait_until(lambda: place.check(token(issuer, new)) == (200, ""))
            assert place.check(token(issuer, old)) == (401, "token_key_unknown")
            metrics = get(health, "/metrics")
            assert 'zta_key_fetches_total{host="localhost",outcome="taken"} 2.0' in metrics
            assert 'zta_key_age_seconds{host="localhost"}' in metrics
            assert "zta_keys_missing 0.0" in metrics
            assert json.loads(get(health, "/readyz"))["issuers_without_keys"] == []
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
    assert server.asked == [METADATA, KEYS, METADATA, KEYS]


def test_an_issuer_that_is_down_takes_nobody_else_down(place: Place) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # takes connections and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/keys"
        place.write({"issuer": "https://a.example", "jwksUri": url}, allow_http=True, allow_private_addresses=True)
        with RunningService(place.config) as service:
            health = service.wait_for("serving")["health"]
            started = time.monotonic()
            assert place.check(token("https://a.example", Signer())) == (401, "token_key_unknown")
            assert time.monotonic() - started < 2
            assert place.check() == (200, "")
            said = json.loads(get(health, "/readyz"))
            assert (said["ready"], said["issuers_without_keys"]) == (True, ["https://a.example"])
            assert [(key.name, key.count, key.expires_at_seconds) for key in place.key_sets()] == [
                ("https://a.example", 0, 0)
            ]
            assert "zta_keys_missing 1.0" in get(health, "/metrics")
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_addresses_are_not_asked_unless_the_settings_allow_it(place: Place, host: str) -> None:
    with issuer_in_thread() as server:
        server.publish(Signer())
        place.write({"issuer": "https://a.example", "jwksUri": server.url(KEYS, host)}, allow_http=True)
        with RunningService(place.config) as service:
            service.wait_for("serving")
            assert service.wait_for("keys can't be fetched")["outcome"] == "refused_address"
            assert place.check(token("https://a.example", Signer())) == (401, "token_key_unknown")
    assert server.asked == []


def test_plain_http_is_not_used_unless_the_settings_allow_it(place: Place) -> None:
    with issuer_in_thread() as server:
        server.publish(Signer())
        place.write({"issuer": "https://a.example", "jwksUri": server.url(KEYS)}, allow_private_addresses=True)
        with RunningService(place.config) as service:
            service.wait_for("serving")
            assert service.wait_for("keys can't be fetched")["outcome"] == "refused_url"
    assert server.asked == []


def test_metadata_of_another_issuer_is_not_believed(place: Place) -> None:
    with issuer_in_thread() as server:
        server.describe("https://a.example")
        server.publish(Signer())
        place.write({"issuer": server.url()}, allow_http=True, allow_private_addresses=True)
        with RunningService(place.config) as service:
            service.wait_for("serving")
            assert service.wait_for("keys can't be fetched")["outcome"] == "wrong_issuer"
            assert place.check(token(server.url(), Signer())) == (401, "token_key_unknown")
    assert KEYS not in server.asked


def test_a_file_of_authorities_that_is_not_there_ends_the_start_with_status_2(place: Place) -> None:
    place.write({"issuer": "https://a.example"}, ca_file="/none/ca.pem")
    ended = run_cli("serve", "--config", str(place.config))
    assert (ended.returncode, "/none/ca.pem: cannot be read" in ended.stderr) == (2, True)

"""`POST /token` of `zta-authz administer` as a process, with the keys that it publishes and what it logs."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jwt

from envoy.demo.envoyproc import UnixConnection
from tests.support.minting import ISSUER, KEY, key_pem, signing_key
from tests.support.pki import Signer, jwks
from tests.support.service import RunningService

if TYPE_CHECKING:
    from pathlib import Path

IDP = "https://idp.example"
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-token}}}}
  jwtRules: [{{issuer: "{IDP}", audiences: [orders.shop], jwks: '{jwks()}'}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: exchange, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-token}}}}
  rules:
  - from: [{{source: {{principals: ["cluster.local/zta-admin/uid/{os.getuid()}"]}}}}]
    to: [{{operation: {{methods: [POST], paths: [/token]}}}}]
    when: [{{key: "request.headers[zta-audience]", values: [payments.shop]}}]
    response: {{mint: {{audience: payments.shop}}}}
"""
FORM = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
    "audience": "payments.shop",
}


def settings(directory: Path) -> Path:
    (directory / "policies").mkdir()
    (directory / "policies" / "exchange.yaml").write_text(POLICIES)
    (directory / "first.pem").write_bytes(key_pem())
    (directory / "next.pem").write_bytes(key_pem("Ed25519", 1))
    (directory / "keys.yaml").write_text("keys: [{file: first.pem}]")
    config = directory / "settings.yaml"
    administrator = {
        "store": {"url": f"sqlite:///{directory}/store.sqlite"},
        "access_log": {"path": f"{directory}/access.jsonl"},
        "views": {"listen": []},
        "operations": {"http": [f"unix:{directory}/operations.sock"]},
    }
    whole = {
        "policies": [f"{directory}/policies"],
        "health": {"listen": "127.0.0.1:0"},
        "audit": {"sink": "file", "path": f"{directory}/decisions.jsonl"},
        "minting": {"issuer": ISSUER, "keys": f"{directory}/keys.yaml"},
        "administrator": administrator,
    }
    config.write_text(json.dumps(whole))
    return config


def ask(directory: Path, **changed: str) -> tuple[int, dict[str, Any]]:
    now = time.time()
    token = Signer().token(iss=IDP, sub="ann", aud="orders.shop", iat=now - 5, nbf=None, exp=now + 600)
    connection = UnixConnection(directory / "operations.sock")
    body = urlencode({"subject_token": token, **FORM, **changed})
    connection.request("POST", "/token", body, {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    assert answer.getheader("cache-control") == "no-store"
    status, fields = answer.status, json.loads(answer.read())
    connection.close()
    return status, fields


def events(directory: Path) -> list[tuple[str, str]]:
    lines = map(json.loads, (directory / "access.jsonl").read_text().splitlines())
    return [(line["kind"], line["object"]["id"]) for line in lines if line.get("kind", "").startswith(("key", "token"))]


def test_a_token_is_exchanged_verifies_with_the_published_keys_and_is_in_both_logs(tmp_path: Path) -> None:
    config = settings(tmp_path)
    with RunningService(config, command="administer") as administrator:
        ready = administrator.wait_for("administering")
        deadline = time.monotonic() + 20
        while (answer := ask(tmp_path))[0] == 503:  # the access log is compared with the store first
            assert time.monotonic() < deadline
        status, reply = answer
        assert status == 200, reply
        with urllib.request.urlopen(f"http://{ready['health']}/.well-known/jwks.json", timeout=10) as page:
            published = jwt.PyJWKSet.from_dict(json.load(page))
        key = published[jwt.get_unverified_header(reply["access_token"])["kid"]]
        claims = jwt.decode(reply["access_token"], key, ["ES256"], audience="payments.shop", issuer=ISSUER)
        assert (claims["sub"], claims["act"]["sub"]) == ("ann", f"spiffe://cluster.local/zta-admin/uid/{os.getuid()}")
        assert ("token.issued", claims["jti"]) in events(tmp_path)
        assert ask(tmp_path, audience="ledger.shop")[1]["error"] == "invalid_target"
        assert ask(tmp_path, subject_token=reply["access_token"])[1]["error"] == "invalid_request"
        (tmp_path / "keys.yaml").write_text(
            'keys: [{file: first.pem}, {file: next.pem, signFrom: "2100-01-01T00:00:00Z"}]'
        )
        deadline = time.monotonic() + 20
        while ("key.published", signing_key("Ed25519", 1).key_id) not in events(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert ("key.published", KEY.key_id) in events(tmp_path)
    decisions = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    verdicts = [
        (entry["verdict"], (entry["minted"] or {}).get("token_id")) for entry in decisions if "verdict" in entry
    ]
    assert verdicts == [("allow", claims["jti"]), ("deny", None), ("deny", None)]
    assert reply["access_token"].rpartition(".")[2] not in (tmp_path / "decisions.jsonl").read_text()

"""A DPoP proof counts once, whichever of several workers is shown it, and whatever becomes of the one that took it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import grpc

from tests.integration.test_serve import CHECK, call
from tests.integration.test_workers import Workers, gone, wait_until
from tests.support.check_requests import check_request
from tests.support.pki import AUDIENCE, HOUR, ISSUER, Signer, b64, jwks
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authn.keys import key_thumbprint

if TYPE_CHECKING:
    from pathlib import Path

CLIENT = Signer(kid="", number=77)
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: issuer}}
spec:
  jwtRules:
  - issuer: {ISSUER}
    audiences: [{AUDIENCE}]
    jwks: '{jwks()}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: with-a-token}}
spec:
  rules:
  - from: [{{source: {{requestPrincipals: ["{ISSUER}/*"]}}}}]
"""


def presented(identifier: str) -> bytes:
    """A CheckRequest with a token and a proof for it, made now."""
    now = time.time()
    token = Signer().token(cnf={"jkt": key_thumbprint(CLIENT.jwk())}, iat=now - 60, exp=now + HOUR)
    head = {"typ": "dpop+jwt", "alg": CLIENT.alg, "jwk": CLIENT.jwk()}
    body = {
        "jti": identifier,
        "htm": "GET",
        "htu": "http://orders:8080/",
        "iat": now,
        "ath": b64(hashlib.sha256(token.encode()).digest()),
    }
    proof = CLIENT.compact(json.dumps(head), json.dumps(body))
    headers = [("authorization", f"DPoP {token}".encode()), ("dpop", proof.encode())]
    return check_request(headers).SerializeToString()


def outcome(target: str, payload: bytes) -> str:
    """`ok`, or the reason that the denial's body gives."""
    answer = CheckResponse.FromString(call(target, CHECK, payload))
    return json.loads(answer.denied_response.body)["reason"] if answer.HasField("denied_response") else "ok"


def serves(target: str) -> bool:
    try:
        call(target, CHECK, b"")
    except grpc.aio.AioRpcError:
        return False
    return True


def test_a_proof_that_one_worker_took_is_refused_by_all_and_after_its_death(tmp_path: Path) -> None:
    place = Workers(tmp_path)
    place.write_config()
    place.write_policy(POLICIES)
    one, two = place.socket_of(1), place.socket_of(2)
    with RunningService(place.config) as service:
        pid = int(service.wait_for("all workers serve")["worker_pids"][0])
        first, second = presented("first"), presented("second")
        assert [outcome(one, first), outcome(two, first), outcome(one, first)] == ["ok", *["dpop_replayed"] * 2]
        assert [outcome(two, second), outcome(one, second)] == ["ok", "dpop_replayed"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(pid) and serves(one))
        assert [outcome(one, first), outcome(one, second), outcome(two, first)] == ["dpop_replayed"] * 3
        assert outcome(one, presented("third")) == "ok"

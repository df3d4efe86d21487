"""An identity provider ends a session, and the next request of every decision point is denied."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from aiohttp import ClientSession

from tests.support.check_requests import check_request
from tests.support.pki import Signer, jwks
from tests.support.security_events import IDP, SESSION_REVOKED, SIGNER, claims, signed, source
from tests.support.service import RunningService
from tests.support.signal_receiver import PATH, SECRET
from tests.support.stores import SqlitePlace
from tests.unit.administrator.test_follow_service import administrator
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver, PushSource
from zta_authz.administrator.signals.runtime import SourceRuntime
from zta_authz.authn.keys import parse_jwks

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "/envoy.service.auth.v3.Authorization/Check"
TOKENS = Signer()
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: default}}
spec: {{jwtRules: [{{issuer: "{IDP}", jwks: '{jwks([TOKENS])}'}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: users, namespace: default}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["*"]}}}}]}}]}}
"""
HEADERS = {"Authorization": SECRET, "Content-Type": "application/secevent+jwt"}


def token(subject: str, session: str, issued: float) -> str:
    return TOKENS.token(iss=IDP, sub=subject, sid=session, aud=None, iat=int(issued), exp=int(issued) + 3600)


async def reason(socket: Path, bearer: str) -> str:
    """The reason of the denial, "" for an allow."""
    request = check_request([("authorization", f"Bearer {bearer}".encode())])
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        payload = await channel.unary_unary(CHECK)(request.SerializeToString(), timeout=5)
    response = CheckResponse.FromString(payload)
    if response.status.code == 0:
        return ""
    return str(json.loads(response.denied_response.body)["reason"])


def configure(directory: Path, name: str) -> tuple[Path, Path]:
    """Write the settings of a decision point. Returns them and its socket."""
    socket, config = directory / f"{name}.sock", directory / f"{name}.yaml"
    config.write_text(
        f'listen: ["unix:{socket}"]\npolicies: [{directory}/policies]\nhealth: {{listen: null}}\n'
        "peer: {trust_proxy: true, verify_certificate: never}\n"
        f'administrator: {{follow: "unix:{directory}/administrator.sock"}}\n'
    )
    return config, socket


@pytest.fixture
async def sockets(tmp_path: Path) -> Any:
    """The sockets of two decision points that follow the administrator, and a function that pushes a SET."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "users.yaml").write_text(POLICIES)
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    runtime = SourceRuntime(source(), Intake(store))
    runtime.slot.current = parse_jwks(jwks([SIGNER]))[0]
    receiver = PushReceiver("127.0.0.1", 0)
    receiver.sources = {"istio-system/idp": PushSource(runtime, SECRET)}
    port = await receiver.start()
    points = [configure(tmp_path, name) for name in ("one", "two")]

    async def push(subject: dict[str, Any], happened: float) -> None:
        payload = claims(
            iat=int(time.time()), sub_id=subject, events={SESSION_REVOKED: {"event_timestamp": int(happened)}}
        )
        async with (
            ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}{PATH}", data=signed(payload), headers=HEADERS) as response,
        ):
            assert response.status == 202, await response.text()

    with ExitStack() as stack:
        services = [stack.enter_context(RunningService(config)) for config, _ in points]
        async with administrator(store, tmp_path / "administrator.sock"):
            for service in services:
                await asyncio.to_thread(service.wait_for, "serving")
            yield [socket for _, socket in points], push
    await receiver.stop()
    await store.close()


async def wait_for(sockets: list[Path], bearer: str, expected: str, seconds: float) -> None:
    """Wait until every decision point gives this reason."""
    async with asyncio.timeout(seconds):
        while [await reason(socket, bearer) for socket in sockets] != [expected] * len(sockets):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.005)


async def test_a_session_revoked_denies_the_next_request_everywhere(sockets: Any) -> None:
    points, push = sockets
    now = time.time()
    stolen, other = token("alice", "s-1", now - 60), token("alice", "s-2", now - 60)
    await wait_for(points, stolen, "", 20.0)
    alice = {"format": "iss_sub", "iss": IDP, "sub": "alice"}
    await push({"format": "complex", "user": alice, "session": {"format": "opaque", "id": "s-1"}}, now)
    await wait_for(points, stolen, "token_revoked", 1.0)
    assert [await reason(point, other) for point in points] == ["", ""]
    await push({"format": "complex", "user": alice, "session": {"format": "opaque", "id": "ALL"}}, now)
    await wait_for(points, other, "token_revoked", 1.0)
    again, somebody = token("alice", "s-3", now + 1), token("bob", "s-4", now - 60)
    assert [await reason(point, again) for point in points] == ["", ""]
    assert [await reason(point, somebody) for point in points] == ["", ""]
    same_second = token("alice", "s-5", now)
    assert [await reason(point, same_second) for point in points] == ["token_revoked", "token_revoked"]

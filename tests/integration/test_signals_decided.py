"""An identity provider or a device manager sends an event, and it decides the next request of every decision point."""

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
from zta_authz.model.signal_documents import CAEP

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
spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["*"]}}}}], to: [{{operation: {{paths: [/x]}}}}]}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: calm, namespace: default}}
spec: {{rules: [{{to: [{{operation: {{paths: [/risk]}}}}], require: {{trust: {{level: HIGH}}}}}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: healthy, namespace: default}}
spec: {{rules: [{{to: [{{operation: {{paths: [/device]}}}}], require: {{device: {{compliant: true}}}}}}]}}
---
apiVersion: zta.dev/v1
kind: TrustModel
metadata: {{name: m, namespace: default}}
spec:
  components:
    user: {{floor: 0, signals: [{{name: highRisk, points: -50, caps: LOW}}]}}
    device: {{assume: 100}}
    network: {{assume: 100}}
    behavior: {{assume: 100}}
---
apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {{name: fleet, namespace: default}}
spec:
  source: {{file: devices.jsonl}}
  id: id
  identify: {{tokenClaim: device_id, acceptUnbound: true}}
  fields: {{compliant: compliant}}
  times: {{posture: checked}}
"""
HEADERS = {"Authorization": SECRET, "Content-Type": "application/secevent+jwt"}


def token(subject: str, session: str, issued: float) -> str:
    return TOKENS.token(
        iss=IDP, sub=subject, sid=session, device_id="laptop-1", aud=None, iat=int(issued), exp=int(issued) + 3600
    )


async def reason(socket: Path, bearer: str, path: str = "/x") -> str:
    """The reason of the denial, "" for an allow."""
    request = check_request([("authorization", f"Bearer {bearer}".encode())], path=path)
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
        f"peer: {{trust_proxy: true, verify_certificate: never}}\nfacts: {{directory: {directory}}}\n"
        f"audit: {{sink: file, path: {directory}/{name}.log}}\n"
        f'administrator: {{follow: "unix:{directory}/administrator.sock"}}\n'
    )
    return config, socket


@pytest.fixture
async def sockets(tmp_path: Path) -> Any:
    """The sockets of two decision points that follow the administrator, and a function that pushes a SET."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "users.yaml").write_text(POLICIES)
    device = {"id": "laptop-1", "compliant": True, "checked": int(time.time()) - 60}
    (tmp_path / "devices.jsonl").write_text(json.dumps(device))
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    of = source(subjects={"device_inventory": "default/fleet"})
    runtime = SourceRuntime(of, Intake(store))
    runtime.slot.current = parse_jwks(jwks([SIGNER]))[0]
    receiver = PushReceiver("127.0.0.1", 0)
    receiver.sources = {"istio-system/idp": PushSource(runtime, SECRET)}
    port = await receiver.start()
    points = [configure(tmp_path, name) for name in ("one", "two")]

    async def push(subject: dict[str, Any], happened: float, kind: str = SESSION_REVOKED, **values: Any) -> str:
        payload = claims(
            iat=int(time.time()), sub_id=subject, events={kind: {"event_timestamp": int(happened), **values}}
        )
        async with (
            ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}{PATH}", data=signed(payload), headers=HEADERS) as response,
        ):
            assert response.status == 202, await response.text()
        return str(payload["jti"])

    with ExitStack() as stack:
        services = [stack.enter_context(RunningService(config)) for config, _ in points]
        async with administrator(store, tmp_path / "administrator.sock"):
            for service in services:
                await asyncio.to_thread(service.wait_for, "serving")
            yield [socket for _, socket in points], push
    await receiver.stop()
    await store.close()


async def wait_for(sockets: list[Path], bearer: str, expected: str, seconds: float, path: str = "/x") -> None:
    """Wait until every decision point gives this reason."""
    async with asyncio.timeout(seconds):
        while [await reason(socket, bearer, path) for socket in sockets] != [expected] * len(sockets):  # noqa: ASYNC110 - other processes
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


def denied_by(log: Path) -> set[str | None]:
    """The events that denials for too little trust name."""
    records = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {record["signal"] for record in records if record.get("reason") == "trust_too_low"}


async def test_a_high_risk_lowers_trust_at_the_next_request_everywhere_until_it_is_low_again(
    sockets: Any, tmp_path: Path
) -> None:
    points, push = sockets
    now = time.time()
    bearer = token("alice", "s-1", now - 60)
    alice = {"format": "iss_sub", "iss": IDP, "sub": "alice"}
    risk = CAEP + "risk-level-change"
    await wait_for(points, bearer, "trust_too_low", 20.0, "/risk")  # the source was not heard yet
    await push(alice, now - 30, risk, current_level="LOW", principal="USER")
    await wait_for(points, bearer, "", 1.0, "/risk")
    event = await push(alice, now - 20, risk, current_level="HIGH", principal="USER")
    await wait_for(points, bearer, "trust_too_low", 1.0, "/risk")
    assert [await reason(point, token("bob", "s-2", now - 60), "/risk") for point in points] == ["", ""]
    await push(alice, now - 25, risk, current_level="LOW", principal="USER")  # older than the one in force
    assert [await reason(point, bearer, "/risk") for point in points] == ["trust_too_low"] * 2
    await push(alice, now - 10, risk, current_level="LOW", principal="USER")
    await wait_for(points, bearer, "", 1.0, "/risk")
    for name in ("one", "two"):
        async with asyncio.timeout(10):
            while event not in denied_by(tmp_path / f"{name}.log"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)


async def test_a_device_that_is_no_longer_compliant_is_denied_at_the_next_request_everywhere(sockets: Any) -> None:
    points, push = sockets
    now = time.time()
    bearer = token("alice", "s-1", now - 60)
    laptop = {"format": "complex", "device": {"format": "opaque", "id": "laptop-1"}}
    change = CAEP + "device-compliance-change"
    await wait_for(points, bearer, "", 20.0, "/device")
    await push(laptop, now - 20, change, current_status="not-compliant", previous_status="compliant")
    await wait_for(points, bearer, "no_matching_policy", 1.0, "/device")
    await push(laptop, now - 10, change, current_status="compliant", previous_status="not-compliant")
    await wait_for(points, bearer, "", 1.0, "/device")

"""`serve` follows an administrator: its grants and revocations count at the next check, and losing it denies nobody."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any, cast

import grpc

from tests.integration.test_serve import get
from tests.support.check_requests import FRONTEND, check_request
from tests.support.service import RunningService, run_cli
from tests.support.stores import SqlitePlace
from tests.unit.administrator.test_follow_service import administrator
from tests.unit.following.test_connection import ADMINISTRATOR, POINT, Pair, serving
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.administrator.access_events import Actor
from zta_authz.administrator.operator_authorization import AuthorizedCaller
from zta_authz.administrator.revocations import Revocations
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view_items import GrantItem, SubjectItem, encode_item
from zta_authz.model.access import Subject

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

OPERATOR = AuthorizedCaller((Subject(spiffe_id="spiffe://cluster.local/ops"),), cast("Any", None), Actor(), "")
CHECK = "/envoy.service.auth.v3.Authorization/Check"
POLICIES = """
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {name: hats, namespace: default}
spec:
  who: [{source: {namespaces: [default]}}]
  maxDuration: 1h
  approvers: [{from: [{source: {principals: ["*"]}}]}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: hats, namespace: default}
spec: {rules: [{require: {grant: hats}}]}
"""


async def reason(socket: Path) -> str:
    """The reason of the denial, "" for an allow."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        payload = await channel.unary_unary(CHECK)(check_request().SerializeToString(), timeout=5)
    response = CheckResponse.FromString(payload)
    return "" if response.status.code == 0 else response.status.message


async def wait_for(socket: Path, expected: str, seconds: float = 5.0) -> float:
    """Ask until the answer is `expected`; return how long that took."""
    began = time.monotonic()
    while (answer := await reason(socket)) != expected:
        assert time.monotonic() - began < seconds, answer
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def grant(store: Store, seconds: float = 3600.0) -> None:
    now = time.time()
    item = GrantItem("g1", "default/hats", SubjectItem(spiffe_id=FRONTEND), now - 1, now + seconds)
    await store.commit(Change(put={item.key: encode_item(item)}))


async def test_grants_and_revocations_count_at_the_next_check_and_outlive_the_administrator(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "hats.yaml").write_text(POLICIES)
    socket, followed = tmp_path / "authz.sock", tmp_path / "administrator.sock"
    config = tmp_path / "settings.yaml"
    config.write_text(
        f'listen: ["unix:{socket}"]\n'
        f"policies: [{tmp_path}/policies]\n"
        "peer: {trust_proxy: true, verify_certificate: never}\n"
        'health: {listen: "127.0.0.1:0"}\n'
        f'admin: {{listen: "unix:{tmp_path}/admin.sock"}}\n'
        f'administrator: {{follow: "unix:{followed}"}}\n'
        f"audit: {{sink: file, path: {tmp_path}/decisions.jsonl}}\n"
    )
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    with RunningService(config) as service:
        serving = await asyncio.to_thread(service.wait_for, "serving")
        assert serving["obstacles"] == ["nothing was received from the administrator yet"]
        assert await reason(socket) == "grant_required"
        async with administrator(store, followed):
            await asyncio.to_thread(service.wait_for, "ready again")
            await grant(store)
            assert await wait_for(socket, "") < 1.0
            revocations = Revocations(store)
            revoked = await revocations.revoke(OPERATOR, "spiffe-id", FRONTEND, reason="stolen key")
            assert await wait_for(socket, "peer_revoked") < 1.0
            status = (await asyncio.to_thread(run_cli, "status", "--config", str(config))).stdout
            assert f"  follows   unix:{followed}: connected, " in status
            assert "revision 2, 1 grants, 1 revocations, 0 signals" in status
            await revocations.lift(OPERATOR, revoked.id, "key replaced")
            assert await wait_for(socket, "") < 1.0
        assert await reason(socket) == ""
        listing = await asyncio.to_thread(run_cli, "status", "--config", str(config), "--output", "json")
        following = json.loads(listing.stdout)["services"][0]["following"]
        assert (following["connected"], following["stale"], following["items"]["grant"]) == (False, False, 1)
        (tmp_path / "policies" / "hats.yaml").write_text(POLICIES + "# changed\n")
        await asyncio.to_thread(service.wait_for, "policies taken")
        assert await reason(socket) == "", "a reload keeps the administrator's view"
        await grant(store, seconds=1.0)
        async with administrator(store, followed):
            await wait_for(socket, "grant_required", seconds=10.0)
    await store.close()
    records = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert {record["revocation"] for record in records if record.get("reason") == "peer_revoked"} == {revoked.id}


async def test_workers_share_one_stream_and_a_new_worker_gets_the_whole_view(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "hats.yaml").write_text(POLICIES)
    socket, followed = tmp_path / "authz.sock", tmp_path / "administrator.sock"
    config = tmp_path / "settings.yaml"
    config.write_text(
        f'listen: ["unix:{socket}"]\n'
        "workers: 2\n"
        f"policies: [{tmp_path}/policies]\n"
        "peer: {trust_proxy: true, verify_certificate: never}\n"
        'health: {listen: "127.0.0.1:0"}\n'
        f'administrator: {{follow: "unix:{followed}"}}\n'
        "audit: {sink: none}\n"
    )
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    workers = [tmp_path / f"authz.sock.{number}" for number in (1, 2)]
    with RunningService(config) as service:
        started = await asyncio.to_thread(service.wait_for, "all workers serve")
        assert [await reason(worker) for worker in workers] == ["grant_required"] * 2
        async with administrator(store, followed) as administration:
            await grant(store)
            for worker in workers:
                await wait_for(worker, "", seconds=20.0)  # the supervisor tries again after at most 10 s
            assert administration.followers == 1
            revocations = Revocations(store)
            revoked = await revocations.revoke(OPERATOR, "spiffe-id", FRONTEND, reason="stolen key")
            assert max([await wait_for(worker, "peer_revoked") for worker in workers]) < 1.0
        os.kill(started["worker_pids"][0], signal.SIGKILL)
        await asyncio.to_thread(service.wait_for, "a worker serves")
        assert await wait_for(workers[0], "peer_revoked") < 5.0, "the supervisor has the view without an administrator"
        async with administrator(store, followed):
            await revocations.lift(OPERATOR, revoked.id, "key replaced")
            for worker in workers:
                await wait_for(worker, "", seconds=20.0)
    await store.close()


async def test_workers_follow_over_mutual_tls(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "hats.yaml").write_text(POLICIES)
    pair, config = Pair(tmp_path), tmp_path / "settings.yaml"
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    async with serving(store, pair.server_tls()) as (port, callers):
        config.write_text(
            f'listen: ["unix:{tmp_path}/authz.sock"]\n'
            "workers: 2\n"
            f"policies: [{tmp_path}/policies]\n"
            "peer: {trust_proxy: true, verify_certificate: never}\n"
            'health: {listen: "127.0.0.1:0"}\n'
            "audit: {sink: none}\n"
            "administrator:\n"
            f"  follow: localhost:{port}\n"
            "  tls:\n"
            f"    cert_file: {pair.directory}/cert.pem\n"
            f"    key_file: {pair.directory}/key.pem\n"
            f"    ca_file: {pair.directory}/ca.pem\n"
            f"    spiffe_ids: [{ADMINISTRATOR!r}]\n"
        )
        with RunningService(config) as service:
            started = await asyncio.to_thread(service.wait_for, "all workers serve")
            await grant(store)
            for number in (1, 2):
                await wait_for(tmp_path / f"authz.sock.{number}", "")
            page = await asyncio.to_thread(get, started["health"], "/metrics")
            assert "zta_following_connected 1.0" in page[1]
            assert "zta_following_streams_total 1.0" in page[1]
    assert callers == {POINT}
    await store.close()

"""A running service takes new policies and settings, keeps the last good ones, and says which it has."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.snapshots import HATSHOP
from tests.integration.test_jwks import Place as JwksPlace, token
from tests.integration.test_serve import ADMIN, Place, call, check, get
from tests.support.configmap import ConfigMapMount, allow_path
from tests.support.issuer import KEYS, issuer_in_thread
from tests.support.pki import Signer
from tests.support.policies import STRICT, operation, policy
from tests.support.service import RunningService
from zta_authz._proto import admin_pb2
from zta_authz.policy_sources.compile_executor import CompileExecutor
from zta_authz.policy_sources.files import SnapshotHolder, load_snapshot
from zta_authz.policy_sources.pacing import CooperativePause, freeze_gc
from zta_authz.policy_sources.reloader import PolicyReloader, PolicySet
from zta_authz.policy_sources.watcher import WatchTiming
from zta_authz.service.app import Service
from zta_authz.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

QUICKLY = "reload: {poll_seconds: 0.05, debounce_seconds: 0.02}\n"
BROKEN = HATSHOP.replace("rules:", "rulez:")
NOBODY = HATSHOP.replace("sa/frontend", "sa/nobody")
REVOKED = """---
apiVersion: zta.dev/v1
kind: RevocationList
metadata: {name: stolen}
spec: {spiffeIds: [{id: "spiffe://cluster.local/ns/default/sa/frontend"}]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write_config(QUICKLY)
    return made


def until(reached: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `reached`."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def status(place: Place) -> admin_pb2.GetStatusResponse:
    answer = call(f"unix:{place.directory}/admin.sock", f"{ADMIN}GetStatus", b"")
    return admin_pb2.GetStatusResponse.FromString(answer)


def metric(address: str, name: str) -> float:
    lines = [line for line in get(address, "/metrics")[1].splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2])


def allowed(place: Place) -> bool:
    return check(f"unix:{place.socket}").status.code == 0


def test_a_broken_version_is_told_of_everywhere_and_changes_no_answer_until_it_is_mended(place: Place) -> None:
    with RunningService(place.config) as service:
        health = service.wait_for("serving")["health"]
        good = status(place).table_digest
        place.write_policy(BROKEN)
        until(lambda: metric(health, "zta_policy_reload_failed") == 1)
        assert allowed(place)
        told = status(place)
        assert told.table_digest == good
        assert told.ready
        assert [(fault.source, fault.line) for fault in told.load_errors] == [
            (str(place.policies / "hatshop.yaml"), HATSHOP.splitlines().index("  rules:") + 1)
        ]
        code, page = get(health, "/readyz")
        assert code == 200
        assert json.loads(page)["load_errors"] == 1
        assert service.wait_for("policy_reload_failed")["table_digest"] == good

        place.write_policy(NOBODY)
        until(lambda: not allowed(place))
        assert service.wait_for("policies taken")["table_digest"] == status(place).table_digest != good
        until(lambda: metric(health, "zta_policy_reload_failed") == 0)  # the page is as old as a tenth of a second
        assert json.loads(get(health, "/readyz")[1])["load_errors"] == 0
        assert not status(place).load_errors
        assert f'zta_policy_table_info{{digest="{status(place).table_digest}"}} 1.0' in get(health, "/metrics")[1]


def test_a_revocation_takes_effect_with_the_next_call(place: Place) -> None:
    with RunningService(place.config) as service:
        service.wait_for("serving")
        assert allowed(place)
        (place.policies / "revoked.yaml").write_text(REVOKED)
        service.wait_for("policies taken")
        assert not allowed(place)
        (place.policies / "revoked.yaml").unlink()
        until(lambda: allowed(place))


def test_sighup_reads_everything_again_where_nothing_is_watched(place: Place) -> None:
    place.write_config("reload: {enabled: false}\n")
    with RunningService(place.config) as service:
        service.wait_for("serving")
        place.write_policy(NOBODY)
        place.write_config("reload: {enabled: false}\nlog: {level: warning}\n")
        time.sleep(0.3)
        assert allowed(place)
        service.signal(signal.SIGHUP)
        until(lambda: not allowed(place))


def test_settings_that_can_change_live_do_and_the_others_are_named(place: Place) -> None:
    with RunningService(place.config) as service:
        service.wait_for("serving")
        place.write_config(f"{QUICKLY}log: {{level: debug}}\ntracing: {{sample_ratio: 0.5}}\ndrain_seconds: 3.0\n")
        assert service.wait_for("settings taken")["settings"] == ["log.level", "tracing.sample_ratio"]
        assert service.wait_for("changed settings need a restart")["settings"] == ["drain_seconds"]
        place.write_config("nonsense: 1\n")
        service.wait_for("settings refused, those of before stay")
        assert allowed(place)


def test_shadow_policies_are_loaded_reloaded_and_change_no_answer(place: Place) -> None:
    shadow = ConfigMapMount(place.directory / "shadow", {"a.yaml": NOBODY})
    place.write_config(f"{QUICKLY}shadow_policies: [{shadow.path}]\n")
    with RunningService(place.config) as service:
        health = service.wait_for("serving")["health"]
        assert service.wait_for("policies taken")["set"] == "shadow_policies"
        assert allowed(place)
        assert service.wait_for("shadow policies disagree")["verdict"] == "deny"
        count = 'zta_shadow_disagreements_total{policy="none",verdict="deny"}'
        until(lambda: metric(health, count) == 1)
        shadow.update({"a.yaml": BROKEN})
        until(lambda: metric(health, 'zta_policy_load_faults{set="shadow_policies"}') == 1)
        assert metric(health, "zta_policy_reload_failed") == 0
        assert allowed(place)
        until(lambda: metric(health, count) == 2)
        shadow.update({"a.yaml": HATSHOP})
        until(lambda: metric(health, 'zta_policy_load_faults{set="shadow_policies"}') == 0)
        assert allowed(place)
        until(lambda: metric(health, count) == 2)
        service.signal(signal.SIGTERM)
        _, decisions, _ = service.wait()
    told = [json.loads(line)["shadow"] for line in decisions.splitlines()]
    assert [each and each["reason"] for each in told] == ["no_matching_policy", "no_matching_policy", None]


def test_a_shadow_set_that_is_wrong_from_the_start_keeps_nothing_from_serving(place: Place) -> None:
    place.write_config(f"{QUICKLY}shadow_policies: [{place.directory}/nowhere]\n")
    with RunningService(place.config) as service:
        service.wait_for("serving")
        assert service.wait_for("policy_reload_failed")["set"] == "shadow_policies"
        assert allowed(place)


def test_fetched_keys_hold_across_a_reload_though_their_server_is_gone(tmp_path: Path) -> None:
    signer = Signer(kid="one", number=1)
    with issuer_in_thread() as server:
        issuer = "https://login.example"
        server.publish(signer)
        place = JwksPlace(tmp_path)
        rule = {"issuer": issuer, "jwksUri": server.url(KEYS)}
        place.write(rule, allow_http=True, allow_private_addresses=True)
        place.config.write_text(place.config.read_text().replace("{", '{"reload": {"poll_seconds": 0.05}, ', 1))
        with RunningService(place.config) as service:
            service.wait_for("serving")
            assert place.check(token(issuer, signer)) == (200, "")
            server.say(KEYS, "out of order", 503)
            asked = len(server.asked)
            document = tmp_path / "policies.yaml"
            document.write_text(document.read_text() + "# another version\n")
            service.wait_for("policies taken")
            assert place.check(token(issuer, signer)) == (200, "")
            assert len(server.asked) == asked


async def test_memory_is_flat_over_fifty_reloads(tmp_path: Path) -> None:
    def version(number: int) -> str:
        rules = [operation(paths=[f"/{number}/{rule}", f"/{rule}*"], methods=["GET"]) for rule in range(300)]
        return json.dumps(policy("p", *rules))

    mount = ConfigMapMount(tmp_path / "mount", {"a.yaml": version(0)})
    holder = SnapshotHolder()
    holder.publish(load_snapshot([str(mount.path)], STRICT))
    freeze_gc(at_start=True)

    reloads = 0

    def take(snapshot: object) -> None:
        nonlocal reloads
        holder.publish(snapshot)  # type: ignore[arg-type]
        freeze_gc()
        reloads += 1

    executor = CompileExecutor(CooperativePause(rest=0.0))
    policies = PolicySet("policies", [str(mount.path)], holder.current, take, lambda _: None, lambda: None)
    reloader = PolicyReloader(policies, STRICT, WatchTiming(0.01, 0.01), executor)
    reloader.start()
    frozen: list[int] = []
    resident: list[int] = []
    try:
        for number in range(1, 51):
            mount.update({"a.yaml": version(number)})
            async with asyncio.timeout(20):
                while reloads < number:  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.01)
            await executor.run(lambda: None)  # the old set is gone then
            frozen.append(gc.get_freeze_count())
            resident.append(_resident_bytes())
    finally:
        await reloader.close()
        executor.close()
        gc.unfreeze()
    assert max(frozen[10:]) - min(frozen[10:]) < 3000  # one version has ten thousand objects
    assert resident[-1] - resident[10] < 8 * 1024 * 1024, resident


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_policies_of_a_swapped_mount_are_in_force_as_a_whole(place: Place) -> None:
    mount = ConfigMapMount(place.directory / "mount", {"a.yaml": HATSHOP, "b.yaml": allow_path("b", "/b")})
    config = place.config.read_text().replace(f"policies: [{place.policies}]", f"policies: [{mount.path}]")
    place.config.write_text(config)
    with RunningService(place.config) as service:
        service.wait_for("serving")
        assert len(status(place).sources) == 2
        mount.update({"c.yaml": NOBODY})
        service.wait_for("policies taken")
        assert [Path(source).name for source in status(place).sources] == ["c.yaml"]
        assert not allowed(place)


INVENTORY = """apiVersion: zta.dev/v1
kind: DeviceInventory
metadata: {name: fleet, namespace: default}
spec:
  source: {file: FILE}
  id: id
  identify: {tokenClaim: device_id}
"""


async def test_devices_stay_known_while_a_reload_changes_the_file_that_lists_them(tmp_path: Path) -> None:
    policy_file = tmp_path / "inventory.yaml"
    policy_file.write_text(INVENTORY.replace("FILE", "old.jsonl"))
    for name in ("old", "new"):
        (tmp_path / f"{name}.jsonl").write_text('{"id": "laptop-1"}\n')
    written = {
        "policies": [str(policy_file)],
        "facts": {"directory": str(tmp_path)},
        "reload": {"poll_seconds": 0.05, "debounce_seconds": 0.02},
        "listen": [f"unix:{tmp_path / 's'}"],
        "audit": {"sink": "file", "path": str(tmp_path / "decisions.jsonl")},
    }
    service = Service(Settings.model_validate_json(json.dumps(written)))
    service.follow()
    try:
        policy_file.write_text(INVENTORY.replace("FILE", "new.jsonl"))
        file = ""
        async with asyncio.timeout(30):
            while file != "new.jsonl":
                await asyncio.sleep(0)
                snapshot, devices = service._snapshots.snapshot, service._facts.views.devices
                assert snapshot is not None
                assert devices is not None
                (inventory,) = snapshot.models.inventories
                file = inventory.source.file
                assert devices.find(inventory.full_name, inventory.source, "id:laptop-1") is not None, file
    finally:
        await service.stop()

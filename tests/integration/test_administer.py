"""`zta-authz administer` as a process: it publishes, logs, stops, and says what prevents its start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.integration.test_following import POLICIES, reason, wait_for
from tests.support.check_requests import FRONTEND
from tests.support.service import RunningService, run_cli
from tests.support.stores import SqlitePlace
from zta_authz.administrator.app import Administrator
from zta_authz.administrator.due_steps import DueSteps
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view_items import RevocationItem, encode_item
from zta_authz.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

Result = TypeVar("Result")


def settings(directory: Path, store: str) -> Path:
    """One settings file for a decision point and its administrator."""
    (directory / "policies").mkdir(exist_ok=True)
    (directory / "policies" / "hats.yaml").write_text(POLICIES)
    config = directory / "settings.yaml"
    config.write_text(
        f'listen: ["unix:{directory}/authz.sock"]\n'
        f"policies: [{directory}/policies]\n"
        "peer: {trust_proxy: true, verify_certificate: never}\n"
        'health: {listen: "127.0.0.1:0"}\n'
        "audit: {sink: none}\n"
        "administrator:\n"
        f'  follow: "unix:{directory}/views.sock"\n'
        f'  store: {{url: "{store}"}}\n'
        f"  access_log: {{path: {directory}/access.jsonl}}\n"
        f'  views: {{listen: ["unix:{directory}/views.sock"]}}\n'
    )
    return config


async def test_a_decision_point_follows_the_process_and_outlives_it(tmp_path: Path) -> None:
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    socket = tmp_path / "authz.sock"
    with RunningService(config) as service:
        with RunningService(config, command="administer") as administrator:
            ready = await asyncio.to_thread(administrator.wait_for, "administering")
            assert ready["views"] == [f"unix:{tmp_path}/views.sock"]
            await asyncio.to_thread(service.wait_for, "ready again")
            assert await reason(socket) == "grant_required"
            store = await SqlitePlace(tmp_path).open()  # another replica on the same host
            await store.epoch()
            item = RevocationItem("r1", "spiffe id", FRONTEND)
            await store.commit(Change(put={item.key: encode_item(item)}))
            assert await wait_for(socket, "peer_revoked") < 1.0
            await store.close()
            administrator.process.terminate()
            assert await asyncio.to_thread(administrator.process.wait, 20) == 0
        assert await reason(socket) == "peer_revoked"
    lines = (tmp_path / "access.jsonl").read_text().splitlines()
    assert "store.opened" in [json.loads(line).get("kind") for line in lines]


def test_a_store_that_cannot_be_opened_is_a_fault(tmp_path: Path) -> None:
    config = settings(tmp_path, "sqlite:////nonexistent/store.sqlite")
    ended = run_cli("administer", "--config", str(config))
    assert ended.returncode == 2
    assert "the store can't be opened" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_access_log_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    config.write_text(config.read_text().replace(f"{tmp_path}/access.jsonl", "/nonexistent/access.jsonl"))
    ended = run_cli("administer", "--config", str(config))
    assert ended.returncode == 2
    assert "/nonexistent/access.jsonl" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_an_embedded_one_is_restarted_and_ends_with_the_service_even_if_that_is_killed(tmp_path: Path) -> None:
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    text = config.read_text().replace(f'  follow: "unix:{tmp_path}/views.sock"\n', "  embedded: true\n")
    config.write_text(text)
    socket = tmp_path / "authz.sock"
    with RunningService(config) as service:
        await asyncio.to_thread(service.wait_for, "ready again")
        assert await reason(socket) == "grant_required"
        first = child_of(service.process.pid)
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(service.wait_for, "the embedded administrator ended")
        second = await until(lambda: child_of(service.process.pid))
        assert second != first
        service.process.kill()
        service.process.wait()
        await until(lambda: not Path(f"/proc/{second}").exists() or is_zombie(second))


async def test_a_part_that_fails_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise steps that are not done, or events that are not recorded, would look as if they were."""

    async def fail(_: DueSteps) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(DueSteps, "run", fail)
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    administrator = Administrator(load_settings(str(config), {}))
    try:
        await administrator.start()
        await asyncio.wait_for(administrator.failed.wait(), 5)
    finally:
        await administrator.stop()


def child_of(pid: int) -> int:
    """The process ID of the only child, 0 without one."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread ended meanwhile
            children = (task / "children").read_text().split()
            if children:
                return int(children[0])
    return 0


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def until(condition: Callable[[], Result], seconds: float = 15.0) -> Result:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return result

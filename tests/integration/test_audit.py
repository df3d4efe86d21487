"""The decision log of a real service: killed under load, it verifies up to its end, and the next process goes on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.fakes.snapshots import HATSHOP
from tests.support.audit_logs import KEY_PEM, PUBLIC_PEM, segments
from tests.support.check_requests import check_request
from tests.support.service import RunningService, run_cli

if TYPE_CHECKING:
    from pathlib import Path

CHECK = "/envoy.service.auth.v3.Authorization/Check"
CALLERS = 8
LOAD_SECONDS = 2.0
UNWRITTEN_SECONDS = 1.0
"""Documented: about 50 ms; a busy machine needs longer."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "hatshop.yaml").write_text(HATSHOP)
    (tmp_path / "key.pem").write_bytes(KEY_PEM)
    (tmp_path / "public.pem").write_bytes(PUBLIC_PEM)
    file = tmp_path / "settings.yaml"
    file.write_text(
        f'listen: ["unix:{tmp_path}/authz.sock"]\n'
        f"policies: [{tmp_path}/policies]\n"
        "workload: {labels: {app: hatshop}}\n"
        "peer: {trust_proxy: true}\n"
        "health: {listen: null}\n"
        "audit:\n"
        "  sink: file\n"
        f"  path: {tmp_path}/decisions.jsonl\n"
        "  max_bytes: 100000\n"
        "  max_files: 1000\n"
        "  flush_ms: 100\n"
        f"  checkpoint: {{path: {tmp_path}/checkpoints.jsonl, key_file: {tmp_path}/key.pem, interval_seconds: 0.2}}\n"
    )
    return file


async def ask_until_killed(target: str, service: RunningService) -> list[float]:
    """Ask as fast as it answers, kill it, and tell when each decision was answered."""
    answered: list[float] = []
    payload = check_request().SerializeToString()
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.unary_unary(CHECK)

        async def ask() -> None:
            while True:
                try:
                    await call(payload, timeout=10)
                except grpc.aio.AioRpcError:
                    return
                answered.append(time.time())

        asking = [asyncio.create_task(ask()) for _ in range(CALLERS)]
        await asyncio.sleep(LOAD_SECONDS)
        service.signal(signal.SIGKILL)
        await asyncio.gather(*asking)
    return answered


def verify(directory: Path) -> tuple[int, dict[str, object]]:
    files = [str(file) for file in segments(directory)]
    signed = ("--checkpoints", f"{directory}/checkpoints.jsonl", "--public-key", f"{directory}/public.pem")
    done = run_cli("audit", "verify", *files, *signed, "--output", "json")
    report: dict[str, object] = json.loads(done.stdout)
    return done.returncode, report


def test_a_log_whose_service_was_killed_under_load_verifies_and_goes_on(config: Path) -> None:
    directory = config.parent
    target = f"unix:{directory}/authz.sock"
    with RunningService(config) as service:
        service.wait_for("serving")
        answered = asyncio.run(ask_until_killed(target, service))
        service.wait()
    status, report = verify(directory)
    assert (status, report["findings"]) == (0, [])
    assert len(segments(directory)) > 2
    due = sum(at < max(answered) - UNWRITTEN_SECONDS for at in answered)
    assert due > 50
    assert due <= int(str(report["decisions"])) <= len(answered) + CALLERS

    with RunningService(config) as service:
        service.wait_for("serving")
        service.signal(signal.SIGTERM)
        assert service.wait()[0] == 0
    status, after = verify(directory)
    assert (status, after["findings"]) == (0, [])
    assert int(str(after["lastSeq"])) > int(str(report["lastSeq"]))

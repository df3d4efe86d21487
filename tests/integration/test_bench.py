"""The benchmark measures what it says: it runs, every answer it counts is an allow, and it fails on anything else."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench import scenario
from bench.load import LoadClient
from zta_authz.ext_authz.request import parse_check_request

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("case", scenario.CASES)
def test_each_case_is_allowed_and_reported(case: str) -> None:
    arguments = ["--case", case, "--policies", "3", "--rounds", "1", "--seconds", "0.4", "--output", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.check_throughput", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["case"] == case
    assert result["empty"]["calls_per_second"] > 0
    assert result["full"]["server_cpu_us"] > 0
    pairs = result["throughput_ratios"]
    assert len(pairs) == result["rounds"]
    assert all(ratio > 0 for ratio in pairs)
    assert result["throughput_ratio"] == pytest.approx(statistics.median(pairs), abs=0.002)


def test_the_request_has_the_size_that_envoys_have(tmp_path: Path) -> None:
    payload = scenario.build("principal", 1, tmp_path).request
    assert 1_000 < len(payload) < 1_600
    request, evidence = parse_check_request(payload)
    assert (request.method, request.headers.exact, evidence.certificate) == ("GET", True, "")


@pytest.mark.parametrize(("answer", "failed"), [(b"\x0a\x00\x1a\x00", False), (b"\x0a\x02\x08\x07", True), (b"", True)])
async def test_the_client_counts_an_answer_that_is_no_allow_as_a_failure(
    answer: bytes, failed: bool, tmp_path: Path
) -> None:
    async def check(_payload: bytes, _context: Any) -> bytes:
        return answer

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", handlers),)
    )
    socket = tmp_path / "s"
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    client = await connect(socket)
    outcome = await client.run(0.2)
    client.close()
    await server.stop(0)
    assert outcome.calls > 0
    assert (outcome.failures == outcome.calls) is failed
    assert bool(outcome.failures) is failed


async def connect(socket: Path) -> LoadClient:
    _, client = await asyncio.get_running_loop().create_unix_connection(
        lambda: LoadClient(b"\x0a\x00" * 500, 8), str(socket)
    )
    return client


def test_what_telling_costs_is_measured_against_a_service_that_tells_nothing() -> None:
    arguments = ["--policies", "3", "--rounds", "1", "--seconds", "0.4", "--output", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.telemetry_cost", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["sides"]) == {"all off", "all on"}
    assert all(side["calls_per_second"] > 0 for side in result["sides"].values())
    assert -10 < result["cost"]["all on"] < 1


def test_each_follower_of_the_benchmark_gets_each_change() -> None:
    arguments = ["--followers", "4", "--processes", "1", "--commits", "2", "--rate", "5", "--tls"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.following", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["followers"], result["changes"], result["missing"]) == (4, 2, 0)
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["max_ms"]

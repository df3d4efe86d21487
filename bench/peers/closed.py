"""The closed loop: the throughput of a server on one CPU, with a fixed number of calls in flight on one connection."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uvloop

from bench.load import LoadClient
from bench.peers.process import cpu_seconds

if TYPE_CHECKING:
    from pathlib import Path

IN_FLIGHT: Final = 32
"""The default number of calls in flight."""
_OWN_SECONDS: Final = 2.0
_URL: Final = "http://localhost/envoy.service.auth.v3.Authorization/Check"


@dataclass(frozen=True, slots=True)
class Closed:
    """The result of one server in one round."""

    calls_per_second: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def client_name() -> str:
    """Return the name of the client that drives the closed loop."""
    return "h2load" if shutil.which("h2load") else "bench.load.LoadClient"


def measure(socket: Path, pid: int, request: bytes, calls: int, in_flight: int) -> Closed:
    """Send `calls` calls and measure them. Raises SystemExit if responses fail.

    The number of calls is fixed instead of the time, so that no call is aborted after it has cost CPU.
    """
    cpu = cpu_seconds(pid)
    drive = _h2load if shutil.which("h2load") else _own
    done, took, latencies = drive(socket, request, calls, in_flight)
    cpu = cpu_seconds(pid) - cpu
    percentiles = statistics.quantiles(latencies, n=100)
    return Closed(done / took, cpu / done * 1e6, percentiles[49] * 1e3, percentiles[98] * 1e3)


def _h2load(socket: Path, request: bytes, calls: int, in_flight: int) -> tuple[int, float, list[float]]:
    """Return calls, seconds and latencies (in seconds) of a run of h2load (nghttp2)."""
    body, log = socket.with_suffix(".body"), socket.with_suffix(".times")
    body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    log.unlink(missing_ok=True)
    command = [
        "h2load",
        "-c1",
        "-t1",
        f"-m{in_flight}",
        "-w30",
        "-W30",
        f"-n{calls}",
        "-d",
        str(body),
    ]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    command += [f"--log-file={log}", f"--base-uri=unix:{socket}", _URL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"h2load failed: {(done.stdout + done.stderr)[-500:]}")
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if len(rows) != calls or any(row[1] != "200" for row in rows):
        raise SystemExit(f"h2load saw answers that are no 200: {done.stdout[-500:]}")
    begin = min(int(row[0]) for row in rows)
    end = max(int(row[0]) + int(row[2]) for row in rows)
    return len(rows), (end - begin) / 1e6, [int(row[2]) / 1e6 for row in rows]


def _own(socket: Path, request: bytes, calls: int, in_flight: int) -> tuple[int, float, list[float]]:
    del calls  # it supports only a duration, but aborts no call

    async def run() -> tuple[int, float, list[float]]:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(lambda: LoadClient(request, in_flight), str(socket))
        outcome = await client.run(_OWN_SECONDS)
        client.close()
        if outcome.failures or not outcome.calls:
            raise SystemExit(f"{outcome.failures} of {outcome.calls} calls were not allowed")
        return outcome.calls, outcome.seconds, outcome.latencies

    return uvloop.run(run())

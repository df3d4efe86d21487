"""Compare the service with an empty `grpc.aio` handler: calls per second and CPU per call, in alternating rounds.

Both server processes share a CPU and only one works at a time; the client has another CPU. Noise affects both halves of
a pair alike, so the ratios are reliable. Absolute numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

ROOT = Path(__file__).parents[1]
if __package__ in (None, ""):
    sys.path.insert(0, str(ROOT))  # run as a script

from bench import scenario  # noqa: E402
from bench.load import LoadClient  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = 0.8
"""The target: this fraction of the empty handler's throughput."""


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one server in one round."""

    calls_per_second: float
    server_cpu_us: float
    p50_ms: float
    p99_ms: float
    client_busy: float


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of all threads of a process (see clock_getcpuclockid(3) for the clock id)."""
    return time.clock_gettime((~pid << 3) | 2)


@contextmanager
def server(arguments: list[str], socket: Path, cpu: int) -> Iterator[int]:
    """Run a server process on `cpu` that listens on `socket`; yields its pid and terminates it at the end."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})  # inherited by the child and its threads
    try:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    finally:
        os.sched_setaffinity(0, allowed)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`{' '.join(arguments)}` did not start")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


async def measure(socket: Path, pid: int, request: bytes, concurrency: int, seconds: float) -> Round:
    """Drive one server for `seconds` on a fresh connection."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(lambda: LoadClient(request, concurrency), str(socket))
    await client.run(min(1.0, seconds / 4))  # warm up the connection, caches and branch predictors
    cpu, own = cpu_seconds(pid), time.process_time()
    outcome = await client.run(seconds)
    cpu, own = cpu_seconds(pid) - cpu, time.process_time() - own
    client.close()
    if outcome.failures or not outcome.calls:
        raise SystemExit(f"{outcome.failures} of {outcome.calls} calls were not allowed; the measurement is invalid")
    percentiles = statistics.quantiles(outcome.latencies, n=100)
    return Round(
        calls_per_second=outcome.calls / outcome.seconds,
        server_cpu_us=cpu / outcome.calls * 1e6,
        p50_ms=percentiles[49] * 1e3,
        p99_ms=percentiles[98] * 1e3,
        client_busy=own / outcome.seconds,
    )


async def compare(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Run all pairs of rounds and summarize them."""
    what = scenario.build(arguments.case, arguments.policies, directory, arguments.server)
    cpus = sorted(os.sched_getaffinity(0))
    empty_socket = directory / "empty.sock"
    empty = server(["-m", "bench.empty_server", str(empty_socket)], empty_socket, cpus[0])
    full = server(["-m", "zta_authz", "serve", "--config", str(what.config)], what.socket, cpus[0])
    pairs: list[tuple[Round, Round]] = []
    with empty as empty_pid, full as full_pid:
        os.sched_setaffinity(0, {cpus[-1]})
        for number in range(arguments.rounds):
            sides = [(empty_socket, empty_pid), (what.socket, full_pid)]
            order = (0, 1) if number % 2 == 0 else (1, 0)
            results = {
                side: await measure(*sides[side], what.request, arguments.concurrency, arguments.seconds)
                for side in order
            }
            pairs.append((results[0], results[1]))
    return summary(arguments, len(what.request), len(cpus), pairs)


def summary(
    arguments: argparse.Namespace, request_bytes: int, cpus: int, pairs: list[tuple[Round, Round]]
) -> dict[str, object]:
    """Return the medians of both sides and of the ratios of the pairs."""

    def medians(side: int) -> dict[str, float]:
        names = ("calls_per_second", "server_cpu_us", "p50_ms", "p99_ms", "client_busy")
        return {name: round(statistics.median(getattr(pair[side], name) for pair in pairs), 3) for name in names}

    throughput = [full.calls_per_second / empty.calls_per_second for empty, full in pairs]
    cpu = [full.server_cpu_us - empty.server_cpu_us for empty, full in pairs]
    return {
        "case": arguments.case,
        "server": arguments.server,
        "policies": arguments.policies,
        "request_bytes": request_bytes,
        "concurrency": arguments.concurrency,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "cpus": cpus,
        "empty": medians(0),
        "full": medians(1),
        "throughput_ratio": round(statistics.median(throughput), 3),
        "throughput_ratios": [round(ratio, 3) for ratio in throughput],
        "decision_cpu_us": round(statistics.median(cpu), 1),
    }


def show(result: dict[str, object]) -> str:
    """Format the result as a table."""
    lines = [f"{'':8}{'calls/s':>10}{'CPU us/call':>14}{'p50 ms':>10}{'p99 ms':>10}{'client busy':>14}"]
    for name in ("empty", "full"):
        side = result[name]
        assert isinstance(side, dict)
        lines.append(
            f"{name:8}{side['calls_per_second']:>10.0f}{side['server_cpu_us']:>14.1f}"
            f"{side['p50_ms']:>10.2f}{side['p99_ms']:>10.2f}{side['client_busy']:>14.0%}"
        )
    ratios = ", ".join(f"{ratio:.0%}" for ratio in result["throughput_ratios"])  # type: ignore[attr-defined]
    lines.append(f"full / empty throughput: {result['throughput_ratio']:.1%} (median of {ratios}); target {TARGET:.0%}")
    what = f"{result['case']}, {result['policies']} policies, {result['request_bytes']} bytes a request"
    lines.append(f"a decision on `{result['server']}` costs {result['decision_cpu_us']} us of CPU more ({what})")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark. Returns 1 if `--check` is given and the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=scenario.CASES, default="svid", help="the credentials of the caller")
    parser.add_argument("--server", choices=("grpcio", "fast"), default="grpcio", help="the service's transport")
    parser.add_argument("--policies", type=int, default=100, help="number of policies")
    parser.add_argument("--rounds", type=int, default=6, help="pairs of rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of one round")
    parser.add_argument("--concurrency", type=int, default=32, help="calls in flight")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--check", action="store_true", help="fail if the target is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zta-bench-") as directory:
        result = uvloop.run(compare(arguments, Path(directory)))
    print(json.dumps(result, indent=2) if arguments.output == "json" else show(result))
    ratio = result["throughput_ratio"]
    assert isinstance(ratio, float)
    return 1 if arguments.check and ratio < TARGET else 0


if __name__ == "__main__":
    sys.exit(main())

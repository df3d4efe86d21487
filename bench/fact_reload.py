"""Replace an inventory and a list of addresses under traffic: memory, load time, latency, and wrong verdicts.

A real `zta-authz serve` with `server: fast`, a trust model, an inventory, three databases, a list and a classification.
Two clients call at a steady rate: one must be allowed on every call, and one, whose address is on the list, must be
denied on every call. Each round renames new versions over both files and waits until the service has taken them.
Latency counts from the scheduled time of a call, so a stall affects all calls of that time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench import scenario
from bench.fact_cost import ADDRESS, CLIENT, MODELS, USER, write_data
from bench.reload_stall import PacedClient, percentiles, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.reload_stall import Service

LISTED = b"96.0.16.111"
"""An address on the list of `write_data`, as long as that of the allowed client."""
TAKEN = ("device inventory taken", "network data taken")


class Traffic:
    """Calls of both clients, and what was wrong with them. Times are (due, seconds)."""

    def __init__(self, allowed: PacedClient, denied: PacedClient, rate: float) -> None:
        self.allowed, self.denied, self.rate = allowed, denied, rate
        self.wrong = 0

    async def pace(self, done: Callable[[], bool]) -> list[tuple[float, float]]:
        """Send calls of both until `done`; returns the times of the allowed ones."""
        before = self.allowed.failures, self.denied.failures
        times, others = await asyncio.gather(self.allowed.pace(self.rate, done), self.denied.pace(self.rate, done))
        self.wrong += self.allowed.failures - before[0]
        self.wrong += len(others) - (self.denied.failures - before[1])
        return times


def memory_mb(pid: int, field: str) -> float:
    """A field of a process's status, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def prepare(directory: Path, devices: int, prefixes: int) -> scenario.Scenario:
    """Write data, policies and settings, all of which the service reads at its start."""
    data = directory / "data"
    data.mkdir()
    sources = write_data(data, prefixes, devices)
    files = scenario.build("token", 100, directory, server="fast", claims=USER)
    (directory / "policies" / "models.yaml").write_text(MODELS.removeprefix("---\n"))
    settings = json.loads(files.config.read_text()) | {
        "client_address": {"xff_num_trusted_hops": 1},
        "facts": {"directory": str(data)},
        "networks": {
            "country": sources.country,
            "asn": sources.asn,
            "anonymous": sources.anonymous,
            "reputation": [{"file": source.file, "score": source.score} for source in sources.reputation],
            "corporate": ["10.0.0.0/8"],
        },
    }
    files.config.write_text(json.dumps(settings))
    return files


def replace_files(data: Path) -> None:
    """Rename copies of both files over them."""
    for name in ("devices.jsonl", "bad.txt"):
        shutil.copyfile(data / name, data / f"{name}.new")
        (data / f"{name}.new").rename(data / name)


async def client(request: bytes, socket: Path) -> PacedClient:
    """A client with a connection of its own."""
    _, protocol = await asyncio.get_running_loop().create_unix_connection(lambda: PacedClient(request), str(socket))
    return protocol


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed from now on."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


async def rounds(arguments: argparse.Namespace, traffic: Traffic, service: Service, data: Path) -> dict[str, object]:
    """Replace the files again and again, and summarize the calls at rest and during the reloads."""
    rest: list[tuple[float, float]] = []
    during: list[tuple[float, float]] = []
    seconds: list[float] = []
    await traffic.pace(after(1.0))
    for _ in range(arguments.rounds):
        rest += await traffic.pace(after(arguments.seconds))
        expected = {message: service.messages[message] + 1 for message in TAKEN}
        replace_files(data)
        begun = time.perf_counter()
        during += await traffic.pace(lambda: all(service.messages[name] >= expected[name] for name in TAKEN))  # noqa: B023
        seconds.append(time.perf_counter() - begun)
    return {"rest": percentiles(rest), "during": percentiles(during), "reload_seconds": statistics.median(seconds)}


async def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Start the service with all data, and run all rounds."""
    files = prepare(directory, arguments.devices, arguments.prefixes)
    begun = time.perf_counter()
    async with serving(files.config, files.socket) as service:
        started = time.perf_counter() - begun
        pid = service.process.pid
        allowed = await client(files.request.replace(CLIENT, ADDRESS.encode()), files.socket)
        denied = await client(files.request.replace(CLIENT, LISTED), files.socket)
        traffic = Traffic(allowed, denied, arguments.rate / 2)
        at_start = memory_mb(pid, "VmRSS")
        result = await rounds(arguments, traffic, service, directory / "data")
        result |= {
            "start_seconds": started,
            "memory_mb": {"start": at_start, "end": memory_mb(pid, "VmRSS"), "most": memory_mb(pid, "VmHWM")},
            "wrong_verdicts": traffic.wrong,
            "load_average": os.getloadavg()[0],
        }
        allowed.close()
        denied.close()
    return result


def show(result: dict[str, object]) -> str:
    """Format the result."""
    memory = result["memory_mb"]
    assert isinstance(memory, dict)
    lines = [f"{'':8}{'calls':>8}{'p50 ms':>10}{'p99 ms':>10}{'p99 of all':>12}{'worst ms':>10}"]
    for name in ("rest", "during"):
        side = result[name]
        assert isinstance(side, dict)
        lines.append(
            f"{name:8}{side['calls']:>8}{side['p50_ms']:>10.2f}{side['p99_ms']:>10.2f}"
            f"{side['p99_of_all_ms']:>12.2f}{side['max_ms']:>10.2f}"
        )
    lines.append(f"wrong verdicts: {result['wrong_verdicts']}")
    lines.append(
        f"serving {result['start_seconds']:.1f} s after its start; a reload takes {result['reload_seconds']:.1f} s"
    )
    lines.append(
        f"memory: {memory['start']:.0f} MB at first, {memory['end']:.0f} MB later, {memory['most']:.0f} MB at most"
    )
    lines.append(f"load average: {result['load_average']:.1f}")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark. Returns 1 if a verdict was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.fact_reload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--prefixes", type=int, default=220_000)
    parser.add_argument("--rate", type=float, default=400.0, help="calls a second, of both clients together")
    parser.add_argument("--rounds", type=int, default=3, help="reloads")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rest before each reload")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zta-bench-") as directory:
        result = uvloop.run(measure(arguments, Path(directory)))
    print(show(result))
    return 1 if result["wrong_verdicts"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Measure the 99th percentile of latency at rest and during a reload of many rules.

The load on a real `zta-authz serve` is light and steady, over a Unix socket: one call every few milliseconds, without
waiting for the previous response. Latency counts from the scheduled time of a call, so a stall affects all calls of
that time. Each round swaps the policies as the kubelet swaps a ConfigMap. "During" lasts from the swap until the
service has accepted the new policies and released the old ones.

Both phases are divided into windows of half a second. The percentile of a phase is the median over its windows, so that
a short disturbance of the machine does not determine the result.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from bench import scenario
from bench.load import LoadClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TARGET = 2.0
WINDOW_SECONDS = 0.5
LETTING_GO_SECONDS = 1.0
START_SECONDS = 60.0


class PacedClient(LoadClient):
    """Calls at a fixed rate. `times` has the scheduled time and the latency in seconds of each answered call."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request, 0)
        self.times: list[tuple[float, float]] = []
        self.failures = 0
        self._due: dict[int, float] = {}

    async def pace(self, rate: float, done: Callable[[], bool]) -> list[tuple[float, float]]:
        """Send calls until `done`, wait for the responses and return the times of these calls."""
        self.times = []
        due = time.perf_counter()
        while not done():
            self._due[self._next_stream] = due
            self._waiting += 1
            self._send_waiting()
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        async with asyncio.timeout(30):
            while self._started:  # noqa: ASYNC110  the few calls in flight end within milliseconds
                await asyncio.sleep(0.005)
        self.failures += self._outcome.failures
        self._outcome.failures = 0
        return self.times

    def _ended(self, stream: int) -> None:
        due = self._due.pop(stream, None)
        if due is not None:
            self.times.append((due, time.perf_counter() - due))
        super()._ended(stream)


@dataclass(slots=True)
class Service:
    """A running service. `taken` counts the policy sets that it has accepted, `messages` its log lines by text."""

    process: asyncio.subprocess.Process
    taken: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    compiled_seconds: float = 0.0

    def has_taken(self, sets: int) -> bool:
        """Return whether the service has accepted at least this many sets."""
        return self.taken >= sets

    async def listen(self) -> None:
        """Read the log of the service."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            event = json.loads(line) if line.startswith(b"{") else {}
            self.messages[event.get("message", "")] += 1
            if event.get("message") == "policies taken":
                self.taken += 1
                self.compiled_seconds = event["seconds"]


@contextlib.asynccontextmanager
async def serving(config: Path, socket: Path) -> AsyncIterator[Service]:
    """Run `zta-authz serve`; yields when it listens and stops it at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zta_authz", "serve", "--config", str(config)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    service = Service(process)
    listening = asyncio.create_task(service.listen())
    try:
        async with asyncio.timeout(START_SECONDS):
            while not socket.exists():  # noqa: ASYNC110, ASYNC240  nothing signals it, and nothing else runs
                await asyncio.sleep(0.05)
        yield service
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await listening


def publish(mount: Path, version: int, text: str) -> None:
    """Write `text` as the kubelet writes a version of a ConfigMap: a new directory, then a rename of `..data`."""
    folder = mount / f"..version-{version}"
    folder.mkdir(parents=True)
    (folder / "policies.yaml").write_text(text)
    (mount / "..data_tmp").symlink_to(folder.name)
    (mount / "..data_tmp").rename(mount / "..data")
    link = mount / "policies.yaml"
    if not link.is_symlink():
        link.symlink_to("..data/policies.yaml")


def percentiles(times: list[tuple[float, float]]) -> dict[str, float]:
    """Return milliseconds: p50 and the maximum of all calls, and p99 as the median over the windows."""
    windows: dict[int, list[float]] = {}
    for due, took in times:
        windows.setdefault(int(due / WINDOW_SECONDS), []).append(took)
    full = [sorted(window) for window in windows.values() if len(window) >= 20]
    everything = sorted(took for _, took in times)
    return {
        "calls": len(times),
        "p50_ms": round(statistics.median(everything) * 1e3, 3),
        "p99_ms": round(statistics.median(window[int(len(window) * 0.99)] for window in full) * 1e3, 3),
        "p99_of_all_ms": round(everything[int(len(everything) * 0.99)] * 1e3, 3),
        "max_ms": round(everything[-1] * 1e3, 3),
    }


async def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Run all rounds and summarize them."""
    what = scenario.build("svid", arguments.rules, directory)
    mount = directory / "policies"
    text = (mount / "policies.yaml").read_text()
    (mount / "policies.yaml").unlink()
    publish(mount, 0, text)
    rest: list[tuple[float, float]] = []
    during: list[tuple[float, float]] = []
    seconds: list[float] = []
    async with serving(what.config, what.socket) as service:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_unix_connection(lambda: PacedClient(what.request), str(what.socket))
        await client.pace(arguments.rate, _after(1.0))
        for number in range(1, arguments.rounds + 1):
            rest += await client.pace(arguments.rate, _after(arguments.seconds))
            expected_count = service.taken + 1
            publish(mount, number, f"# version {number}\n{text}")
            begun = time.perf_counter()
            during += await client.pace(arguments.rate, partial(service.has_taken, expected_count))
            seconds.append(time.perf_counter() - begun)
            during += await client.pace(arguments.rate, _after(LETTING_GO_SECONDS))
        client.close()
    if client.failures:
        raise SystemExit(f"{client.failures} calls were not allowed; nothing was measured")
    result: dict[str, object] = {"rules": arguments.rules, "rate": arguments.rate, "rounds": arguments.rounds}
    at_rest, reloading = percentiles(rest), percentiles(during)
    ratio = round(reloading["p99_ms"] / at_rest["p99_ms"], 2)
    return result | {
        "rest": at_rest,
        "during": reloading,
        "reload_seconds": round(statistics.median(seconds), 2),
        "ratio": ratio,
        "load_average": round(os.getloadavg()[0], 1),
    }


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


def show(result: dict[str, object]) -> str:
    """Format the result as a table."""
    lines = [f"{'':8}{'calls':>8}{'p50 ms':>10}{'p99 ms':>10}{'p99 of all':>12}{'worst ms':>10}"]
    for name in ("rest", "during"):
        side = result[name]
        assert isinstance(side, dict)
        lines.append(
            f"{name:8}{side['calls']:>8}{side['p50_ms']:>10.2f}{side['p99_ms']:>10.2f}"
            f"{side['p99_of_all_ms']:>12.2f}{side['max_ms']:>10.2f}"
        )
    lines.append(f"p99 during / at rest: {result['ratio']}; target {TARGET}")
    lines.append(f"{result['rules']} rules are in force {result['reload_seconds']} s after the swap")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark. Returns 1 if `--check` is given and the target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rules", type=int, default=10_000, help="policies of one rule each")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=3, help="reloads")
    parser.add_argument("--seconds", type=float, default=4.0, help="of rest before each reload")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--check", action="store_true", help="fail where the target is missed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zta-bench-") as directory:
        result = uvloop.run(measure(arguments, Path(directory)))
    print(json.dumps(result, indent=2) if arguments.output == "json" else show(result))
    ratio = result["ratio"]
    assert isinstance(ratio, float)
    return 1 if arguments.check and ratio > TARGET else 0


if __name__ == "__main__":
    sys.exit(main())

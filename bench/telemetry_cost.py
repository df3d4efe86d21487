"""Measure the cost of telemetry: decision log to a file, metrics and 1 % of traces, compared with none of them.

Both sides are `zta-authz serve` processes with the same policies and request on the same CPU. The collector runs beside
the client. Metrics can't be disabled in the service, so the other side has an observer that does nothing. `--each` also
measures each of the three alone. The result is the CPU time of all threads. Rounds are short and many, so that other
work affects both halves of a pair alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import uvloop

from bench import scenario
from bench.check_throughput import Round, measure, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TARGET = 0.15
"""The target: the maximum cost of all three together, as a fraction of the CPU's capacity."""
PARTS = ("audit", "metrics", "traces")
SAMPLED = 0.01
BARE, FULL = "all off", "all on"


def serve(config: str, parts: Sequence[str]) -> int:
    """Serve with the settings in `config` and an observer for `parts` only."""
    from zta_authz.cli.main import main as zta_authz  # noqa: PLC0415  only the serving side needs it
    from zta_authz.telemetry.metrics import Metrics  # noqa: PLC0415
    from zta_authz.telemetry.observer import TelemetryObserver  # noqa: PLC0415

    def nothing(*_: object) -> None:
        """Do nothing."""

    if "metrics" not in parts:
        Metrics.count = nothing  # type: ignore[assignment, method-assign]
        if "traces" not in parts:
            TelemetryObserver.begin = nothing  # type: ignore[assignment, method-assign]
            TelemetryObserver.observe = nothing  # type: ignore[assignment, method-assign]
    return zta_authz(["serve", "--config", config])


@asynccontextmanager
async def collector() -> AsyncIterator[str]:
    """Run an OTLP collector that accepts and discards everything; yields its endpoint."""

    async def export(_payload: bytes, _context: Any) -> bytes:
        return b""  # an empty ExportTraceServiceResponse: everything accepted

    running = grpc.aio.server()
    handlers: dict[str, Any] = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    running.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await running.stop(0)


def write_settings(what: scenario.Scenario, directory: Path, endpoint: str, parts: Sequence[str]) -> tuple[Path, Path]:
    """Write settings with only `parts` enabled. Returns the file and the socket of the service."""
    directory.mkdir()
    settings = json.loads(what.config.read_text())
    socket = directory / "s"
    settings["listen"] = [f"unix:{socket}"]
    settings["audit"] = (
        {"sink": "file", "path": str(directory / "decisions.jsonl")} if "audit" in parts else {"sink": "none"}
    )
    settings["log"] = {"level": "error"}
    if "traces" in parts:
        settings["tracing"] = {"otlp": {"endpoint": endpoint}, "sample_ratio": SAMPLED}
    config = directory / "config.yaml"
    config.write_text(json.dumps(settings))
    return config, socket


async def compare(arguments: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Run all rounds of all sides and summarize them."""
    what = scenario.build(arguments.case, arguments.policies, directory, arguments.server)
    cpus = sorted(os.sched_getaffinity(0))
    sides: dict[str, tuple[str, ...]] = {BARE: (), FULL: PARTS}
    if arguments.each:
        sides |= {part: (part,) for part in PARTS}
    rounds: dict[str, list[Round]] = {side: [] for side in sides}
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(collector())
        running: dict[str, tuple[Path, int]] = {}
        for number, (side, parts) in enumerate(sides.items()):
            config, socket = write_settings(what, directory / str(number), endpoint, parts)
            command = ["-m", "bench.telemetry_cost", "--serve", str(config), "--parts", ",".join(parts)]
            running[side] = socket, stack.enter_context(server(command, socket, cpus[0]))
        os.sched_setaffinity(0, {cpus[-1]})
        for number in range(arguments.rounds):
            for side in list(sides) if number % 2 == 0 else reversed(sides):
                done = await measure(*running[side], what.request, arguments.concurrency, arguments.seconds)
                rounds[side].append(done)
    return summary(arguments, rounds)


def summary(arguments: argparse.Namespace, rounds: dict[str, list[Round]]) -> dict[str, object]:
    """Return the medians of each side, and of its throughput relative to the side without telemetry."""
    ratios = {
        side: [
            measured.calls_per_second / bare.calls_per_second for measured, bare in zip(done, rounds[BARE], strict=True)
        ]
        for side, done in rounds.items()
        if side != BARE
    }
    names = ("calls_per_second", "server_cpu_us", "p50_ms", "p99_ms")
    return {
        "case": arguments.case,
        "server": arguments.server,
        "policies": arguments.policies,
        "sampled": SAMPLED,
        "sides": {
            side: {name: round(statistics.median(getattr(measured, name) for measured in done), 3) for name in names}
            for side, done in rounds.items()
        },
        "cost": {side: round(1 - statistics.median(values), 3) for side, values in ratios.items()},
        "cpu_cost": {
            side: round(
                1
                - statistics.median(
                    bare.server_cpu_us / measured.server_cpu_us
                    for measured, bare in zip(done, rounds[BARE], strict=True)
                ),
                3,
            )
            for side, done in rounds.items()
            if side != BARE
        },
        "throughput_ratios": {side: [round(ratio, 3) for ratio in values] for side, values in ratios.items()},
    }


def show(result: dict[str, Any]) -> str:
    """Format the result as a table."""
    lines = [f"{'':10}{'calls/s':>10}{'CPU us/call':>14}{'p50 ms':>10}{'p99 ms':>10}{'cost':>8}"]
    for side, figures in result["sides"].items():
        cost = f"{result['cpu_cost'][side]:>8.1%}" if side in result["cpu_cost"] else ""
        lines.append(
            f"{side:10}{figures['calls_per_second']:>10.0f}{figures['server_cpu_us']:>14.1f}"
            f"{figures['p50_ms']:>10.2f}{figures['p99_ms']:>10.2f}{cost}"
        )
    lines.append(f"cost: of the CPU of a call, the median of all rounds; target {TARGET:.0%} at most")
    lines.append(f"all on / all off by calls/s, which other work disturbs: {1 - result['cost'][FULL]:.0%}")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark. Returns 1 if `--check` is given and the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=scenario.CASES, default="svid", help="what the caller presents")
    parser.add_argument("--server", choices=("grpcio", "fast"), default="fast", help="the service's transport")
    parser.add_argument("--policies", type=int, default=100, help="policies in force")
    parser.add_argument("--rounds", type=int, default=24, help="rounds of each side")
    parser.add_argument("--seconds", type=float, default=0.75, help="length of one round")
    parser.add_argument("--concurrency", type=int, default=32, help="calls in flight")
    parser.add_argument("--each", action="store_true", help="measure each of the three alone, too")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--check", action="store_true", help="fail where the target is missed")
    parser.add_argument("--serve", metavar="CONFIG", help=argparse.SUPPRESS)
    parser.add_argument("--parts", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        return serve(arguments.serve, arguments.parts.split(","))
    with tempfile.TemporaryDirectory(prefix="zta-bench-") as directory:
        result: dict[str, Any] = uvloop.run(compare(arguments, Path(directory)))
    print(json.dumps(result, indent=2) if arguments.output == "json" else show(result))
    return 1 if arguments.check and result["cpu_cost"][FULL] > TARGET else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs the comparison: `python -m bench.peers --output results.json`. `report` and `plot` read what it writes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc

from bench.peers import closed, envoys, install, names, report, servers
from bench.peers.paced import LoadError, PacedClient, grpc_headers
from bench.peers.process import cpu_seconds, realtime, resident_mb
from envoy.demo.envoyproc import find_envoy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bench.peers.paced import Paced
    from bench.peers.servers import Running

ALL: Final = (
    names.EMPTY, names.FAST, names.GRPCIO, names.GO, names.OPA_RULES, names.OPA_LIST, names.OPA_KEYED,
    names.OPA_UNCACHED, names.OPA_ENVOY,
)  # fmt: skip
STEADY: Final = (names.EMPTY, names.FAST, names.GRPCIO, names.GO, names.OPA_RULES, names.OPA_ENVOY)
BEHIND_ENVOY: Final = (names.FAST, names.GRPCIO, names.GO, names.OPA_RULES, names.OPA_ENVOY)
_BUSY: Final = 3
"""The ratio of CPU per call of a fast server between single calls and a busy connection, to estimate run lengths."""
_OVERLOADED_SECONDS: Final = 0.5
_T = TypeVar("_T")


def _log(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f}  {text}", file=sys.stderr, flush=True)


def turns(items: Sequence[_T], rounds: int) -> list[list[_T]]:
    """Return the order of items for each round. Each round starts with another item."""
    return [[*items[start:], *items[:start]] for number in range(rounds) for start in [number % max(len(items), 1)]]


def in_turns(
    items: Sequence[_T], rounds: int, name: Callable[[_T], str], measure: Callable[[_T], Any]
) -> dict[str, list[dict[str, float]]]:
    """Run all rounds and return the results by the name of the item."""
    results: dict[str, list[dict[str, float]]] = {name(item): [] for item in items}
    for turn in turns(items, rounds):
        for item in turn:
            results[name(item)].append(measure(item))
    return results


def closed_loop(
    arguments: argparse.Namespace, case: str, rules: int, in_flight: int, cpus: list[int]
) -> dict[str, Any]:
    """Measure the maximum throughput of each server."""
    with tempfile.TemporaryDirectory(prefix="zta-peers-") as name:
        directory = Path(name)
        trial = servers.prepare(case, rules, directory, ALL)
        with servers.started(trial.peers, directory, cpus[0]) as running:
            alone = {server.peer.name: servers.verify(server, trial) for server in running}
            load = os.getloadavg()[0]

            def measure(server: Running) -> dict[str, float]:
                calls = max(_BUSY * arguments.seconds / alone[server.peer.name], 4 * in_flight)
                return asdict(closed.measure(server.socket, server.child.pid, trial.request, int(calls), in_flight))

            with realtime(_pids(running), enabled=arguments.realtime):
                rounds = in_turns(running, arguments.rounds, lambda server: server.peer.name, measure)
            memory = {server.peer.name: round(resident_mb(server.child.pid)) for server in running}
    _log(f"closed loop, {case}, {rules} rules, {in_flight} in flight: done")
    return {
        "case": case, "rules": rules, "in_flight": in_flight, "request_bytes": len(trial.request), "load": load,
        "resident_mb": memory, "rounds": rounds,
    }  # fmt: skip


def open_loop(arguments: argparse.Namespace, case: str, rules: int, cpus: list[int]) -> list[dict[str, Any]]:
    """Measure latencies and CPU at fixed rates."""
    results = []
    with tempfile.TemporaryDirectory(prefix="zta-peers-") as name:
        directory = Path(name)
        trial = servers.prepare(case, rules, directory, STEADY)
        with servers.started(trial.peers, directory, cpus[0]) as running:
            for server in running:
                servers.verify(server, trial)
            for rate in arguments.rates:
                load = os.getloadavg()[0]

                def measure(server: Running, rate: float = rate) -> dict[str, float]:
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.connect(str(server.socket))
                        client = PacedClient(sock, grpc_headers(), trial.request)
                        client.run(rate, 0.3)
                        cpu = cpu_seconds(server.child.pid)
                        seen = client.run(rate, arguments.open_seconds)
                        cpu = cpu_seconds(server.child.pid) - cpu
                    return _figures(seen) | {"cpu_us": cpu / len(seen.latencies) * 1e6}

                with realtime(_pids(running), enabled=arguments.realtime):
                    rounds = in_turns(running, arguments.rounds, lambda server: server.peer.name, measure)
                results.append({"case": case, "rules": rules, "rate": rate, "load": load, "rounds": rounds})
                _log(f"open loop, {case}, {rules} rules, {rate:g} a second: done")
    return results


def _figures(seen: Paced) -> dict[str, float]:
    if seen.failures:
        raise SystemExit(f"{seen.failures} of {len(seen.latencies)} requests were not allowed")
    cuts = statistics.quantiles(seen.latencies, n=1000)
    late = statistics.quantiles(seen.late, n=100)
    return {
        "p50_ms": cuts[499] * 1e3, "p99_ms": cuts[989] * 1e3, "p999_ms": cuts[998] * 1e3, "late_p99_ms": late[98] * 1e3,
    }  # fmt: skip


def through_envoy(arguments: argparse.Namespace, rules: int, cpus: list[int]) -> dict[str, Any]:
    """Measure the latency that each check adds to a request at a fixed rate."""
    with tempfile.TemporaryDirectory(prefix="zta-peers-") as name, ExitStack() as stack:
        directory = Path(name)
        trial = envoys.prepare(rules, directory, BEHIND_ENVOY)
        running = stack.enter_context(servers.started(trial.peers, directory, cpus[0]))
        proxies = stack.enter_context(envoys.proxies(trial, running, directory, cpus[-1]))
        headers = envoys.request_headers(trial)
        load = os.getloadavg()[0]

        def measure(proxy: envoys.Proxy) -> dict[str, float]:
            client = proxy.connect(directory, headers)
            client.run(arguments.envoy_rate, 0.5)
            before = proxy.cpu_seconds()
            seen = client.run(arguments.envoy_rate, arguments.envoy_seconds)
            after = proxy.cpu_seconds()
            client.close()
            calls = len(seen.latencies)
            envoy, server = ((new - old) / calls * 1e6 for new, old in zip(after, before, strict=True))
            return _figures(seen) | {"envoy_cpu_us": envoy, "server_cpu_us": server}

        able = [proxy for proxy in proxies if _keeps_up(proxy, directory, headers, arguments.envoy_rate)]
        pids = [*_pids(running), *(proxy.child.pid for proxy in proxies)]
        with realtime(pids, enabled=arguments.realtime):
            rounds = in_turns(able, arguments.envoy_rounds, lambda proxy: proxy.name, measure)
    _log(f"through Envoy, {rules} rules: done")
    overloaded = [proxy.name for proxy in proxies if proxy not in able]
    return {"rules": rules, "rate": arguments.envoy_rate, "load": load, "rounds": rounds, "overloaded": overloaded}


def _keeps_up(proxy: envoys.Proxy, directory: Path, headers: Mapping[str, str], rate: float) -> bool:
    """Return whether the server sustains this rate in a short run, which also warms it up."""
    client = proxy.connect(directory, headers)
    try:
        latencies = client.run(rate, 1.0).latencies
    except LoadError:
        return False
    finally:
        client.close()
    return latencies[-1] < _OVERLOADED_SECONDS


def _pids(running: Sequence[Running]) -> list[int]:
    return [server.child.pid for server in running]


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return "not here"
    return (done.stdout + done.stderr).strip()


def about(arguments: argparse.Namespace, cpus: list[int]) -> dict[str, Any]:
    """Return the machine, the versions and the arguments."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    modules = _output("go", "-C", str(install.HERE / "opaauthz"), "list", "-m", "all")
    go = {
        name: version[1]
        for name in report.GO_MODULES
        if (version := re.search(rf"^{name} (\S+)", modules, re.MULTILINE))
    }
    envoy = find_envoy()
    return {
        "commit": _output("git", "-C", str(install.HERE), "rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": model[1] if model else platform.machine(),
        "cpus": len(cpus),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "go": _output("go", "env", "GOVERSION"),
        "modules": go,
        "envoy": version[1]
        if envoy and (version := re.search(r"/(\d+\.\d+\.\d+)/", _output(str(envoy), "--version")))
        else "",
        "closed loop client": _output("h2load", "--version")
        if closed.client_name() == "h2load"
        else closed.client_name(),
        "missing": {name: library.reason for name, library in install.installed().items() if library.path is None},
        "arguments": {name: value for name, value in vars(arguments).items() if name != "output"},
    }


def run(arguments: argparse.Namespace, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run all phases, and call `save` with the results after each."""
    cpus = sorted(os.sched_getaffinity(0))
    result: dict[str, Any] = {"about": about(arguments, cpus), "closed": [], "open": [], "envoy": []}
    missing = envoys.available()
    os.sched_setaffinity(0, {cpus[-1]})  # clients run here, servers on the first CPU
    for rules in arguments.rules:
        for case in arguments.cases:
            result["closed"].append(closed_loop(arguments, case, rules, closed.IN_FLIGHT, cpus))
            save(result)
    if "closed-1" in arguments.phases:
        result["closed"].append(closed_loop(arguments, "token", 1000, 1, cpus))
        save(result)
    if "open" in arguments.phases:
        for case in arguments.cases:
            result["open"] += open_loop(arguments, case, 1000, cpus)
            save(result)
    if missing:
        result["about"]["missing"]["envoy"] = missing
    elif "envoy" in arguments.phases:
        for rules in arguments.envoy_rules:
            result["envoy"].append(through_envoy(arguments, rules, cpus))
            save(result)
    return result


def main() -> None:
    """Measure, write the results and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rules", type=int, nargs="*", default=[10, 1000, 10_000], help="rule counts, closed loop")
    parser.add_argument("--cases", nargs="+", choices=("principal", "token"), default=["principal", "token"])
    parser.add_argument("--phases", nargs="+", default=["closed-1", "open", "envoy"], help="besides the closed loop")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each, closed and open loop")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a closed-loop round, about")
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1000, 2000], help="calls a second, open loop")
    parser.add_argument("--open-seconds", type=float, default=3.0, help="length of an open-loop round")
    parser.add_argument("--envoy-rules", type=int, nargs="+", default=[10, 1000], help="rule counts behind Envoy")
    parser.add_argument("--envoy-rate", type=float, default=1000.0, help="requests a second through Envoy")
    parser.add_argument("--envoy-rounds", type=int, default=7, help="rounds of each configuration")
    parser.add_argument("--envoy-seconds", type=float, default=4.0, help="length of a round through Envoy")
    parser.add_argument(
        "--realtime", action="store_true", help="go before other work on the machine (SCHED_RR; as root)"
    )
    parser.add_argument("--output", type=Path, help="where to write the figures (JSON)")
    arguments = parser.parse_args()

    def save(result: dict[str, Any]) -> None:
        if arguments.output:
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")

    result = run(arguments, save)
    save(result)
    print(report.text(result))


if __name__ == "__main__":
    main()

"""`make soak`: everything that goes wrong in a week, in ten minutes, under steady load through the real Envoy.

    SOAK_SECONDS=600 ZTA_ENVOY=... python -m tests.soak.run

Two workers. Meanwhile: new policies every second, one set in five broken on purpose; the login's keys are replaced;
the collector of spans dies and returns; a worker is killed. Each verdict is compared with what `oracle` says may be.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from envoy.demo.stack import StackOptions, running
from envoy.demo.tokens import AUDIENCE
from tests.soak.collector import Collector
from tests.soak.load import Load, resident_kib, under, worker_pids
from tests.soak.oracle import Keys, Oracle, Policies
from tests.support.issuer import KEYS, issuer_in_thread

if TYPE_CHECKING:
    from envoy.demo.stack import Stack
    from tests.soak.load import Answered
    from tests.support.issuer import IssuerServer

KEY_SECONDS = 10.0
COLLECTOR_SECONDS = 7.0
KILL_SECONDS = 20.0
TIMEOUT = timedelta(seconds=1)
WARM_UP = 0.4
"""The part of the run after which memory should be flat."""
SLOPE_FROM_SECONDS = 300.0
MAX_SLOPE_KIB_PER_MINUTE = 4096.0


class Soak:
    """One run."""

    def __init__(self, directory: Path, seconds: float, server: IssuerServer) -> None:
        self.seconds = seconds
        self.directory = directory
        self.policies = Policies(directory / "generations")
        self.keys = Keys(lambda content: server.say(KEYS, content))
        self.oracle = Oracle(self.policies, self.keys, random.Random(5))
        self.collector = Collector()
        self.memory: list[tuple[float, int]] = []
        self.kills = 0
        self.login = self._write_login(server.url(KEYS))

    def _write_login(self, url: str) -> Path:
        path = self.directory / "login.yaml"
        rule = {"issuer": "https://login.hatshop.example", "audiences": [AUDIENCE], "jwksUri": url}
        metadata = {"name": "hatshop-login", "namespace": "default"}
        document = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata}
        path.write_text(json.dumps({**document, "spec": {"jwtRules": [rule]}}))
        return path

    def options(self) -> StackOptions:
        root = self.directory / "stack" / "policies"
        given = [root / "trust-bundle.yaml", root / "hatshop.yaml"]
        settings = {
            "policies": [str(path) for path in (self.login, self.policies.directory, *given)],
            "reload": {"poll_seconds": 0.2, "debounce_seconds": 0.05},
            "tracing": {"otlp_endpoint": self.collector.url, "protocol": "http"},
            "health": {"listen": "127.0.0.1:0"},
            "jwks": {
                **dict.fromkeys(("allow_http", "allow_private_addresses"), True),
                **dict.fromkeys(("refresh_seconds", "min_refresh_seconds", "unknown_kid_seconds"), 1.0),
            },
        }
        return StackOptions(workers=2, authz_timeout=TIMEOUT, settings=settings)

    def run(self) -> list[str]:
        """What went wrong, in words; the measurements are printed."""
        with running(self.directory / "stack", self.options()) as stack, ExitStack() as cleanup:
            cleanup.callback(self.collector.stop)
            load = Load(stack, self.oracle.question)
            with under(load):
                self._disturb(stack)
                time.sleep(1.0)
            failed = stack.envoy.counter("http.ingress.ext_authz.error")
        wrong = [each for each in load.answered if not self.oracle.may(each)]
        self._report(load, failed, wrong)
        return self._faults(load, failed, wrong)

    def _disturb(self, stack: Stack) -> None:
        """Until the time is over."""
        began = time.monotonic()
        steady = worker_pids(stack)[-1]  # the one that is never killed
        due = {"keys": KEY_SECONDS, "collector": COLLECTOR_SECONDS, "kill": min(KILL_SECONDS, self.seconds / 2)}
        while (elapsed := time.monotonic() - began) < self.seconds:
            self.policies.next()
            self.memory.append((elapsed, resident_kib(steady)))
            if elapsed >= due["keys"]:
                due["keys"] += KEY_SECONDS
                self.keys.next()
            if elapsed >= due["collector"]:
                due["collector"] += COLLECTOR_SECONDS
                self.collector.toggle()
            if elapsed >= due["kill"]:
                due["kill"] += KILL_SECONDS
                victims = [pid for pid in worker_pids(stack) if pid != steady]
                for pid in victims[:1]:
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1
            time.sleep(1.0)

    def slope(self) -> float:
        """KiB a minute that the steady worker grows by after the warm-up: least squares."""
        flat = [(at, size) for at, size in self.memory if at >= WARM_UP * self.seconds and size]
        if len(flat) < 3:
            return 0.0
        mean_at, mean_size = (sum(column) / len(flat) for column in zip(*flat, strict=True))
        spread = sum((at - mean_at) ** 2 for at, _ in flat)
        return float(60 * sum((at - mean_at) * (size - mean_size) for at, size in flat) / spread)

    def _report(self, load: Load, failed: int, wrong: list[Answered]) -> None:
        times = sorted(each.ended - each.sent for each in load.answered)
        lines = (
            (
                f"{self.seconds:.0f} s, {len(load.answered)} requests, {len(load.unanswered())} without a decision "
                f"(Envoy counted {failed})"
            ),
            (
                f"{self.policies.written} sets of policies, {self.policies.broken} of them broken; "
                f"{self.keys.rotations} rotations of keys; {self.kills} workers killed; "
                f"{self.collector.deaths} deaths of the collector, {self.collector.received} exports received"
            ),
            f"wrong verdicts: {len(wrong)}; could be told exactly: {self.oracle.exact} of {len(load.answered)}",
            f"median {times[len(times) // 2] * 1000:.1f} ms, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms",
            (
                f"memory of the worker that lived: {self.memory[-1][1] / 1024:.0f} MiB, {self.slope():+.0f} KiB a minute "
                f"over the last {self.seconds * (1 - WARM_UP):.0f} s"
            ),
        )
        sys.stdout.write("\n".join(lines) + "\n")

    def _faults(self, load: Load, failed: int, wrong: list[Answered]) -> list[str]:
        faults = [f"wrong: {each}" for each in wrong[:20]]
        faults += [f"connection: {text}" for text in load.broken[:5]]
        if len(load.unanswered()) != failed:
            faults.append(f"{len(load.unanswered())} requests had no decision, but Envoy counted {failed}")
        if len(load.unanswered()) > 3 * self.kills:
            faults.append(f"{len(load.unanswered())} requests had no decision, with {self.kills} workers killed")
        if self.seconds >= SLOPE_FROM_SECONDS and self.slope() > MAX_SLOPE_KIB_PER_MINUTE:
            faults.append(f"memory grows by {self.slope():.0f} KiB a minute")
        return faults


def soak(directory: Path, seconds: float) -> list[str]:
    """Run it for `seconds` in `directory`; what went wrong."""
    with issuer_in_thread() as server:
        return Soak(directory, seconds, server).run()


def main() -> int:
    """0 if nothing went wrong."""
    with tempfile.TemporaryDirectory() as directory:
        faults = soak(Path(directory), float(os.environ.get("SOAK_SECONDS", "600")))
    sys.stdout.write("".join(f"FAULT {fault}\n" for fault in faults) or "nothing went wrong\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

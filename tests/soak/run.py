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
import urllib.request
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from envoy.demo.stack import StackOptions, running
from envoy.demo.tokens import AUDIENCE
from tests.soak.collector import Collector
from tests.soak.load import Load, resident_kib, under, worker_pids
from tests.soak.oracle import Keys, Oracle, Policies
from tests.soak.report import IN_FLIGHT, Late, Result
from tests.support.issuer import KEYS, issuer_in_thread

if TYPE_CHECKING:
    from envoy.demo.stack import Stack
    from tests.support.issuer import IssuerServer

KEY_SECONDS = 10.0
COLLECTOR_SECONDS = 7.0
KILL_SECONDS = 20.0
TIMEOUTS = ("cluster.zta_authz.upstream_rq_timeout", "cluster.zta_authz.upstream_rq_per_try_timeout")
"""Envoy's counters of calls, and of tries, that it waited for in vain."""
TIMEOUT = timedelta(seconds=1)


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
            "tracing": {"otlp": {"endpoint": self.collector.url, "protocol": "http"}},
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
            load = Load(stack, self.oracle.question, IN_FLIGHT)
            with under(load):
                self._disturb(stack)
                time.sleep(1.0)
            undecided = stack.envoy.counter("http.ingress.ext_authz.error")
            late = Late.told(self._metrics(stack), *map(stack.envoy.counter, TIMEOUTS))
        result = self._judge(load, undecided, late)
        sys.stdout.write(result.table())
        return list(result.faults())

    @staticmethod
    def _metrics(stack: Stack) -> str:
        """Of all workers together."""
        lines = (stack.layout.root / "zta-authz.log").read_text().splitlines()  # a killed worker may leave half of one
        [address] = {json.loads(line)["health"] for line in lines if '"message": "all workers serve"' in line}
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            text: str = page.read().decode()
            return text

    def _judge(self, load: Load, undecided: int, late: Late) -> Result:
        wrong = [each for each in load.answered if not self.oracle.may(each)]
        events = (
            ("sets of policies", self.policies.written),
            ("  broken on purpose", self.policies.broken),
            ("rotations of keys", self.keys.rotations),
            ("workers killed", self.kills),
            ("deaths of the collector", self.collector.deaths),
            ("  exports it received", self.collector.received),
        )
        return Result(
            seconds=self.seconds,
            answered=load.answered,
            wrong=wrong,
            exact=self.oracle.exact,
            undecided=undecided,
            broken=load.broken,
            late=late,
            memory=self.memory,
            kills=self.kills,
            events=events,
        )

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

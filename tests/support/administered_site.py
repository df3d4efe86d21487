"""A site of real processes for tests of failures: administrators over one store, and decision points that follow them."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from envoy.demo.authz_connection import free_port
from tests.attack.test_access import CHECK, LOGIN, POLICIES, Answer, bearer
from tests.support.check_requests import check_request
from tests.support.service import RunningService, run_cli
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path


class Process:
    """A process of the site with its own sockets and logs. `name` begins with `administrator` or `point`."""

    def __init__(self, directory: Path, name: str, administrator: str, store: str) -> None:
        self.name = name
        self.directory = directory
        self.health = free_port()
        self.command = "administer" if name.startswith("administrator") else "serve"
        self.config = directory / f"{name}.yaml"
        self.config.write_text(
            f'listen: ["unix:{directory}/{name}.authz"]\n'
            f"policies: [{directory}/policies]\n"
            "peer: {trust_proxy: true, verify_certificate: never}\n"
            f'health: {{listen: "127.0.0.1:{self.health}"}}\n'
            f"audit: {{sink: file, path: {directory}/{name}.decisions.jsonl}}\n"
            "administrator:\n"
            f'  follow: "unix:{directory}/{administrator}.views"\n'
            f'  store: {{url: "{store}"}}\n'
            f"  access_log: {{path: {directory}/{name}.access.jsonl}}\n"
            f'  views: {{listen: ["unix:{directory}/{name}.views"]}}\n'
            f'  operations: {{http: ["unix:{directory}/{name}.http"]}}\n'
        )
        self.running: RunningService | None = None

    def start(self) -> None:
        """Start the process, and return at once."""
        self.running = RunningService(self.config, command=self.command)

    def kill(self) -> None:
        """End the process as a crash would."""
        if self.running is not None:
            self.running.process.kill()
            self.running.process.communicate()
            self.running = None

    async def is_ready(self) -> tuple[bool, str]:
        """Whether `/readyz` says so, and its whole answer. (False, "") if nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session,
                session.get(f"http://127.0.0.1:{self.health}/readyz") as answer,
            ):
                return answer.status == 200, await answer.text()
        except (OSError, TimeoutError):
            return False, ""

    async def comes_to_be_ready(self, *, ready: bool = True, seconds: float = 45.0) -> str:
        """Wait until the process is ready, or no longer is. Returns what `/readyz` says."""
        deadline = time.monotonic() + seconds
        while (state := await self.is_ready())[0] is not ready:
            assert time.monotonic() < deadline, state[1] or (self.running and self.running.logs())
            await asyncio.sleep(0.02)
        return state[1]

    async def call(self, path: str, fields: Any, person: str, seconds: float = 10.0) -> Answer:
        """Call this administrator's HTTP API by POST."""
        connector = aiohttp.UnixConnector(str(self.directory / f"{self.name}.http"))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(seconds)) as session,
            session.post(f"http://site{path}", json=fields, headers={"Authorization": bearer(person)}) as got,
        ):
            return Answer(got.status, await got.json(content_type=None))

    async def request(self, person: str) -> dict[str, Any]:
        """A person asks for an hour of `default/db`."""
        fields = {"entitlement": "default/db", "duration": "1h", "reason": "INC-1"}
        answer = await self.call("/access/requests", fields, person)
        assert answer.status == 200, answer
        request: dict[str, Any] = answer.fields
        return request

    async def grant(self, person: str) -> dict[str, Any]:
        """A person asks, and Mary approves."""
        request = await self.request(person)
        answer = await self.call(
            f"/access/requests/{request['id']}/approve", {"scope_sha256": request["scope_sha256"]}, "mary"
        )
        assert answer.status == 200, answer
        approved: dict[str, Any] = answer.fields
        return approved

    async def revoke(self, person: str) -> str:
        """Olga revokes a person. Returns the ID."""
        answer = await self.call("/revocations", revocation_of(person), "olga")
        assert answer.status == 200, answer
        return str(answer.fields["id"])


def revocation_of(person: str) -> dict[str, str]:
    """The fields that revoke a person."""
    return {"what": "subject", "value": person, "issuer": LOGIN, "reason": "INC-2"}


class Callers:
    """Clients of a decision point, who know what each answer must be."""

    def __init__(self, point: Process) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{point.directory}/{point.name}.authz")
        self._messages: dict[str, bytes] = {}
        self._check = self._channel.unary_unary(CHECK)

    async def check(self, person: str) -> str:
        """What the decision point says to a person: "" for an allow, else the reason."""
        message = self._messages.get(person)
        if message is None:
            token = bearer(person, exp=int(time.time()) + 7200).encode()
            message = self._messages[person] = check_request([("authorization", token)]).SerializeToString()
        response = CheckResponse.FromString(await self._check(message, timeout=10))
        return "" if response.status.code == 0 else response.status.message

    async def comes_to(self, person: str, expected: str, seconds: float = 10.0) -> float:
        """Ask until the answer is `expected`. Returns the seconds that this took."""
        began = time.monotonic()
        while (answer := await self.check(person)) != expected:
            assert time.monotonic() - began < seconds, answer
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()


@dataclass
class Load:
    """Checks at a steady pace. `expected` has the right answer for each person: any other one is wrong."""

    callers: Callers
    expected: Mapping[str, str]
    per_second: int = 100
    latencies: list[float] = field(default_factory=list)
    wrong: list[tuple[float, str, str]] = field(default_factory=list)
    """The seconds since the beginning, the person and the answer."""

    async def run(self, seconds: float) -> None:
        """Ask for so long."""
        people, number, began = list(self.expected), 0, time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            person = people[number % len(people)]
            asked = time.monotonic()
            answer = await self.callers.check(person)
            self.latencies.append(time.monotonic() - asked)
            if answer != self.expected[person]:
                self.wrong.append((now, person, answer))
            number += 1
            await asyncio.sleep(max(0.0, number / self.per_second - now))

    def figures(self) -> str:
        """The figures for `docs/failures.md`."""
        ordered = sorted(self.latencies)
        half, most = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
        return f"{len(ordered)} checks, {len(self.wrong)} wrong, p50 {half * 1000:.1f} ms, p99 {most * 1000:.1f} ms"


class Site:
    """The processes of a directory. Stop them with `close`."""

    def __init__(self, directory: Path, store: str) -> None:
        self.directory = directory
        self.store = store
        (directory / "policies").mkdir()
        (directory / "policies" / "all.yaml").write_text(POLICIES)
        self.processes: list[Process] = []

    def add(self, name: str, administrator: str = "administrator1", store: str = "") -> Process:
        """Add a process, and start it."""
        process = Process(self.directory, name, administrator, store or self.store)
        self.processes.append(process)
        process.start()
        return process

    def verify(self, *administrators: str) -> subprocess.CompletedProcess[str]:
        """`zta-authz audit verify` over all decision logs and the access logs of `administrators`."""
        decisions = sorted(str(file) for file in self.directory.glob("*.decisions.jsonl*") if file.suffix != ".lock")
        logs = [f"--access-log={self.directory}/{name}.access.jsonl" for name in administrators]
        return run_cli("audit", "verify", *decisions, *logs)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The access events in the log of an administrator."""
        lines = (self.directory / f"{name}.access.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["schema"] == "zta.dev/access-event/v1"]

    def close(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            process.kill()

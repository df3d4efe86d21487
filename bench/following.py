"""Measure how fast a change of the administrator is in force, and what following costs a decision point.

`changes`: one administrator and 1,000 followers with the real code of both sides, in processes of their own. The time
of a change counts from before its commit (which is on the disk) until it is applied in a follower.

`load`: two real `zta-authz serve` decide the same requests in turns, a second each. One of them follows an
administrator with 10,000 grants, 100,000 revocations and 100 changes a second, and decides by a grant. The changes go
on in both turns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench import scenario
from bench.reload_stall import PacedClient, percentiles, serving
from zta_authz.administrator.follow_service import FollowService
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.view_items import GrantItem, RevocationItem, SubjectItem, encode_item
from zta_authz.administrator.views_servers import views_servers
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following.client import Follower
from zta_authz.following.connection import TlsTunnel, UnixConnection
from zta_authz.following.tls import AdministratorTls, IdentityFiles
from zta_authz.following.views import FollowedViews
from zta_authz.model.facts import FactSlot
from zta_authz.policy_sources.pacing import collect_rarely
from zta_authz.servers.descriptors import raise_descriptor_limit
from zta_authz.servers.listeners import SocketAccess
from zta_authz.servers.tls import MutualTls
from zta_authz.settings.administrator_model import ViewsSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from zta_authz._proto import administrator_pb2 as pb
    from zta_authz.administrator.store.port import Store

ADMINISTRATOR = "spiffe://cluster.local/ns/zta/sa/administrator"
POINT = "spiffe://cluster.local/ns/shop/sa/point"
TARGET_MS = 1000.0
COMMIT_ITEMS = 250
TURN_SECONDS = 1.0
GRANTS = """
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {name: orders, namespace: default}
spec:
  who: [{source: {namespaces: [default]}}]
  maxDuration: 4h
  approvers: [{from: [{source: {principals: ["*"]}}]}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: orders, namespace: default}
spec: {rules: [{to: [{operation: {methods: [GET], paths: ["/orders/*"]}}], require: {grant: orders}}]}
"""


class TimedViews(FollowedViews):
    """Notes, for each revocation of a clock's value, the time from that value until it is applied, in milliseconds."""

    def __init__(self, delays: list[float]) -> None:
        super().__init__(FactSlot(), DynamicRevocations(), 600.0)
        self._delays = delays

    def apply(self, update: pb.ViewUpdate, now: float) -> None:
        """Apply, then note the times."""
        super().apply(update, now)
        applied = time.monotonic_ns()
        if self.is_complete and not update.full:
            self._delays += [
                (applied - int(item.revocation.value)) / 1e6 for item in update.put if item.revocation.value.isdigit()
            ]


def timed() -> dict[str, bytes]:
    """A revocation whose value is the time now."""
    item = RevocationItem(f"t{time.monotonic_ns()}", "token", str(time.monotonic_ns()), until=time.time() + 3600)
    return {item.key: encode_item(item)}


def items(grants: int, revocations: int) -> Iterator[dict[str, bytes]]:
    """Commits with a grant of the frontend, further grants, and revocations of others."""
    end = time.time() + 4 * 3600
    holders = [SubjectItem(spiffe_id=scenario.FRONTEND)]
    holders += [SubjectItem("https://idp.example", f"person-{number}") for number in range(1, grants)]
    made: list[GrantItem | RevocationItem] = [
        GrantItem(f"g{number}", "default/orders", holder, 0.0, end) for number, holder in enumerate(holders[:grants])
    ]
    kinds = ("session", "subject", "serial", "spiffe id")
    made += [
        RevocationItem(f"r{number}", kinds[number % 4], f"value-{number}", issuer="https://idp.example")
        for number in range(revocations)
    ]
    for start in range(0, len(made), COMMIT_ITEMS):
        yield {item.key: encode_item(item) for item in made[start : start + COMMIT_ITEMS]}


def write_identity(directory: Path, name: str, spiffe_id: str, authority: ec.EllipticCurvePrivateKey) -> None:
    """Write an X.509-SVID and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = scenario.certificate(spiffe_id, key, authority)
    (directory / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / f"{name}.key").write_bytes(private)


@contextlib.asynccontextmanager
async def administrator(directory: Path, *, tls: bool) -> AsyncIterator[tuple[Store, FollowService, str]]:
    """Publish a store's view; the last value is the address."""
    store = await SqliteStore.open(str(directory / "store.sqlite"))
    await store.epoch()
    view = PublishedView(store)
    await view.start()
    service = FollowService(view)
    mutual, section = None, ViewsSettings(listen=(f"unix:{directory}/views.sock",))
    if tls:
        section = ViewsSettings(listen=("127.0.0.1:0",), allowed_spiffe_ids=(POINT,))
        mutual = MutualTls(
            *(str(directory / name) for name in ("administrator.pem", "administrator.key", "ca.pem")), ()
        )
    servers = views_servers(section, mutual, SocketAccess(), service)
    (address,) = await servers.start()
    try:
        yield store, service, str(address)
    finally:
        await servers.stop(0)
        await view.close()
        await store.close()


async def administer(directory: Path, followers: int, commits: int, rate: float, *, tls: bool) -> None:
    """Publish, wait for the followers, and commit at `rate` a second. Prints the address, then a summary."""
    async with administrator(directory, tls=tls) as (store, service, address):
        print(address, flush=True)
        begun = time.monotonic()
        while service.followers < followers:  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0.05)
        connected = time.monotonic() - begun
        await asyncio.sleep(1.0)
        due, took, used = time.monotonic(), [], time.process_time()
        for _ in range(commits):
            started = time.monotonic()
            await store.commit(Change(put=timed()))
            took.append((time.monotonic() - started) * 1e3)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.sleep(3.0)
        summary = {
            "connected_s": round(connected, 1),
            "commit_ms": round(statistics.median(took), 1),
            "administrator_cpu_ms_per_change": round((time.process_time() - used) * 1e3 / commits, 1),
        }
        print(json.dumps(summary), flush=True)


async def follow(directory: Path, address: str, count: int, *, tls: bool) -> None:
    """Follow `count` times until standard input ends, then print all delays."""
    delays: list[float] = []
    followers = []
    for number in range(count):
        files = IdentityFiles(*(str(directory / name) for name in ("point.pem", "point.key", "ca.pem")))
        host, _, port = address.rpartition(":")
        way = (
            TlsTunnel(host, int(port), AdministratorTls(files, (ADMINISTRATOR,)))
            if tls
            else UnixConnection(address.removeprefix("unix:"))
        )
        followers.append(Follower(way, TimedViews(delays), f"bench/{number}"))
        followers[-1].start()
        await asyncio.sleep(0.005)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(delays), flush=True)
    for follower in followers:
        await follower.close()


async def start(role: str, directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """Start a process of this benchmark."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.following", "--role", role, "--directory", str(directory), *arguments)
    environment = os.environ | {"GRPC_VERBOSITY": "NONE"}
    return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment, limit=2**28)


async def measure_changes(chosen: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Run the administrator and its followers, and summarize the delays."""
    authority = ec.generate_private_key(ec.SECP256R1())
    (directory / "ca.pem").write_bytes(scenario.certificate("ca", authority, authority).public_bytes(Encoding.PEM))
    write_identity(directory, "administrator", ADMINISTRATOR, authority)
    write_identity(directory, "point", POINT, authority)
    common = ("--tls",) if chosen.tls else ()
    numbers = ("--followers", str(chosen.followers), "--commits", str(chosen.commits), "--rate", str(chosen.rate))
    central = await start("administrator", directory, *common, *numbers)
    assert central.stdout is not None
    address = (await central.stdout.readline()).decode().strip()
    share = -(-chosen.followers // chosen.processes)
    counts = [min(share, chosen.followers - share * number) for number in range(chosen.processes)]
    hosts = [
        await start("followers", directory, *common, "--address", address, "--followers", str(count))
        for count in counts
    ]
    summary = json.loads(await central.stdout.readline())
    delays: list[float] = []
    for host in hosts:
        output, _ = await host.communicate(b"")
        delays += json.loads(output)
    await central.wait()
    delays.sort()
    expected = chosen.followers * chosen.commits
    return summary | {
        "followers": chosen.followers,
        "changes": chosen.commits,
        "rate": chosen.rate,
        "tls": chosen.tls,
        "missing": expected - len(delays),
        "p50_ms": round(delays[len(delays) // 2], 1),
        "p99_ms": round(delays[int(len(delays) * 0.99)], 1),
        "max_ms": round(delays[-1], 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


async def measure_load(chosen: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Run two decision points in turns, one of which follows."""
    sides = {}
    for name in ("without", "following"):
        (directory / name).mkdir()
        sides[name] = scenario.build("svid", chosen.policies, directory / name, "fast")
    followed = sides["following"]
    settings = json.loads(followed.config.read_text())
    settings["administrator"] = {"follow": f"unix:{directory}/views.sock"}
    followed.config.write_text(json.dumps(settings))
    policies = directory / "following" / "policies" / "policies.yaml"
    deciding = '"name": "orders"'
    documents = [text for text in policies.read_text().split("\n---\n") if deciding not in text]
    policies.write_text("\n---\n".join([*documents, GRANTS]))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    async with administrator(directory, tls=False) as (store, _, _):
        for change in items(chosen.grants, chosen.revocations):
            await store.commit(Change(put=change))
    central = await start("events", directory, "--rate", str(chosen.rate))
    assert central.stdout is not None
    await central.stdout.readline()
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for name, side in sides.items():
            await stack.enter_async_context(serving(side.config, side.socket))
            loop = asyncio.get_running_loop()
            _, clients[name] = await loop.create_unix_connection(
                lambda side=side: PacedClient(side.request), str(side.socket)
            )
        await asyncio.sleep(5.0)
        for client in clients.values():
            await client.pace(chosen.calls, after(1.0))
            client.failures = 0
        for _ in range(chosen.rounds):
            for name, client in clients.items():
                times[name] += await client.pace(chosen.calls, after(TURN_SECONDS))
        failures = {name: client.failures for name, client in clients.items()}
        for client in clients.values():
            client.close()
    central.stdin.close() if central.stdin else None
    await central.wait()
    if any(failures.values()):
        raise SystemExit(f"calls were not allowed: {failures}; nothing was measured")
    figures = {name: percentiles(of_side) for name, of_side in times.items()}
    return {
        "calls_a_second": chosen.calls,
        "changes_a_second": chosen.rate,
        "load_average": os.getloadavg()[0],
    } | figures


def after(seconds: float) -> Callable[[], bool]:
    """A condition that holds after `seconds`."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


async def events(directory: Path, rate: float) -> None:
    """Publish the store of `directory` and commit `rate` changes a second until standard input ends."""
    async with administrator(directory, tls=False) as (store, _, address):
        print(address, flush=True)
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        due = time.monotonic()
        while not ended.done():
            await store.commit(Change(put=timed()))
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def main() -> int:
    """Run the benchmark. Returns 1 if `--check` is given and a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("changes", "load"), default="changes")
    parser.add_argument("--followers", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2, help="of the followers")
    parser.add_argument("--commits", type=int, default=30)
    parser.add_argument("--rate", type=float, default=None, help="changes a second (default: 1, with load 100)")
    parser.add_argument("--tls", action="store_true", help="follow over TCP with mutual TLS")
    parser.add_argument("--grants", type=int, default=10_000)
    parser.add_argument("--revocations", type=int, default=100_000)
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--calls", type=float, default=500.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each decision point")
    parser.add_argument("--check", action="store_true", help="fail where the target is missed")
    parser.add_argument("--role", choices=("administrator", "followers", "events"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.rate = chosen.rate or (100.0 if chosen.what == "load" else 1.0)
    if chosen.role is not None:
        raise_descriptor_limit(chosen.followers * 8)
        uvloop.run(play(chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="zta-bench-") as directory:
        measure = measure_load if chosen.what == "load" else measure_changes
        result = uvloop.run(measure(chosen, Path(directory)))
    print(json.dumps(result, indent=2))
    missed = bool(result.get("missing")) or float(str(result.get("p99_ms", 0))) > TARGET_MS
    return int(chosen.check and missed)


async def play(chosen: argparse.Namespace) -> None:
    """Run one process of the benchmark."""
    collect_rarely()  # as the administrator does; 500 followers in one process would otherwise wait for each other
    logging.disable(logging.CRITICAL)  # a thousand followers lose the administrator at the end
    if chosen.role == "administrator":
        await administer(chosen.directory, chosen.followers, chosen.commits, chosen.rate, tls=chosen.tls)
    elif chosen.role == "followers":
        await follow(chosen.directory, chosen.address, chosen.followers, tls=chosen.tls)
    else:
        await events(chosen.directory, chosen.rate)


if __name__ == "__main__":
    sys.exit(main())

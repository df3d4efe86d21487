"""What happens to decisions, operations and logs when administrators and their store fail, over real processes.

`python -m pytest -s tests/integration/test_administrator_failures.py` prints the figures of `docs/failures.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest

from tests.support.administered_site import Callers, Load, Process, Site, revocation_of
from tests.support.redis_server import RedisServer, find_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

OUTAGE_SECONDS: Final = float(os.environ.get("ZTA_OUTAGE_SECONDS", "1.5"))
"""Set it to 590 for nearly ten minutes: grants count for 600 seconds without the administrator."""
KILLS: Final = int(os.environ.get("ZTA_KILLS", "2"))
_numbers = itertools.count(1)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="zta-site-") as name:
        yield Path(name)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    program = find_redis()
    if program is None:
        pytest.skip("no redis-server or valkey-server on the PATH: `make tools` fetches one, where apt-get is")
    server = RedisServer(program)
    server.start()
    yield server
    server.close()


@contextlib.asynccontextmanager
async def site_of(directory: Path, store: str) -> AsyncIterator[Site]:
    """A site over this store."""
    site = Site(directory, store)
    try:
        yield site
    finally:
        site.close()


@contextlib.asynccontextmanager
async def callers_of(point: Process) -> AsyncIterator[Callers]:
    """Clients of a decision point that is ready."""
    await point.comes_to_be_ready()
    callers = Callers(point)
    try:
        yield callers
    finally:
        await callers.close()


def report(text: str) -> None:
    print(f"\n{text}")  # noqa: T201 - the measurement


def somebody() -> str:
    return f"dana-{next(_numbers)}"


async def people(administrator: Process, callers: Callers) -> dict[str, str]:
    """Somebody with a grant, somebody who is revoked, and somebody with neither -> what each is answered."""
    await administrator.comes_to_be_ready()
    granted, revoked, neither = somebody(), somebody(), somebody()
    await administrator.grant(granted)
    await administrator.grant(revoked)
    await administrator.revoke(revoked)
    answers = {granted: "", revoked: "token_revoked", neither: "grant_required"}
    for person, answer in answers.items():
        await callers.comes_to(person, answer)
    return answers


async def assert_unavailable(administrator: Process) -> float:
    """The administrator says that it can't do an operation. Returns the seconds that this took."""
    began = time.monotonic()
    answer = await administrator.call("/revocations", revocation_of(somebody()), "olga")
    assert answer.reason == (503, "unavailable"), answer
    return time.monotonic() - began


async def test_losing_the_administrator_changes_no_decision_and_slows_none(directory: Path) -> None:
    async with site_of(directory, f"sqlite:///{directory}/store.sqlite") as site:
        administrator, point = site.add("administrator1"), site.add("point1")
        async with callers_of(point) as callers:
            expected = await people(administrator, callers)
            before, without = Load(callers, expected), Load(callers, expected)
            await before.run(1.0)
            administrator.kill()
            await without.run(OUTAGE_SECONDS)
            assert (await point.is_ready())[0], "what it has counts"
            administrator.start()
            await administrator.comes_to_be_ready()
            later = somebody()
            await administrator.grant(later)
            back = await callers.comes_to(later, "", seconds=15.0)
            report(f"with administrator: {before.figures()}\nwithout it: {without.figures()}\nback after {back:.2f} s")
            assert before.wrong == []
            assert without.wrong == []
        verified = await asyncio.to_thread(site.verify, "administrator1")
        assert verified.returncode == 0, verified.stdout + verified.stderr


async def test_losing_the_store_changes_no_decision_and_operations_say_so(directory: Path, redis: RedisServer) -> None:
    async with site_of(directory, f"unix://{redis.socket}") as site:
        administrator, point = site.add("administrator1"), site.add("point1")
        async with callers_of(point) as callers:
            expected = await people(administrator, callers)
            redis.kill()
            load = Load(callers, expected)
            running = asyncio.create_task(load.run(OUTAGE_SECONDS))
            answered = await assert_unavailable(administrator)
            state = await administrator.comes_to_be_ready(ready=False)
            assert "store" in state
            await running
            assert load.wrong == []
            assert (await point.is_ready())[0], "its administrator lives"
            redis.start()
            await administrator.comes_to_be_ready()
            later = somebody()
            await administrator.grant(later)
            await callers.comes_to(later, "")
            report(f"without the store: {load.figures()}, an operation is refused after {answered:.2f} s")
        verified = await asyncio.to_thread(site.verify, "administrator1")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert [event["kind"] for event in site.events("administrator1")].count("store.opened") == 1


async def test_a_store_that_was_emptied_ends_grants_but_no_revocation(directory: Path, redis: RedisServer) -> None:
    async with site_of(directory, f"unix://{redis.socket}") as site:
        administrator, point = site.add("administrator1"), site.add("point1")
        async with callers_of(point) as callers:
            expected = await people(administrator, callers)
            granted, revoked, _ = expected
            revocations = Load(callers, {revoked: "token_revoked"})
            running = asyncio.create_task(revocations.run(3.0))
            redis.kill()
            redis.forget()
            redis.start()
            began = time.monotonic()
            await callers.comes_to(granted, "grant_required")
            lost = time.monotonic() - began
            await administrator.comes_to_be_ready()
            later = site.add("point2")
            async with callers_of(later) as others:
                again = await others.comes_to(revoked, "token_revoked")
                await running
                assert revocations.wrong == []
                await administrator.grant(granted)
                await others.comes_to(granted, "")
                await callers.comes_to(granted, "")
            report(f"emptied: grants end after {lost:.2f} s, {revocations.figures()}; a new one knows it {again:.2f} s")
        administrator.kill()
        redis.kill()
        redis.forget()
        redis.start()
        administrator.start()
        async with callers_of(site.add("point3")) as others:
            assert await others.check(revoked) == "token_revoked", "the first view that it gets has it"
        events = site.events("administrator1")
        opened = [event["detail"] for event in events if event["kind"] == "store.opened"]
        assert len(opened) == 3
        assert min(event["previous_revision"] for event in opened[1:]) > 0
        assert sum(event["kind"] == "revocation.added" for event in events) == 3
        verified = await asyncio.to_thread(site.verify, "administrator1")
        assert verified.returncode == 0, verified.stdout + verified.stderr


class Wire:
    """A Unix socket that leads to another one, until it is cut."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Join both sides."""
        self._server = await asyncio.start_unix_server(self._accept, str(self.path))

    async def cut(self) -> None:
        """End all connections, and accept no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._target))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, back))
                both.create_task(self._pump(there, writer))
        finally:
            for end in (writer, back):
                end.transport.abort()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()


@pytest.fixture
async def wire(directory: Path, redis: RedisServer) -> AsyncIterator[Wire]:
    """The way of the second administrator to the store."""
    made = Wire(directory / "wire", redis.socket)
    await made.connect()
    yield made
    await made.cut()


async def test_replicas_that_are_split_give_no_access_twice_and_agree_afterwards(
    directory: Path, redis: RedisServer, wire: Wire
) -> None:
    async with site_of(directory, f"unix://{redis.socket}") as site:
        first, second = site.add("administrator1"), site.add("administrator2", store=f"unix://{wire.path}")
        points = site.add("point1"), site.add("point2", "administrator2")
        await first.comes_to_be_ready()
        await second.comes_to_be_ready()
        async with callers_of(points[0]) as near, callers_of(points[1]) as far:
            expected = await people(first, near)
            granted, revoked, _ = expected
            for person, answer in expected.items():
                await far.comes_to(person, answer)
            request = await first.request(somebody())
            await wire.cut()
            assert "store" in await second.comes_to_be_ready(ready=False)
            approval = {"scope_sha256": request["scope_sha256"]}
            refused = await second.call(f"/access/requests/{request['id']}/approve", approval, "mary")
            assert refused.reason == (503, "unavailable")
            await first.revoke(granted)
            seen = await near.comes_to(granted, "token_revoked")
            assert await far.check(granted) == "", "it can't know, and grants count until they are too old"
            assert await far.check(revoked) == "token_revoked"
            await wire.connect()
            healed = await far.comes_to(granted, "token_revoked")
            await second.comes_to_be_ready()
            accepted = await second.call(f"/access/requests/{request['id']}/approve", approval, "mary")
            assert accepted.status == 200
            report(f"split: {seen * 1000:.0f} ms on the side with the store, {healed:.2f} s after it is healed")
        logs = [[event["event_id"] for event in site.events(one.name)] for one in (first, second)]
        assert logs[0][1:] == logs[1][1:], "all but `store.opened`"
        verified = await asyncio.to_thread(site.verify, "administrator1", "administrator2")
        assert verified.returncode == 0, verified.stdout + verified.stderr


async def operate(administrator: Process, answered: dict[str, str]) -> None:
    """Grant and revoke until the administrator dies; add what was answered, with the event that records it."""
    while True:
        person = somebody()
        grant = await administrator.grant(person)
        answered[str(grant["grant_id"])] = "access.approved"
        answered[await administrator.revoke(person)] = "revocation.added"


async def kill_while_they_work(administrators: list[Process], seconds: float, answered: dict[str, str]) -> None:
    """Kill all administrators in the middle of operations, and start them again."""
    for administrator in administrators:
        await administrator.comes_to_be_ready()
    running = [asyncio.create_task(operate(one, answered)) for one in administrators for _ in range(2)]
    await asyncio.sleep(seconds)
    for administrator in administrators:
        administrator.kill()
    for ended in await asyncio.gather(*running, return_exceptions=True):
        assert isinstance(ended, OSError | aiohttp.ClientError), ended
    for administrator in administrators:
        administrator.start()


@pytest.mark.parametrize("store", ["sqlite", "redis"])
async def test_kills_of_administrators_lose_nothing_that_was_answered(
    store: str, directory: Path, request: pytest.FixtureRequest
) -> None:
    if store == "redis":
        redis: RedisServer = request.getfixturevalue("redis")
        url, names = f"unix://{redis.socket}", ("administrator1", "administrator2")
    else:
        url, names = f"sqlite:///{directory}/store.sqlite", ("administrator1",)
    chance = random.Random(7)
    async with site_of(directory, url) as site:
        administrators = [site.add(name) for name in names]
        point = site.add("point1")
        answered: dict[str, str] = {}
        for _ in range(KILLS):
            await kill_while_they_work(administrators, chance.uniform(0.3, 0.8), answered)
        async with callers_of(point) as callers:
            for administrator in administrators:
                await administrator.comes_to_be_ready()
            last = somebody()
            await administrators[0].grant(last)
            await callers.comes_to(last, "", seconds=15.0)
        for name in names:
            events = site.events(name)
            kinds = {(event["object"]["id"], event["kind"]) for event in events}
            assert set(answered.items()) <= kinds, "nothing that was answered is lost"
            ids = [event["event_id"] for event in events]
            assert len(ids) == len(set(ids)), "nothing is there twice"
        assert len(answered) > 5
        report(f"{store}: {len(answered)} operations were answered before {KILLS} kills, none is lost")
        verified = await asyncio.to_thread(site.verify, *names)
        assert verified.returncode == 0, verified.stdout + verified.stderr

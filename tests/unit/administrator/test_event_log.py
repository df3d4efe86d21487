"""The access log has every event of the store once, in order, whatever happened between."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stores import SqlitePlace
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.event_log import EventLog
from zta_authz.administrator.store.port import Change, StoreForgot, StoreUnavailable
from zta_authz.audit.hash_chain import read_link
from zta_authz.audit.log_verifier import LogVerifier, segment_order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Commit, Store
    from zta_authz.administrator.store.sqlite import SqliteStore


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path)


def event(number: int) -> bytes:
    return encode_event(AccessEvent(EventKind.REVOCATION_ADDED, EventObject("revocation", str(number))))


async def commit(store: Store, *numbers: int) -> int:
    return (await store.commit(Change(events=[event(number) for number in numbers]))).revision


@asynccontextmanager
async def running(store: Store, path: Path, **options: int) -> AsyncIterator[EventLog]:
    log = await EventLog.open(store, str(path), **options)
    task = asyncio.ensure_future(log.run())
    try:
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])
        await log.close()


@asynccontextmanager
async def opened(place: SqlitePlace, *, retained: int = 1000) -> AsyncIterator[SqliteStore]:
    store = await place.open(retained=retained)
    try:
        yield store
    finally:
        await store.close()


async def write_everything(place: SqlitePlace, path: Path, *, retained: int = 1000) -> None:
    """Run the log until it has everything that the store has."""
    async with opened(place, retained=retained) as store, running(store, path) as log:
        async with asyncio.timeout(10):
            await log.logged(0)
            await log.logged((await store.head()).revision)


def files(path: Path) -> list[Path]:
    return [*sorted(path.parent.glob(f"{path.name}.0*")), path]


def lines(path: Path) -> list[dict[str, Any]]:
    """All events in the files of the log, after their chain was verified."""
    verifier = LogVerifier()
    firsts = [(str(file), file.read_bytes().partition(b"\n")[0]) for file in files(path)]
    found = []
    for name in segment_order(firsts):
        with open(name, "rb") as file:
            content = file.readlines()
        verifier.read_segment(name, content)
        found += [json.loads(line) for line in content if (link := read_link(line)) and not link.is_event]
    report = verifier.finish()
    assert report.ok, report.findings
    return found


def kinds(path: Path) -> list[str]:
    return [line["kind"] for line in lines(path)]


def ids(path: Path) -> list[str]:
    return [line["object"]["id"] for line in lines(path) if line["kind"] == "revocation.added"]


async def test_an_event_is_in_the_log_when_its_commit_is_logged(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store, running(store, path) as log:
        await log.logged(0)
        for number in range(3):
            revision = await commit(store, number)
            await asyncio.wait_for(log.logged(revision), 5)
            assert ids(path) == [str(known) for known in range(number + 1)]
            assert lines(path)[-1]["revision"] == revision
            assert lines(path)[-1]["epoch"] == log.epoch
        assert log.failing == ""


async def test_a_new_log_says_which_store_it_follows(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    await write_everything(place, path)
    (line,) = lines(path)
    assert (line["kind"], line["object"]) == ("store.opened", {"type": "store", "id": line["epoch"]})
    assert line["detail"] == {"previous_epoch": "", "previous_revision": 0}


async def test_the_log_catches_up_at_start(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    for numbers in ((1, 2), (3,), (4, 5, 6)):
        async with opened(place) as store:
            await store.epoch()
            await commit(store, *numbers)
        await write_everything(place, path)
    assert ids(path) == ["1", "2", "3", "4", "5", "6"]
    assert kinds(path).count("store.opened") == 1


async def test_a_start_without_news_writes_nothing(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store:
        await store.epoch()
        await commit(store, 1)
        await store.commit(Change(put={"a": b"no event"}))
    await write_everything(place, path)
    before = lines(path)
    await write_everything(place, path)
    assert lines(path) == before


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("torn", [0, 1, 300])
async def test_a_log_that_a_crash_cut_anywhere_continues_without_loss_or_repetition(
    kept: int, torn: int, place: SqlitePlace, tmp_path: Path
) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store:
        await store.epoch()
        await commit(store, 1)
        await commit(store, 2, 3, 4)
    await write_everything(place, path)
    content = path.read_bytes().splitlines(keepends=True)
    assert len(content) == 6  # open, store.opened and four events
    path.write_bytes(b"".join(content[:kept]) + content[kept][:torn])
    async with opened(place) as store:
        await store.epoch()
        await commit(store, 5)
    await write_everything(place, path)
    assert ids(path) == ["1", "2", "3", "4", "5"]
    assert kinds(path).count("store.opened") == 1


async def test_a_log_of_many_files_continues(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    for start in (0, 20):
        async with opened(place) as store, running(store, path, max_bytes=1500, max_files=100) as log:
            await log.logged(0)
            for number in range(start, start + 20):
                await log.logged(await commit(store, number))
    assert len(files(path)) > 4
    assert ids(path) == [str(number) for number in range(40)]


async def test_two_replicas_write_the_same_events(place: SqlitePlace, tmp_path: Path) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    async with (
        opened(place) as first, opened(place) as second, running(first, one) as log_one, running(second, other) as log_other,
    ):  # fmt: skip
        await asyncio.gather(log_one.logged(0), log_other.logged(0))
        for number in range(5):
            await commit(first, number)
            await commit(second, number + 10)
        async with asyncio.timeout(5):
            await asyncio.gather(log_one.logged(10), log_other.logged(10))
    assert ids(one) == ids(other) == ["0", "10", "1", "11", "2", "12", "3", "13", "4", "14"]
    keys = ("time", "epoch", "revision", "event_id", "kind", "object")
    assert [[line[key] for key in keys] for line in lines(one)[1:]] == [
        [line[key] for key in keys] for line in lines(other)[1:]
    ]


async def test_a_store_without_its_data_is_an_event(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store:
        await store.epoch()
        await commit(store, 1)
        await commit(store, 2)
    await write_everything(place, path)
    await place.forget()
    async with opened(place) as store:
        await store.epoch()
        await commit(store, 3)
    await write_everything(place, path)
    assert kinds(path) == ["store.opened", "revocation.added", "revocation.added", "store.opened", "revocation.added"]
    assert ids(path) == ["1", "2", "3"]
    first, second = (line for line in lines(path) if line["kind"] == "store.opened")
    assert second["detail"] == {"previous_epoch": first["epoch"], "previous_revision": 2}
    assert second["epoch"] == lines(path)[-1]["epoch"] != first["epoch"]


@pytest.mark.parametrize("later", [0, 1, 2, 3, 4])
async def test_a_restored_backup_gets_another_epoch_and_loses_nothing_that_came_later(
    later: int, place: SqlitePlace, tmp_path: Path
) -> None:
    path, backup = tmp_path / "access.jsonl", tmp_path / "backup"
    async with opened(place) as store:
        epoch = await store.epoch()
        await commit(store, 1)
    shutil.copy(place.path, backup)
    async with opened(place) as store:
        await store.epoch()
        for number in (2, 3, 4):
            await commit(store, number)
    await write_everything(place, path)
    await place.forget()
    shutil.copy(backup, place.path)
    async with opened(place) as store:
        assert await store.epoch() == epoch
        for number in range(later):
            await commit(store, 10 + number)
    await write_everything(place, path)
    async with opened(place) as store:
        assert await store.epoch() != epoch
    assert ids(path) == ["1", "2", "3", "4", "1", *(str(10 + number) for number in range(later))]
    assert kinds(path).count("store.opened") == 2
    written = len(lines(path))
    await write_everything(place, path)
    assert len(lines(path)) == written


async def test_a_log_says_what_the_store_forgot(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place, retained=3) as store:
        await store.epoch()
        for number in range(1, 11):
            await commit(store, number)
    await write_everything(place, path, retained=3)
    async with opened(place, retained=3) as store:
        await store.epoch()
        for number in range(11, 16):
            await commit(store, number)
    await write_everything(place, path, retained=3)
    assert ids(path) == ["8", "9", "10", "13", "14", "15"]
    assert [line["detail"] for line in lines(path) if line["kind"] == "store.skipped"] == [
        {"from_revision": 1, "to_revision": 7}, {"from_revision": 11, "to_revision": 12},
    ]  # fmt: skip


async def test_an_event_that_cannot_be_read_does_not_stop_the_log(
    place: SqlitePlace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store:
        await store.epoch()
        await store.commit(Change(events=[b'{"schema":"forged"}\n{}', event(1)]))
    await write_everything(place, path)
    assert ids(path) == ["1"]
    assert "can't be read" in caplog.text


class FailingStore:
    """A store that can be switched off."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        if self.failure is not None and name in {"read_since", "epoch"}:
            raise self.failure
        return getattr(self.store, name)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the log has no event for it
            await asyncio.sleep(0.01)


async def test_the_log_goes_on_when_the_store_is_back(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as real:
        store = FailingStore(real)
        async with running(store, path) as log:  # type: ignore[arg-type]
            await log.logged(0)
            store.failure = StoreUnavailable("switched off")
            revision = await commit(real, 1)
            waiting = asyncio.ensure_future(log.logged(revision))
            await until(lambda: log.failing)
            assert log.failing == "switched off"
            assert not waiting.done()
            store.failure = None
            await asyncio.wait_for(waiting, 5)
            await until(lambda: not log.failing)
    assert ids(path) == ["1"]
    assert kinds(path).count("store.opened") == 1


async def test_whoever_waits_for_a_commit_that_the_store_lost_hears_it(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store, opened(place) as other, running(store, path) as log:
        await log.logged(0)
        await log.logged(await commit(store, 1))
        waiting = asyncio.ensure_future(log.logged(1000))
        await asyncio.sleep(0)
        epoch = log.epoch
        await other.renew_epoch(epoch)
        with pytest.raises(StoreForgot):
            await asyncio.wait_for(waiting, 5)
        await until(lambda: log.epoch != epoch and not log.failing)
        await asyncio.wait_for(log.logged(1), 5)
        await asyncio.wait_for(log.logged(await commit(store, 2)), 5)
    assert ids(path) == ["1", "1", "2"]


async def test_an_operation_is_not_answered_before_the_disk_has_its_event(
    place: SqlitePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.jsonl"
    real, broken = os.fsync, True

    def fsync(descriptor: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        real(descriptor)

    async with opened(place) as store, running(store, path) as log:
        await log.logged(0)
        monkeypatch.setattr("zta_authz.audit.segments.os.fsync", fsync)
        revision = await commit(store, 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await log.logged(revision)
        assert log.failing == "Input/output error"
        broken = False
        await asyncio.wait_for(log.logged(revision), 5)
        assert log.failing == ""


async def test_a_waiter_that_gives_up_is_forgotten(place: SqlitePlace, tmp_path: Path) -> None:
    async with opened(place) as store, running(store, tmp_path / "access.jsonl") as log:
        await log.logged(0)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await log.logged(5)
        assert log._waiting == {}


async def test_a_log_reads_long_streams_page_by_page(place: SqlitePlace, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    pages: list[int] = []
    async with opened(place, retained=5000) as store:
        await store.epoch()
        for number in range(0, 2500, 2):
            await commit(store, number, number + 1)
        read = store.read_since

        async def counted(revision: int, limit: int = 1000) -> list[Commit]:
            page = await read(revision, limit)
            pages.append(len(page))
            return page

        store.read_since = counted  # type: ignore[method-assign]
        async with running(store, path) as log:
            await asyncio.wait_for(log.logged(1250), 20)
    assert ids(path) == [str(number) for number in range(2500)]
    assert max(pages) <= 1000


async def test_one_process_writes_a_log(place: SqlitePlace, tmp_path: Path) -> None:
    async with opened(place) as store, running(store, tmp_path / "access.jsonl"):
        with pytest.raises(OSError, match="another process"):
            await EventLog.open(store, str(tmp_path / "access.jsonl"))


async def test_a_disk_that_does_not_answer_is_a_failure_of_the_log(
    place: SqlitePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zta_authz.administrator.log_thread.STUCK_SECONDS", 0.05)
    real, free = os.fsync, threading.Event()

    def fsync(descriptor: int) -> None:
        assert free.wait(10)
        real(descriptor)

    async with opened(place) as store, running(store, tmp_path / "access.jsonl") as log:
        await log.logged(0)
        monkeypatch.setattr("zta_authz.audit.segments.os.fsync", fsync)
        revision = await commit(store, 1)
        await until(lambda: log.failing == "the disk does not answer")
        free.set()
        await asyncio.wait_for(log.logged(revision), 5)
        assert log.failing == ""


class SmallDisk:
    """A disk on which a file can grow by `free` bytes."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1 << 30
        self._path, self._write = str(path), os.write
        monkeypatch.setattr("zta_authz.audit.outputs.os.write", self._limited)

    def _limited(self, descriptor: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}") != self._path:
            return self._write(descriptor, data)
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.free])
        self.free -= written
        return written


@pytest.mark.parametrize("free", [0, 1, 100, 600])
async def test_a_log_waits_for_a_full_disk_and_says_so(
    free: int, place: SqlitePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.jsonl"
    async with opened(place) as store, running(store, path) as log:
        await log.logged(0)
        await log.logged(await commit(store, 1))
        disk = SmallDisk(path, monkeypatch)
        disk.free = free
        revision = await commit(store, 2, 3)
        await until(lambda: log.failing == "No space left on device")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(log.logged(revision), 0.05)
        disk.free = 1 << 30
        await asyncio.wait_for(log.logged(revision), 5)
        assert log.failing == ""
    assert ids(path) == ["1", "2", "3"]


async def test_a_full_disk_does_not_prevent_the_end(
    place: SqlitePlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zta_authz.administrator.log_thread.CLOSE_SECONDS", 0.1)
    path = tmp_path / "access.jsonl"
    disk = SmallDisk(path, monkeypatch)
    async with opened(place) as store:
        async with running(store, path) as log:
            await log.logged(0)
            await log.logged(await commit(store, 1))
            disk.free = 50
            await commit(store, 2)
            await until(lambda: log.failing == "No space left on device")
        assert "is not closed, because No space left on device" in caplog.text
        disk.free = 1 << 30
        await until(lambda: not log._thread._thread.is_alive())
    await write_everything(place, path)
    assert ids(path) == ["1", "2"]


WRITER = """
import asyncio, sys
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.event_log import EventLog
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.store.sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(sys.argv[1])
    log = await EventLog.open(store, sys.argv[2], max_bytes=8192)
    task = asyncio.ensure_future(log.run())
    await log.logged(0)
    print("started", flush=True)
    async def operate(worker):
        number = 0
        while True:
            name = f"{sys.argv[3]}-{worker}-{number}"
            both = [AccessEvent(EventKind.REVOCATION_ADDED, EventObject("revocation", name + half)) for half in ("", "b")]
            await log.logged((await store.commit(Change(events=list(map(encode_event, both))))).revision)
            print(name, flush=True)
            number += 1
    await asyncio.gather(*map(operate, range(3)))

asyncio.run(main())
"""


def test_kills_at_any_moment_lose_no_event_that_was_answered_for_and_repeat_none(
    place: SqlitePlace, tmp_path: Path
) -> None:
    path, answered = tmp_path / "access.jsonl", []
    for run, after in enumerate((0, 1, 5, 12, 30)):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place.path), str(path), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(1 + after):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        answered += process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()

    async def committed() -> list[str]:
        async with opened(place, retained=5000) as store:
            await store.epoch()
            stream = await store.read_since(0)
        await write_everything(place, path, retained=5000)
        return [json.loads(data)["object"]["id"] for commit in stream for data in commit.events]

    in_store = asyncio.run(committed())
    assert ids(path) == in_store, "each event of the store once, in its order"
    assert len(files(path)) > 1
    assert set(answered) - {"started"} <= set(in_store)

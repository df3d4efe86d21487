"""The SQLite store is right or refuses, whatever happened to its file, its disk and its processes."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.stores import SqlitePlace
from zta_authz.administrator.store.port import Change, InvalidChange, StoreUnavailable, Versioned, read_items
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.store.sqlite_schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[4]
PREAMBLE = """
import asyncio, os, sys
from zta_authz.administrator.store.port import ABSENT, Change, Conflict, StoreUnavailable
from zta_authz.administrator.store.sqlite import SqliteStore
"""


def program(body: str, *arguments: str) -> list[str]:
    """A Python program that runs `body` as a coroutine, with `path` and the arguments in `sys.argv`."""
    inner = textwrap.indent(textwrap.dedent(body), "    ")
    return [sys.executable, "-c", f"{PREAMBLE}\nasync def main():\n{inner}\nasyncio.run(main())", *arguments]


def start(body: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(program(body, *arguments), stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def filled(place: SqlitePlace, commits: int = 20, size: int = 2000) -> None:
    store = await place.open()
    await store.epoch()
    for number in range(commits):
        await store.commit(Change(put={f"k{number:03}": b"%03d" % number * (size // 3)}, events=[b"%d" % number]))
    await store.close()


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path)


async def test_the_file_is_readable_only_for_its_owner(place: SqlitePlace) -> None:
    await filled(place)
    store = await place.open()
    await store.epoch()
    await store.commit(Change(events=[b"e"]))
    modes = {file.name: file.stat().st_mode & 0o777 for file in place.path.parent.glob("store.sqlite*")}
    assert modes == {"store.sqlite": 0o600, "store.sqlite-wal": 0o600, "store.sqlite-shm": 0o600}
    await store.close()


async def test_a_commit_waits_for_the_disk(place: SqlitePlace) -> None:
    store = await place.open()
    assert store._write_connection is not None
    assert store._write_connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._write_connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


@pytest.mark.parametrize("at", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("damage", ["truncated", "zeros", "bits"])
async def test_a_damaged_database_is_refused_or_read_right(at: float, damage: str, place: SqlitePlace) -> None:
    await filled(place)
    data = bytearray(place.path.read_bytes())
    position = int(len(data) * at)
    if damage == "truncated":
        del data[position:]
    elif damage == "zeros":
        data[position : position + 4096] = bytes(min(4096, len(data) - position))
    else:
        data[position] ^= 0x10
    place.path.write_bytes(data)
    try:
        store = await place.open()
    except StoreUnavailable as error:
        assert str(error).startswith("the store")  # noqa: PT017
        return
    await store.epoch()
    if at == 0.0 and damage == "truncated":  # an empty file is a new database
        assert await store.scan("") == []
    else:
        _, items = await read_items(store, "")
        assert {key: item.value[:3] for key, item in items.items()} == {f"k{n:03}": b"%03d" % n for n in range(20)}
    await store.close()


def test_most_single_damaged_bytes_are_noticed(tmp_path: Path) -> None:
    """Every byte of the values and versions is covered by a checksum; unused bytes of pages are not."""

    async def run() -> list[int]:
        place = SqlitePlace(tmp_path)
        await filled(place, 3, 600)
        good = place.path.read_bytes()
        begins = good.index(b"001" * 20)
        wrong = []
        for position in range(begins - 8, begins + 60, 3):
            data = bytearray(good)
            data[position] ^= 0x01
            place.path.write_bytes(data)
            try:
                store = await place.open()
            except StoreUnavailable:
                continue
            wrong.append(position)
            await store.close()
        return wrong

    assert asyncio.run(run()) == []


async def test_damage_while_the_store_is_open_is_an_error_and_never_a_wrong_answer(place: SqlitePlace) -> None:
    await filled(place)
    store = await place.open()
    await store.epoch()
    other = sqlite3.connect(place.path)
    other.execute("UPDATE items SET value = 'x' WHERE key = 'k003'")
    other.execute("UPDATE commits SET entry = 'x' WHERE revision = 5")
    other.commit()
    other.close()
    for attempt in (store.get("k003"), store.scan(""), store.read_since(0)):
        with pytest.raises(StoreUnavailable, match="damaged"):
            await attempt
    assert (await store.get("k004")) is not None
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM commits WHERE revision = 20",
        "DELETE FROM commits WHERE revision = 10",
        "UPDATE state SET revision = 5",
        "DELETE FROM state",
        "UPDATE items SET version = 1 WHERE key = 'k004'",
        "UPDATE items SET key = 'other' WHERE key = 'k004'",
        "UPDATE commits SET time = 1 WHERE revision = 3",
        "DROP TABLE commits",
    ],
)
async def test_rows_that_contradict_each_other_are_refused(statement: str, place: SqlitePlace) -> None:
    await filled(place)
    with sqlite3.connect(place.path) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreUnavailable):
        await place.open()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"x" * 200])
async def test_another_file_is_refused_and_left_alone(content: bytes, place: SqlitePlace) -> None:
    place.path.write_bytes(content)
    with pytest.raises(StoreUnavailable):
        await place.open()
    assert place.path.read_bytes() == content


async def test_a_database_of_another_program_is_refused(place: SqlitePlace) -> None:
    for statement in ("CREATE TABLE t (x)", "PRAGMA application_id = 7"):
        with sqlite3.connect(place.path) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(StoreUnavailable, match="another program"):
            await place.open()
        place.path.unlink()


async def test_a_newer_schema_is_refused(place: SqlitePlace) -> None:
    await filled(place)
    with sqlite3.connect(place.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = place.path.read_bytes()
    with pytest.raises(StoreUnavailable, match="a newer version of zta-authz"):
        await place.open()
    assert place.path.read_bytes() == before


async def test_a_directory_a_missing_folder_and_a_link_are_refused(place: SqlitePlace, tmp_path: Path) -> None:
    await filled(place)
    (tmp_path / "link").symlink_to(place.path)
    for path in (tmp_path, tmp_path / "none" / "store", tmp_path / "link"):
        with pytest.raises(StoreUnavailable, match="can't be opened"):
            await SqliteStore.open(str(path))


async def test_a_store_is_a_file_and_keeps_something(tmp_path: Path) -> None:
    with pytest.raises(InvalidChange):
        await SqliteStore.open(":memory:")
    with pytest.raises(InvalidChange):
        await SqliteStore.open(str(tmp_path / "s"), retained=0)


async def test_a_database_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's is not reachable for another user
        place = SqlitePlace(Path(directory))
        await filled(place)
        place.path.chmod(0o444)
        root = os.geteuid() == 0
        if root:
            os.chmod(directory, 0o755)
            os.seteuid(65534)  # root may write everything
        try:
            with pytest.raises(StoreUnavailable, match="can't be opened: Permission denied"):
                await place.open()
        finally:
            if root:
                os.seteuid(0)


async def test_a_file_that_is_removed_or_replaced_under_the_store_takes_no_commits(
    place: SqlitePlace, tmp_path: Path
) -> None:
    for replaced in (False, True):
        await filled(place)
        store = await place.open()
        await store.epoch()
        if replaced:
            shutil.copy(place.path, tmp_path / "copy")
            (tmp_path / "copy").rename(place.path)
        else:
            place.path.unlink()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="replaced" if replaced else "removed"):
                await store.commit(Change(events=[b"e"]))
        await store.close()
        await place.forget()


async def test_a_backup_as_documented_is_whole_while_others_commit(place: SqlitePlace, tmp_path: Path) -> None:
    backup = tmp_path / "backup.sqlite"
    page = (ROOT / "docs" / "access-log.md").read_text()
    (statement,) = re.findall(r"`(VACUUM INTO '[^']+')`", page)
    store = await place.open()
    await store.epoch()

    async def commit_on() -> None:
        for number in range(1, 60):
            await store.commit(Change(put={"counter": b"%d" % number}, events=[b"%d" % number]))

    def back_up() -> None:
        with closing(sqlite3.connect(place.path)) as connection:
            connection.execute(re.sub(r"'.*'", f"'{backup}'", statement))

    await store.commit(Change(put={"counter": b"0"}, events=[b"0"]))
    await asyncio.gather(commit_on(), asyncio.to_thread(back_up))
    await store.close()
    for name in (place.path, *(place.path.with_name(place.path.name + end) for end in ("-wal", "-shm"))):
        name.unlink(missing_ok=True)
    shutil.copy(backup, place.path)
    store = await place.open()
    await store.epoch()
    commits = await store.read_since(0)
    assert commits
    item = await store.get("counter")
    assert item is not None
    assert item.value == b"%d" % (len(commits) - 1)
    assert (await store.commit(Change(events=[b"later"]))).revision == len(commits) + 1
    await store.close()


async def test_a_closed_store_is_unavailable(place: SqlitePlace) -> None:
    store = await place.open()
    await store.epoch()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.head()


def test_a_full_disk_is_an_error_and_what_was_committed_stays(place: SqlitePlace) -> None:
    body = """
        store = await SqliteStore.open(sys.argv[1])
        await store.epoch()
        for number in range(1000):
            try:
                await store.commit(Change(put={f"k{number}": bytes(20_000)}, events=[b"e"]))
            except StoreUnavailable as error:
                print(number, error, flush=True)
                break
        try:
            await store.commit(Change(put={"more": bytes(200_000)}))
            print("committed more")
        except StoreUnavailable:
            print("still full")
        print(len(await store.read_since(0, 1000)))
        await store.close()
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    ran = subprocess.run(
        program(body, str(place.path)), cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limit
    )
    first, second, third = ran.stdout.splitlines()
    committed = int(first.split()[0])
    assert committed > 5, ran.stdout
    assert "database failed" in first
    assert second == "still full"
    assert int(third) == committed

    async def read() -> None:
        store = await place.open()
        await store.epoch()
        assert [commit.revision for commit in await store.read_since(0)] == list(range(1, committed + 1))
        await store.commit(Change(put={"more": bytes(200_000)}))
        await store.close()

    asyncio.run(read())


COMMITTER = """
    store = await SqliteStore.open(sys.argv[1])
    await store.epoch()
    for number in range(int(sys.argv[3])):
        while True:
            item = await store.get("counter")
            version, value = (ABSENT, 0) if item is None else (item.version, int(item.value))
            try:
                change = Change({"counter": version}, {"counter": b"%d" % (value + 1)}, events=[b"%s %d" % (sys.argv[2].encode(), number)])
                await store.commit(change)
                break
            except Conflict:
                pass
        print(number, flush=True)
    await store.close()
"""


async def test_committers_in_several_processes_neither_lose_nor_repeat(place: SqlitePlace) -> None:
    running = [start(COMMITTER, str(place.path), name, "60") for name in ("a", "b", "c")]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    store = await place.open()
    await store.epoch()
    commits = await store.read_since(0)
    assert [commit.revision for commit in commits] == list(range(1, 181))
    assert [int(commit.put["counter"]) for commit in commits] == list(range(1, 181))
    events = [event for commit in commits for event in commit.events]
    for name in (b"a", b"b", b"c"):
        assert [event for event in events if event.startswith(name)] == [b"%s %d" % (name, n) for n in range(60)]
    assert await store.get("counter") == Versioned(180, b"180")
    await store.close()


@pytest.mark.parametrize("after", [1, 7, 20, 33])
async def test_a_kill_in_the_middle_of_commits_loses_nothing_that_was_acknowledged(
    after: int, place: SqlitePlace
) -> None:
    process = start(COMMITTER, str(place.path), "a", "100000")
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    acknowledged = after + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    store = await place.open()
    await store.epoch()
    commits = await store.read_since(0)
    assert acknowledged <= len(commits) <= acknowledged + 1, "at most the one that was not answered yet"
    assert [commit.events for commit in commits] == [(b"a %d" % number,) for number in range(len(commits))]
    assert await store.get("counter") == Versioned(len(commits), b"%d" % len(commits))
    await store.close()


async def test_processes_may_create_the_database_at_the_same_time(place: SqlitePlace) -> None:
    body = "store = await SqliteStore.open(sys.argv[1])\nprint(await store.epoch())\nawait store.close()"
    running = [start(body, str(place.path)) for _ in range(4)]
    epochs = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0] * 4
    assert len(epochs) == 1


async def test_outdated_rows_are_removed_bit_by_bit(place: SqlitePlace) -> None:
    place.now = 1000.0
    store = await place.open(retained=5)
    await store.epoch()
    for number in range(50):
        await store.remember(f"m{number}", 10)
        await store.commit(Change(events=[b"e"]))
    place.now = 2000.0
    await store.remember("another", 10)
    await store.commit(Change(events=[b"e"]))
    assert store._write_connection is not None
    for table, rows in (("temporary", 1), ("commits", 5)):
        assert store._write_connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (rows,)
    await store.close()


@pytest.fixture
def slow_writer(place: SqlitePlace) -> Iterator[subprocess.Popen[str]]:
    asyncio.run(filled(place))
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE');"
        " print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(place.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate(timeout=10)


def test_a_transaction_of_another_process_that_never_ends_is_an_error(
    slow_writer: subprocess.Popen[str], place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zta_authz.administrator.store.sqlite_schema.BUSY_SECONDS", 0.2)

    async def run() -> None:
        store = SqliteStore(str(place.path), retained=10, clock=lambda: 0.0)
        with pytest.raises(StoreUnavailable, match="busy"):
            await store._run(store._writer, store._connect)
        await store.close()

    asyncio.run(run())
    assert slow_writer.poll() is None

"""The store on SQLite, in one file: for one administrator, and for several processes on one host.

One thread writes and one thread reads, so that reads don't wait for the disk. WAL with `synchronous = FULL`: a commit
has called fsync before it returns (https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from zta_authz.administrator.store import sqlite_rows as rows
from zta_authz.administrator.store.entries import new_epoch
from zta_authz.administrator.store.port import (
    PAGE,
    RETAINED_COMMITS,
    Committed,
    Conflict,
    Head,
    InvalidChange,
    StoreForgot,
    StoreUnavailable,
    check_change,
    check_key,
    check_limit,
    check_prefix,
    check_reservation,
    check_seconds,
    check_value,
)
from zta_authz.administrator.store.sqlite_schema import connect, create_file, prepare, roll_back

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from zta_authz.administrator.store.port import Change, Commit, Versioned, Window

_T = TypeVar("_T")
_P = ParamSpec("_P")

POLL_SECONDS: Final = 0.2
"""How often `watch` looks for commits of other processes."""
_BUSY: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FSYNC: Final = "SQLITE_IOERR_FSYNC"
_MEMORY: Final = ":memory:"


class SqliteStore:
    """Implements `Store`. Open it with `SqliteStore.open`."""

    def __init__(self, path: str, *, retained: int, clock: Callable[[], float]) -> None:
        """Use `open` instead."""
        self._path = path
        self._retained = retained
        self._clock = clock
        self._identity = create_file(path)
        self._lock = Lock()
        self._adopted = ("", 0)  # the epoch, and the newest revision seen in it
        self._failed = ""
        self._changed = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._reader = ThreadPoolExecutor(1, "store-reader")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None

    @classmethod
    async def open(
        cls, path: str, *, retained: int = RETAINED_COMMITS, clock: Callable[[], float] = time.time
    ) -> SqliteStore:
        """Open or create the database at `path`, and verify all of it. Keeps `retained` commits in the stream.

        Raises `StoreUnavailable` if that is impossible, if the database is damaged or if a newer version wrote it.
        """
        if retained < 1 or path == _MEMORY:
            raise InvalidChange("the stream keeps at least one commit, and the database is a file")
        store = cls(path, retained=retained, clock=clock)
        try:
            await store._run(store._writer, store._connect)
        except BaseException:
            await store.close()
            raise
        return store

    async def epoch(self) -> str:
        """See `Store`."""
        return await self._run(self._writer, self._adopt_epoch)

    async def renew_epoch(self, lost: str) -> str:
        """See `Store`."""
        return await self._run(self._writer, self._replace_epoch, lost)

    async def head(self) -> Head:
        """See `Store`."""
        return await self._read(lambda _, newest: Head(newest, self._clock()))

    async def get(self, key: str) -> Versioned | None:
        """See `Store`."""
        check_key(key)
        return await self._read(lambda connection, _: rows.read_item(connection, key))

    async def scan(self, prefix: str, *, after: str = "", limit: int = PAGE) -> list[tuple[str, Versioned]]:
        """See `Store`."""
        check_prefix(prefix, after, limit)
        return await self._read(lambda connection, _: rows.scan(connection, prefix, after, limit))

    async def commit(self, change: Change) -> Committed:
        """See `Store`."""
        check_change(change)

        def work(connection: sqlite3.Connection, newest: int, now: float) -> Committed:
            rows.apply_change(connection, change, newest + 1, now)
            rows.sweep_commits(connection, newest + 2 - self._retained)
            return Committed(newest + 1, now)

        committed = await self._write(work)
        self._changed.set()
        self._changed = asyncio.Event()
        return committed

    async def read_since(self, revision: int, limit: int = PAGE) -> list[Commit]:
        """See `Store`."""
        check_limit(limit, revision)
        return await self._read(lambda connection, newest: rows.read_commits(connection, revision, newest, limit))

    async def watch(self, revision: int = -1) -> AsyncGenerator[int, None]:
        """See `Store`."""
        while True:
            changed = self._changed
            newest = (await self.head()).revision
            if newest > revision:
                revision = newest
                yield newest
                continue
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await changed.wait()
            except TimeoutError:
                continue

    async def remember(self, key: str, seconds: float) -> bool:
        """See `Store`."""
        check_key(key)
        check_seconds(seconds)
        try:
            await self._write(lambda connection, _, now: rows.remember(connection, key, seconds, now))
        except Conflict:
            return False
        return True

    async def put_temporary(self, key: str, value: bytes, seconds: float) -> None:
        """See `Store`."""
        check_key(key)
        check_value(value)
        check_seconds(seconds)
        await self._write(lambda connection, _, now: rows.put_temporary(connection, key, value, seconds, now))

    async def get_temporary(self, key: str) -> bytes | None:
        """See `Store`."""
        check_key(key)
        return await self._read(lambda connection, _: rows.read_temporary(connection, key, self._clock()))

    async def reserve(self, key: str, window: Window, want: int, limit: int, holder: str) -> int:
        """See `Store`."""
        check_reservation(key, window, want, limit, holder)
        return await self._write(
            lambda connection, _, now: rows.reserve(connection, key, window, want, limit, holder, now)
        )

    async def close(self) -> None:
        """See `Store`."""
        self._failed = self._failed or "the store is closed"
        loop = asyncio.get_running_loop()
        for executor, connection in ((self._reader, self._read_connection), (self._writer, self._write_connection)):
            if connection is not None:
                await loop.run_in_executor(executor, connection.close)
            executor.shutdown(wait=False)

    async def _read(self, work: Callable[[sqlite3.Connection, int], _T]) -> _T:
        """Run `work(connection, newest revision)` in the reader's thread, on one state of the database."""
        return await self._run(self._reader, self._read_consistently, work)

    async def _write(self, work: Callable[[sqlite3.Connection, int, float], _T]) -> _T:
        """Run `work(connection, newest revision, time)` in the writer's thread, in a transaction."""
        return await self._run(self._writer, self._transact, work)

    async def _run(
        self, executor: ThreadPoolExecutor, step: Callable[_P, _T], *args: _P.args, **_kwargs: _P.kwargs
    ) -> _T:
        if self._failed:
            raise StoreUnavailable(self._failed)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, lambda: self._guarded(step, *args, **_kwargs))

    def _guarded(self, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run `step` in a thread. Turns errors of SQLite into `StoreUnavailable`."""
        try:
            return step(*args, **kwargs)
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "") or type(error).__name__
            if name.startswith(_BUSY):
                raise StoreUnavailable("the store's database is busy") from error
            if name == _FSYNC:  # the kernel forgets which data it could not write
                self._failed = "the store's disk failed during fsync: check the disk, then restart the administrator"
            raise StoreUnavailable(
                f"the store's database failed: {error} ({name})", uncertain=name == _FSYNC
            ) from error

    def _connect(self) -> None:
        self._write_connection = connect(self._path)
        prepare(self._write_connection)
        self._read_connection = connect(self._path)
        self._read_connection.execute("PRAGMA query_only = ON")

    def _adopt_epoch(self) -> str:
        self._check_file()
        epoch, revision = rows.read_state(_connected(self._write_connection))
        if epoch == self._adopted[0] and revision < self._adopted[1]:
            return self._replace_epoch(epoch)
        with self._lock:
            self._adopted = (epoch, revision)
        return epoch

    def _replace_epoch(self, lost: str) -> str:
        connection = _connected(self._write_connection)
        self._check_file()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute("UPDATE state SET epoch = ? WHERE epoch = ?", (new_epoch(), lost))
            epoch, revision = rows.read_state(connection)
            connection.execute("COMMIT")
        finally:
            roll_back(connection)
        with self._lock:
            self._adopted = (epoch, revision)
        return epoch

    def _transact(self, work: Callable[[sqlite3.Connection, int, float], _T]) -> _T:
        connection = _connected(self._write_connection)
        self._check_file()
        connection.execute("BEGIN IMMEDIATE")
        try:
            newest = self._check_state(connection)
            result = work(connection, newest, self._clock())
            connection.execute("COMMIT")
        finally:
            roll_back(connection)
        return result

    def _read_consistently(self, work: Callable[[sqlite3.Connection, int], _T]) -> _T:
        connection = _connected(self._read_connection)
        connection.execute("BEGIN")
        try:
            return work(connection, self._check_state(connection))
        finally:
            roll_back(connection)

    def _check_state(self, connection: sqlite3.Connection) -> int:
        """Return the newest revision. Raises `StoreForgot` if the store is not the one that was adopted."""
        adopted, seen = self._adopted  # read before the database, which another thread may change meanwhile
        epoch, revision = rows.read_state(connection)
        if epoch != adopted or revision < seen:
            raise StoreForgot("the store has lost commits" if adopted else "the epoch was not read yet")
        with self._lock:
            if self._adopted[0] == epoch:
                self._adopted = (epoch, max(revision, self._adopted[1]))
        return revision

    def _check_file(self) -> None:
        """Check that the database is still the file at the path; otherwise what is written would be lost."""
        try:
            status = os.stat(self._path, follow_symlinks=False)
        except OSError as error:
            self._failed = "the store's database was removed: restart the administrator"
            raise StoreUnavailable(self._failed) from error
        if (status.st_dev, status.st_ino) != self._identity:
            self._failed = "the store's database was replaced by another file: restart the administrator"
            raise StoreUnavailable(self._failed)


def _connected(connection: sqlite3.Connection | None) -> sqlite3.Connection:
    if connection is None:
        raise StoreUnavailable("the store is closed")
    return connection

"""The access log: a hash-chained log of all access events, which follows the store's stream.

Each replica of the administrator writes every event into its own log. Where the log ends is read from the log itself,
so a crash loses nothing: at the next start, the log continues after its last event. An operation is answered only
after `logged` returned for its commit, so that every answered change is in the store and in one log on disk.

If the store has another epoch than the log's last event, the log may miss commits of it that nobody can name. So the
log says so (`store.opened`) and then writes everything again that the stream still has; events keep their IDs.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.administrator.access_events import (
    SCHEMA,
    AccessEvent,
    BadEvent,
    EventKind,
    EventObject,
    encode_event,
    log_line,
    read_event,
)
from zta_authz.administrator.log_thread import LogThread
from zta_authz.administrator.store.port import Commit, Forgotten, StoreError, StoreForgot
from zta_authz.audit.segments import SegmentedLog
from zta_authz.audit.tails import newest_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zta_authz.administrator.access_events import Value
    from zta_authz.administrator.store.port import Store
    from zta_authz.audit.checkpoints import CheckpointWriter

MAX_BYTES: Final = 100 * 1024 * 1024
MAX_FILES: Final = 100
_RETRY_SECONDS: Final = 0.1
_MAX_RETRY_SECONDS: Final = 5.0
_LOCAL: Final = (EventKind.STORE_OPENED, EventKind.STORE_SKIPPED)
_LOG = logging.getLogger(__name__)


class _LastLine(msgspec.Struct, frozen=True):
    """The newest event in the log. `epoch` is "" if there is none."""

    schema: str = ""
    kind: str = ""
    epoch: str = ""
    revision: int = 0
    event_id: str = ""


_decode: Final = msgspec.json.Decoder(_LastLine).decode


class EventLog:
    """Writes the access log at a path. Run `run` as a task."""

    def __init__(self, store: Store, thread: LogThread, last: _LastLine) -> None:
        """Use `open` instead."""
        self._store = store
        self._thread = thread
        self._last = last
        self._epoch = ""
        self._revision = -1  # everything up to here is in the log and on the disk
        self._ready = False  # false while `_revision` may be of another epoch than new commits
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._epoch_changed = asyncio.Event()
        self._store_failure = "the log has not been compared with the store yet"
        self.written = Counter[str]()
        """How many events of each kind were written since the start."""

    @classmethod
    async def open(
        cls,
        store: Store,
        path: str,
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
        checkpoints: CheckpointWriter | None = None,
    ) -> EventLog:
        """Continue or create the log. Raises OSError if that is impossible."""

        def start() -> tuple[SegmentedLog, _LastLine]:
            log = SegmentedLog(path, max_bytes=max_bytes, max_files=max_files, checkpoints=checkpoints)
            try:
                return log, _last_event(Path(path))
            except BaseException:
                log.close()
                raise

        log, last = await asyncio.to_thread(start)
        return cls(store, LogThread(log), last)

    @property
    def failing(self) -> str:
        """Why events don't reach the log at the moment, in a few words; "" if they do."""
        return self._thread.failing or self._store_failure

    @property
    def epoch(self) -> str:
        """The epoch that the log follows, "" before the store was read. The log calls `Store.epoch` for everybody."""
        return self._epoch

    async def logged(self, revision: int) -> None:
        """Wait until the commit's events are in the log and on the disk. Set a timeout around it.

        Raises `StoreForgot` if the store lost commits meanwhile: the commit may be lost.
        """
        if self._ready and revision <= self._revision:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[done] = revision
        try:
            await done
        finally:
            self._waiting.pop(done, None)

    async def next_epoch(self, known: str) -> str:
        """Wait until the log follows another epoch than `known` and has caught up with it. Return that epoch."""
        while not self._ready or self._epoch == known:
            await self._epoch_changed.wait()
        return self._epoch

    async def run(self) -> None:
        """Follow the store's stream until cancelled. Survives failures of the store and of the disk."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._thread.maintain())
            tasks.create_task(self._follow())

    async def close(self) -> None:
        """Write what was read to the disk, and close the files. Cancel `run` before."""
        await self._thread.close()

    async def _follow(self) -> None:
        delay = _RETRY_SECONDS
        while True:
            try:
                await self._continue()
                async with aclosing(self._store.watch(self._revision)) as revisions:
                    self._store_failure, delay = "", _RETRY_SECONDS
                    async for _ in revisions:
                        await self._catch_up()
            except StoreForgot:
                _LOG.error("the store has lost commits; the access log writes again what the store still has")
                self._store_failure, self._ready = "the store has lost commits", False
                self._forget()
            except StoreError as error:
                if not self._store_failure:
                    _LOG.error("the access log can't follow the store: %s", error)
                self._store_failure = str(error)
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries
            delay = min(delay * 2, _MAX_RETRY_SECONDS)

    def _forget(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(StoreForgot("the store lost commits before this one was in the log"))

    async def _continue(self) -> None:
        """Read the epoch and go on from the last event in the log, if the store still has the same history."""
        self._ready, last = False, self._last
        epoch = await self._store.epoch()
        if last.epoch == epoch and not await self._agrees(last):
            epoch = await self._store.renew_epoch(epoch)
        if last.epoch != epoch:
            detail: dict[str, Value] = {"previous_epoch": last.epoch, "previous_revision": last.revision}
            await self._write([await self._local_line(EventKind.STORE_OPENED, epoch, 0, detail)])
            last = self._last
        if self._epoch != epoch:
            if self._epoch:
                self._forget()
            self._epoch, self._revision = epoch, last.revision - (last.kind not in _LOCAL)
        await self._catch_up()
        self._ready = True
        self._epoch_changed.set()
        self._epoch_changed = asyncio.Event()

    async def _agrees(self, last: _LastLine) -> bool:
        """Whether the store still has the last event of the log, as far as the store remembers."""
        if last.kind in _LOCAL:
            return (await self._store.head()).revision >= last.revision
        try:
            commits = await self._store.read_since(last.revision - 1, 1)
        except Forgotten:
            return True
        except StoreForgot:
            return False
        return bool(commits) and any(_event_id(data) == last.event_id for data in commits[0].events)

    async def _catch_up(self) -> None:
        """Write everything that the store has and the log does not have."""
        while True:
            try:
                commits = await self._store.read_since(max(self._revision, 0))
            except Forgotten as error:
                await self._skip(error.first)
                continue
            if not commits:
                self._advance(max(self._revision, 0))
                return
            lines = [line for commit in commits for line in self._lines(commit)]
            await self._write(lines)
            self._advance(commits[-1].revision)

    async def _skip(self, first: int) -> None:
        """Say that the stream forgot commits before `first` that are not in the log."""
        lost = max(self._revision, self._last.revision) + 1  # the position is one less at start: see `_lines`
        if lost < first:
            _LOG.error("the access log lacks commits %d to %d, which the store forgot", lost, first - 1)
            detail: dict[str, Value] = {"from_revision": lost, "to_revision": first - 1}
            await self._write([await self._local_line(EventKind.STORE_SKIPPED, self._epoch, first - 1, detail)])
        self._advance(first - 1)

    def _lines(self, commit: Commit) -> list[bytes]:
        """Return the lines of a commit that are not in the log yet: a crash may have cut a commit in two."""
        events = commit.events
        last = self._last
        if commit.revision == last.revision and last.epoch == self._epoch and last.event_id:
            ids = [_event_id(data) for data in events]
            events = events[ids.index(last.event_id) + 1 :] if last.event_id in ids else events
        lines = []
        for data in events:
            try:
                lines.append(log_line(data, commit, self._epoch))
            except BadEvent:
                _LOG.error("commit %d of the store has an event that can't be read", commit.revision)
        return lines

    async def _local_line(self, kind: EventKind, epoch: str, revision: int, detail: Mapping[str, Value]) -> bytes:
        event = AccessEvent(kind, EventObject("store", epoch), detail=detail)
        head = await self._store.head()
        return log_line(encode_event(event), Commit(revision, head.time), epoch)

    async def _write(self, lines: Sequence[bytes]) -> None:
        if lines:
            await self._thread.write(lines)
            events = [_decode(line) for line in lines]
            self.written.update(event.kind for event in events)
            self._last = events[-1]

    def _advance(self, revision: int) -> None:
        self._revision = revision
        for waiting, needed in self._waiting.items():
            if needed <= revision and not waiting.done():
                waiting.set_result(None)


def _event_id(data: bytes) -> str:
    try:
        return read_event(data).event_id
    except BadEvent:
        return ""


def _last_event(path: Path) -> _LastLine:
    """Return the newest event of the log."""
    for line in newest_lines(path):
        try:
            last = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # a torn line
        if last.schema == SCHEMA:
            return last
    return _LastLine()

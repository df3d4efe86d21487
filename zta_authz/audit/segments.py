"""A log as tamper-evident files: one hash chain runs through all of them. The decision log and the access log use it.

A log has an ID, which events and checkpoints repeat, so that files of different logs can be distinguished. PATH is the
current segment. A finished segment ends in a seal and is renamed to PATH.00000001 and so on. Written data is never
changed: a line that a crash left incomplete stays, and the next line records its length.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.audit.hash_chain import Event, Link, Position, append, digest, event_line, read_link
from zta_authz.audit.outputs import WriteFailure, until_done, write_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.audit.checkpoints import CheckpointWriter

MAX_BYTES: Final = 100 * 1024 * 1024
MAX_FILES: Final = 10
FLUSH_SECONDS: Final = 1.0

_MODE = 0o640
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_TAIL_BYTES = 1024 * 1024  # no line is longer
_SEGMENT_DIGITS = 8
_LOCK_SUFFIX = ".lock"
_ID_BYTES = 16
_BEGINNING = b'{"seq":'
_LOG = logging.getLogger(__name__)


class LogFileError(OSError):
    """The files at the path can't be continued; `strerror` says why."""

    def __init__(self, message: str) -> None:
        super().__init__(0, message)


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of a segment: its last complete line, and the incomplete line that a crash left after it."""

    link: Link | None
    head: str
    torn: bytes


class SegmentedLog:
    """Writes records into segments of about `max_bytes`, and keeps `max_files` finished segments.

    Written data is on disk (fsync) within `flush_seconds`. PATH.lock ensures that only one process writes.
    """

    def __init__(
        self,
        path: str,
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
        flush_seconds: float = FLUSH_SECONDS,
        checkpoints: CheckpointWriter | None = None,
    ) -> None:
        """Continue or create the log at `path`. Raises OSError if that is impossible."""
        self.lost = 0
        self.held_since: float | None = None
        self._write_failure, self._flush_failure = WriteFailure(f"the log {Path(path).name}"), WriteFailure()
        self._path = Path(path)
        self._max_bytes, self._max_files = max_bytes, max_files
        self._flush_seconds = flush_seconds
        self._checkpoints = checkpoints
        self._position = Position()
        self._segment = self._lines = self._size = 0
        self._log = ""
        self._first = 1
        self._flush_due: float | None = None
        self._lock = _lock(self._path)
        self._descriptor = -1
        try:
            self._resume()
            self._check_last_checkpoint()
        except BaseException:
            self._release()
            raise

    @property
    def failing(self) -> str:
        """Why records can't be written to disk or checkpoints can't be signed; "" if both work."""
        unsigned = "" if self._checkpoints is None else self._checkpoints.failure
        return self._write_failure.reason or self._flush_failure.reason or (unsigned and f"checkpoints: {unsigned}")

    def write(self, lines: Sequence[bytes]) -> None:
        """Append the records to the chain, and start a new segment if this one is full."""
        self._append(lines)
        if self._size >= self._max_bytes:
            self._rotate()

    def sync(self) -> bool:
        """Write everything to the disk now. Return False if that failed."""
        return self._flush()

    def seconds_until_due(self) -> float | None:
        """Return the seconds until a flush or checkpoint is due."""
        now = time.monotonic()
        due = [at - now for at in (self._flush_due, self._checkpoint_due()) if at is not None]
        return max(0.0, min(due)) if due else None

    def run_due_work(self) -> None:
        """Flush or sign if due."""
        now = time.monotonic()
        signing = self._checkpoint_due()
        if signing is not None and now >= signing:
            self._sign()
        elif self._flush_due is not None and now >= self._flush_due:
            self._flush()

    def hurry(self, seconds: float) -> None:
        """Do nothing: the log waits for the disk until the process ends."""

    def close(self) -> None:
        """Flush, sign what was written since the last checkpoint, and release the files."""
        self._sign()
        self._release()

    def _release(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.close()
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)

    def _resume(self) -> None:
        """Find the end of the chain, after finishing a rotation that a crash interrupted."""
        self._descriptor = os.open(self._path, _FLAGS, _MODE)
        tail = _read_tail(self._descriptor)
        if tail.link is not None and tail.link.event == Event.SEAL:
            os.close(self._descriptor)
            self._descriptor = -1
            self._set_position(tail)
            self._log = _log_id(self._path)
            if self._finished_name(tail.link.segment).exists():
                raise LogFileError(f"`{self._finished_name(tail.link.segment).name}` exists already")
            self._begin_after(tail.link.segment)
            return
        self._size = os.fstat(self._descriptor).st_size
        if tail.link is None:
            self._open_empty_file(tail)
            return
        self._set_position(tail)
        self._segment, self._lines = self._read_segment_number()
        torn: dict[str, str | int | None] = {}
        if tail.torn:
            _LOG.warning("the log %s ends in a torn line of %d bytes", self._path.name, len(tail.torn))
            torn = {"torn_bytes": len(tail.torn), "torn_sha256": digest(tail.torn)}
            self._write(b"\n")
        self._append([self._event(Event.RESUME, **torn)])

    def _check_last_checkpoint(self) -> None:
        """Take the first kept segment from the newest checkpoint, because the files may be forged, and compare them."""
        last = None if self._checkpoints is None else self._checkpoints.last
        if last is None:
            return
        if last.log != self._log and last.log:
            _LOG.error("the newest checkpoint belongs to another log than %s: was it replaced?", self._path.name)
        elif last.seq > self._position.seq:
            name = self._path.name
            _LOG.error("the log %s ends before record %d, which a checkpoint covers: it was cut", name, last.seq)
        if last.log == self._log:
            self._first = max(last.first_segment, 1)

    def _open_empty_file(self, tail: _Tail) -> None:
        """Write the opening line of the first segment, or of the one after the newest finished segment."""
        if not tail.torn.startswith(_BEGINNING[: len(tail.torn)]):
            raise LogFileError("it contains something other than a log of zta-authz; move it away")
        if tail.torn:  # not even the opening line is complete, so nothing was recorded here
            os.ftruncate(self._descriptor, 0)
            self._size = 0
        finished = finished_segments(self._path)
        if finished:
            newest = os.open(finished[-1], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                last = _read_tail(newest)
            finally:
                os.close(newest)
            if last.link is None:
                raise LogFileError(f"`{finished[-1].name}` is not a segment of a log")
            self._set_position(last)
            self._log = _log_id(finished[-1])
        self._open_event(int(finished[-1].suffix[1:]) if finished else 0)

    def _set_position(self, tail: _Tail) -> None:
        if tail.link is not None:
            self._position = Position(tail.link.seq, tail.head)

    def _read_segment_number(self) -> tuple[int, int]:
        """Return the number of this segment and its number of complete lines."""
        with self._path.open("rb") as file:
            first = read_link(file.readline(_TAIL_BYTES).rstrip(b"\n"))
            if first is None or first.event != Event.OPEN:
                raise LogFileError("it does not start like a segment of a log; move it away")
        self._log = first.log
        return first.segment, self._position.seq - first.seq + 1

    def _open_event(self, previous: int) -> None:
        self._segment, self._lines = previous + 1, 0
        self._log = self._log or secrets.token_hex(_ID_BYTES)  # logs of earlier versions have none
        name = self._finished_name(previous).name if previous else None
        self._append([self._event(Event.OPEN, previous_file=name)])
        self._flush()

    def _event(self, event: Event, **fields: str | int | None) -> bytes:
        if self._log:
            fields["log"] = self._log
        return event_line(event, self._segment, time.time(), **fields)

    def _append(self, lines: Sequence[bytes]) -> None:
        position, linked = append(self._position, *lines)
        self._write(linked)
        self._position = position
        self._lines += len(lines)

    def _write(self, data: bytes) -> None:
        write_all(self._descriptor, data, self._write_failure)
        self._size += len(data)
        if self._flush_due is None:
            self._flush_due = time.monotonic() + self._flush_seconds

    def _rotate(self) -> None:
        self._append([self._event(Event.SEAL, count=self._lines, head=self._position.head)])
        self._sign()
        os.close(self._descriptor)
        self._descriptor = -1
        self._begin_after(self._segment)

    def _begin_after(self, segment: int) -> None:
        """Rename the finished segment and open the next."""
        finished = self._finished_name(segment)

        def rename() -> bool:
            if finished.exists():
                raise FileExistsError(0, f"`{finished.name}` exists already")
            self._path.rename(finished)
            return True

        def open_next() -> bool:
            self._descriptor = os.open(self._path, _FLAGS | os.O_EXCL, _MODE)
            return True

        until_done(rename, self._write_failure)
        until_done(open_next, self._write_failure)
        self._size = 0
        self._open_event(segment)
        _sync_directory(self._path.parent)
        self._remove_old(segment - self._max_files)

    def _remove_old(self, newest: int) -> None:
        """Remove the segments up to the number `newest`, after a checkpoint records it.

        The number is counted and never read from files. Otherwise someone who can write the files could have the
        absence of a segment signed.
        """
        if newest < self._first:
            return
        self._first = newest + 1
        if self._checkpoints is not None:
            self._sign()
        for file in [file for file in finished_segments(self._path) if int(file.suffix[1:]) <= newest]:
            try:
                file.unlink()
            except OSError as error:
                _LOG.error("the old log %s can't be removed: %s", file.name, error.strerror)

    def _finished_name(self, segment: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{segment:0{_SEGMENT_DIGITS}}")

    def _flush(self) -> bool:
        """Write everything to disk. Log a failure and return False."""
        self._flush_due = None
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._flush_failure.reason = error.strerror or type(error).__name__
            _LOG.error("the log %s can't be flushed: %s", self._path.name, error.strerror)
            self._flush_due = time.monotonic() + self._flush_seconds
            return False
        self._flush_failure.reason = ""
        return True

    def _checkpoint_due(self) -> float | None:
        return None if self._checkpoints is None else self._checkpoints.due(self._position)

    def _sign(self) -> None:
        """Sign a checkpoint, after a flush: it must not cover lines that a power failure could remove."""
        flushed = self._flush()
        if self._checkpoints is None:
            return
        if flushed:
            self._checkpoints.write(self._position, self._segment, self._log, self._first)
        else:
            self._checkpoints.postpone()


def _lock(path: Path) -> int:
    """Acquire the path's lock. Raises OSError if another process holds it."""
    descriptor = os.open(f"{path}{_LOCK_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LogFileError("another process writes this log") from None
    return descriptor


def is_lock_file(path: Path) -> bool:
    """Whether `path` is the empty lock file of a log, which `decisions.jsonl*` matches too."""
    return path.suffix == _LOCK_SUFFIX and path.is_file() and not path.stat().st_size


def _read_tail(descriptor: int) -> _Tail:
    """Read the end of a file. Raises `LogFileError` if its last complete line is not a line of a chain."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    whole, newline, torn = data.rpartition(b"\n")
    if not newline:
        if size > _TAIL_BYTES:
            raise LogFileError("its last line is too long; move it away")
        return _Tail(None, "", data)
    line = whole.rpartition(b"\n")[2]
    link = read_link(line)
    if link is None:
        raise LogFileError("its last line is not a line of a log; verify it, then move it away")
    return _Tail(link, digest(line), torn)


def _first_link(path: Path) -> Link | None:
    """Read the first line of a segment, None if it can't be read."""
    try:
        with path.open("rb") as file:
            return read_link(file.readline(_TAIL_BYTES).rstrip(b"\n"))
    except OSError:
        return None


def _log_id(path: Path) -> str:
    """Return the ID of the log that the segment belongs to, "" if it has none."""
    first = _first_link(path)
    return "" if first is None else first.log


def finished_segments(path: Path) -> list[Path]:
    """List the finished segments of a path, oldest first."""
    pattern = re.compile(rf"{re.escape(path.name)}\.\d{{{_SEGMENT_DIGITS}}}", re.ASCII)
    return sorted(file for file in path.parent.iterdir() if pattern.fullmatch(file.name))


def _sync_directory(directory: Path) -> None:
    """Write renames to disk too. Log a failure, because some file systems don't support it."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        _LOG.error("the log's directory can't be flushed: %s", error.strerror)

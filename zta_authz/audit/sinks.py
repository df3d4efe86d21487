"""Where decision records go: `record` puts a note into a bounded queue, a thread encodes and writes them in batches.

The work on records is done by the thread, many at a time: after a request's own code has run, each line of code for
its record would have to be fetched from memory first, which costs several times what running it does.

The queue is what a slow reader of the log may fall behind by. Past it an allow is refused, because a decision that
nobody can account for must not stand; denials give up earlier, so that a flood of them leaves room for allows.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from zta_authz.audit.record import encode_line, make_record, stub_line, take_note

if TYPE_CHECKING:
    from zta_authz.audit.record import Note
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes

QUEUE_RECORDS = 8192
QUEUE_BYTES = 16 * 1024 * 1024
"""Memory for what is queued. Usual requests reach the number of records first, long ones this."""
DENIAL_SHARE = 0.75
"""The part of the queue that denials may fill."""
BATCH_RECORDS = 64
"""Encoded at a time: the thread keeps the interpreter from answering for a quarter of a millisecond, not for longer."""

_BATCH_SECONDS = 0.05  # the thread wakes once for the records of this time; each waking keeps answers waiting
_RETRY_SECONDS = 0.1
_CLOSE_SECONDS = 5.0
_STDOUT = 1
_LOG = logging.getLogger(__name__)


class OnFull(StrEnum):
    """What an allow becomes when its record can't be kept."""

    DENY = "deny"
    DROP_AND_COUNT = "drop_and_count"


class NullSink:
    """Keeps nothing and refuses nothing, for those who have another record."""

    dropped = 0
    queued = 0

    def record(self, request: RequestAttributes | None, decision: Decision, decision_id: str, now: float) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Nothing to flush."""


class LineSink:
    """Writes records as lines to a file descriptor. `written` counts the lines since the start."""

    def __init__(
        self,
        descriptor: int,
        *,
        capacity: int = QUEUE_RECORDS,
        max_bytes: int = QUEUE_BYTES,
        on_full: OnFull = OnFull.DENY,
    ) -> None:
        """Take over `descriptor`, which is closed with the sink; `capacity` is in records."""
        self.written = 0
        self._descriptor = descriptor
        self._room = {True: capacity, False: int(capacity * DENIAL_SHARE)}
        self._room_bytes = {True: max_bytes, False: int(max_bytes * DENIAL_SHARE)}
        self._on_full = on_full
        self._notes: deque[Note] = deque()
        # each of these four has one writer, so that no count needs a lock: the caller's thread and ours
        self._refused = self._queued_bytes = 0
        self._lost = self._done_bytes = 0
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_batches, name="audit", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records since the start that were not taken, or could not be written."""
        return self._refused + self._lost

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return len(self._notes)

    def record(self, request: RequestAttributes | None, decision: Decision, decision_id: str, now: float) -> bool:
        """Queue the record. False where there is no room, unless the operator chose to drop and count."""
        allowed = decision.allowed
        if (
            len(self._notes) >= self._room[allowed]
            or self._queued_bytes - self._done_bytes >= self._room_bytes[allowed]
            or self._closing.is_set()
        ):
            self._refused += 1
            return self._on_full is OnFull.DROP_AND_COUNT
        note = take_note(request, decision, decision_id, now)
        self._queued_bytes += note.size()
        self._notes.append(note)
        if not self._awake.is_set():
            self._awake.set()
        return True

    def close(self) -> None:
        """Write what is queued, for five seconds at most, and stop; what is recorded later is refused."""
        self._closing.set()
        self._awake.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the decision log did not take its last records: %d are lost", len(self._notes))

    def _write_batches(self) -> None:
        while True:
            self._awake.wait()
            self._closing.wait(_BATCH_SECONDS)
            self._awake.clear()
            closing = self._closing.is_set()
            while self._notes:
                self._write_batch()
            if closing:
                os.close(self._descriptor)
                return

    def _write_batch(self) -> None:
        """Encode and write the oldest records; others may append meanwhile. Raises nothing: the thread must go on."""
        batch = [self._notes.popleft() for _ in range(min(len(self._notes), BATCH_RECORDS))]
        try:
            self._write(b"".join([_line(note) for note in batch]))
            self.written += len(batch)
        except Exception as error:  # noqa: BLE001  out of memory, say: these are lost, those to come need not be
            self._lost += len(batch)
            _LOG.error("%d decision records are lost: %s", len(batch), type(error).__qualname__)
        finally:
            self._done_bytes += sum(note.size() for note in batch)

    def _write(self, data: bytes) -> None:
        """Write all of `data`, however often it takes; a reader that is gone or a full disk is waited for."""
        failing = False
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
                failing = False
            except OSError as error:
                if not failing:
                    _LOG.error("the decision log can't be written: %s", error.strerror)
                failing = True
                threading.Event().wait(_RETRY_SECONDS)


def _line(note: Note) -> bytes:
    """The record as a line, or what can be said of one that can't be encoded: a bug, but the decision stands."""
    try:
        return encode_line(make_record(note))
    except Exception as error:  # noqa: BLE001
        _LOG.error("the record of decision %s can't be made: %s", note.decision_id, type(error).__qualname__)
        return stub_line(note)


class StdoutSink(LineSink):
    """The decision log on standard output, where a cluster's log collector reads it."""

    def __init__(self, *, capacity: int = QUEUE_RECORDS, on_full: OnFull = OnFull.DENY) -> None:
        super().__init__(os.dup(_STDOUT), capacity=capacity, on_full=on_full)


class FileSink(LineSink):
    """The decision log appended to the file at `path`, made with mode 0640. Raises OSError where it can't be opened."""

    def __init__(self, path: str, *, capacity: int = QUEUE_RECORDS, on_full: OnFull = OnFull.DENY) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        super().__init__(descriptor, capacity=capacity, on_full=on_full)

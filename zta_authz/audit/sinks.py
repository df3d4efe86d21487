"""Where decision records go. `record` puts a line into a bounded queue and returns; a thread writes whole batches.

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

from zta_authz.audit.record import encode_line, make_record

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes

QUEUE_RECORDS = 8192
DENIAL_SHARE = 0.75
"""The part of the queue that denials may fill."""

_BATCH_SECONDS = 0.01  # one write for the records of this time, instead of waking the thread for each
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

    def record(self, request: RequestAttributes | None, decision: Decision, decision_id: str, now: float) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Nothing to flush."""


class LineSink:
    """Writes records as lines to a file descriptor. `written` and `dropped` count records since the start."""

    def __init__(self, descriptor: int, *, capacity: int = QUEUE_RECORDS, on_full: OnFull = OnFull.DENY) -> None:
        """Take over `descriptor`, which is closed with the sink; `capacity` is in records."""
        self.written = 0
        self.dropped = 0
        self._descriptor = descriptor
        self._capacity = capacity
        self._denial_capacity = int(capacity * DENIAL_SHARE)
        self._on_full = on_full
        self._lines: deque[bytes] = deque()
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_batches, name="audit", daemon=True)
        self._thread.start()

    def record(self, request: RequestAttributes | None, decision: Decision, decision_id: str, now: float) -> bool:
        """Queue the record. False where there is no room, unless the operator chose to drop and count."""
        room = self._capacity if decision.allowed else self._denial_capacity
        if len(self._lines) >= room or self._closing.is_set():
            self.dropped += 1
            return self._on_full is OnFull.DROP_AND_COUNT
        self._lines.append(encode_line(make_record(request, decision, decision_id, now)))
        if not self._awake.is_set():
            self._awake.set()
        return True

    def close(self) -> None:
        """Write what is queued, for five seconds at most, and stop; what is recorded later is refused."""
        self._closing.set()
        self._awake.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the decision log did not take its last records: %d are lost", len(self._lines))

    def _write_batches(self) -> None:
        while True:
            self._awake.wait()
            self._closing.wait(_BATCH_SECONDS)
            self._awake.clear()
            batch = self._take()
            if batch:
                self._write(b"".join(batch))
                self.written += len(batch)
            elif self._closing.is_set():
                os.close(self._descriptor)
                return
            if self._closing.is_set():
                self._awake.set()

    def _take(self) -> list[bytes]:
        """All that is queued now; others may append meanwhile."""
        return [self._lines.popleft() for _ in range(len(self._lines))]

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


class StdoutSink(LineSink):
    """The decision log on standard output, where a cluster's log collector reads it."""

    def __init__(self, *, capacity: int = QUEUE_RECORDS, on_full: OnFull = OnFull.DENY) -> None:
        super().__init__(os.dup(_STDOUT), capacity=capacity, on_full=on_full)


class FileSink(LineSink):
    """The decision log appended to the file at `path`, made with mode 0640. Raises OSError where it can't be opened."""

    def __init__(self, path: str, *, capacity: int = QUEUE_RECORDS, on_full: OnFull = OnFull.DENY) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        super().__init__(descriptor, capacity=capacity, on_full=on_full)

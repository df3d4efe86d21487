"""How decision records get out: `record` puts a note into a bounded queue, a thread encodes and writes them in batches.

The work on records is done by the thread, many at a time: after a request's own code has run, each line of code for
its record would have to be fetched from memory first, which costs several times what running it does.

The queue is what a slow reader of the log may fall behind by. Past it an allow is refused, because a decision that
nobody can account for must not stand; denials give up earlier, so that a flood of them leaves room for allows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING

from zta_authz.audit.masking import Masker
from zta_authz.audit.record import encode_line, make_record, stub_line, take_note

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.audit.outputs import Output
    from zta_authz.audit.record import Note
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes
    from zta_authz.ports import Metadata

QUEUE_RECORDS = 8192
QUEUE_BYTES = 16 * 1024 * 1024
"""Memory for what is queued. Usual requests reach the number of records first, long ones this."""
DENIAL_SHARE = 0.75
"""The part of the queue that denials may fill."""
BATCH_RECORDS = 64
"""Encoded at a time: the thread keeps the interpreter from answering for a quarter of a millisecond, not for longer."""

_BATCH_SECONDS = 0.05  # the thread wakes once for the records of this time; each waking keeps answers waiting
_CLOSE_SECONDS = 5.0
_END_SECONDS = 0.25  # for the thread to end by itself once it gave up
_SAMPLED_DIGITS = 8
_LOG = logging.getLogger(__name__)


class OnFull(StrEnum):
    """What an allow becomes when its record can't be kept."""

    DENY = "deny"
    DROP_AND_COUNT = "drop_and_count"


class NullSink:
    """Keeps nothing and refuses nothing, for those who have another record."""

    dropped = 0
    queued = 0
    unsampled = 0
    table_digest = ""

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
    ) -> bool:
        """True."""
        return True

    def sample(self, share: float) -> None:
        """There is nothing to sample."""

    def close(self, seconds: float = 0.0) -> None:
        """Nothing to flush."""


NO_MASKS = Masker(())


def sampled_below(share: float) -> str | None:
    """What the first digits of a decision's id are less than where an allow is kept; None: all are kept.

    By the id, so that whoever samples with the same share keeps the same decisions.
    """
    return None if share >= 1 else f"{int(share * 16**_SAMPLED_DIGITS):0{_SAMPLED_DIGITS}x}"


def _remarkable(decision: Decision) -> bool:
    """Whether it is recorded even where only a sample of its kind is."""
    return bool(decision.shadows) or decision.disagreement is not None


class LineSink:
    """Hands records as lines to an output. `written` counts the lines since the start, `unsampled` the allows left out.

    `table_digest` is set by whoever puts rules in force.
    """

    def __init__(
        self,
        output: Output,
        *,
        capacity: int = QUEUE_RECORDS,
        max_bytes: int = QUEUE_BYTES,
        on_full: OnFull = OnFull.DENY,
        masker: Masker = NO_MASKS,
        sample_allows: float = 1.0,
    ) -> None:
        """Take over `output`, which is closed with the sink; `capacity` is in records.

        `sample_allows` is the share of allows that is kept, from 0 to 1; denials are all kept.
        """
        self.written = 0
        self.unsampled = 0
        self.table_digest = ""
        self._output = output
        self._masker = masker
        self._sampled_below = sampled_below(sample_allows)
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
        """Records since the start that were not taken, or could not be written, or kept where they were written."""
        return self._refused + self._lost + self._output.lost

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return len(self._notes)

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
    ) -> bool:
        """Queue the record. False where there is no room, unless the operator chose to drop and count.

        An allow that is not sampled is only counted; those that an AUDIT rule or one in dry run matched, or that the
        shadow policies would deny, are all kept.
        """
        allowed = decision.allowed
        below = self._sampled_below
        if below is not None and allowed and decision_id[:_SAMPLED_DIGITS] >= below and not _remarkable(decision):
            self.unsampled += 1
            return True
        if (
            len(self._notes) >= self._room[allowed]
            or self._queued_bytes - self._done_bytes >= self._room_bytes[allowed]
            or self._closing.is_set()
        ):
            self._refused += 1
            return self._on_full is OnFull.DROP_AND_COUNT
        note = take_note(request, decision, decision_id, now, time.time(), self.table_digest, metadata)
        self._queued_bytes += note.size()
        self._notes.append(note)
        if not self._awake.is_set():
            self._awake.set()
        return True

    def sample(self, share: float) -> None:
        """From now on keep this share of allows."""
        self._sampled_below = sampled_below(share)

    def close(self, seconds: float = 0.0) -> None:
        """Write what is queued, for `seconds` at most but five in any case, and stop; later records are refused."""
        seconds = max(seconds, _CLOSE_SECONDS)
        self._closing.set()
        self._output.hurry(seconds)
        self._awake.set()
        self._thread.join(seconds + _END_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the decision log did not take its last records: %d are lost", len(self._notes))

    def _write_batches(self) -> None:
        while True:
            if self._awake.wait(self._output.patience()):
                self._closing.wait(_BATCH_SECONDS)
            self._awake.clear()
            closing = self._closing.is_set()
            while self._notes:
                self._write_batch()
            self._guard(self._output.tend)
            if closing:
                self._guard(self._output.close)
                return

    def _guard(self, step: Callable[[], None]) -> None:
        """Do what keeps no record waiting. Raises nothing: the thread must go on."""
        try:
            step()
        except Exception as error:  # noqa: BLE001
            _LOG.error("the decision log could not be tended: %s", type(error).__qualname__)

    def _write_batch(self) -> None:
        """Encode and write the oldest records; others may append meanwhile. Raises nothing: the thread must go on."""
        batch = [self._notes.popleft() for _ in range(min(len(self._notes), BATCH_RECORDS))]
        try:
            self._output.write([self._line(note) for note in batch])
            self.written += len(batch)
        except Exception as error:  # noqa: BLE001  out of memory, say: these are lost, those to come need not be
            self._lost += len(batch)
            _LOG.error("%d decision records are lost: %s", len(batch), type(error).__qualname__)
        finally:
            self._done_bytes += sum(note.size() for note in batch)
        self._guard(self._output.tend)

    def _line(self, note: Note) -> bytes:
        """The record as a line, or what can be said of one that can't be encoded: a bug, but the decision stands."""
        try:
            return encode_line(self._masker.mask(make_record(note)))
        except Exception as error:  # noqa: BLE001
            _LOG.error("the record of decision %s can't be made: %s", note.decision_id, type(error).__qualname__)
            return stub_line(note)

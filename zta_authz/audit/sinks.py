"""How decision records get out: `record` takes notes, makes lines of many at a time, and a thread writes those.

Lines are made many at a time: after a request's own code has run, each line of code for its record would have to be
fetched from memory first, which costs several times what running it does. They are made soon, because what a note holds
would have to be fetched again, too; so the caller makes them, and the thread those of the few that came last.

The queue is what a slow reader of the log may fall behind by. Past it an allow is refused, because a decision that
nobody can account for must not stand; denials give up earlier, so that a flood of them leaves room for allows.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from enum import StrEnum
from time import time
from typing import TYPE_CHECKING

from zta_authz.audit.lines import LineEncoder
from zta_authz.audit.masking import Masker
from zta_authz.audit.record import MAX_TEXT_CHARACTERS, capture, stub_line
from zta_authz.model.decision import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.audit.outputs import Output
    from zta_authz.audit.record import PendingRecord
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes
    from zta_authz.ports import Metadata

QUEUE_RECORDS = 8192
QUEUE_BYTES = 16 * 1024 * 1024
"""Memory for what is queued. Usual requests reach the number of records first, long ones this."""
DENIAL_SHARE = 0.75
"""The part of the queue that denials may fill."""
NOTED_RECORDS = 128
"""Notes whose lines are made at a time; they keep calls from being answered for a quarter of a millisecond."""
WRITTEN_RECORDS = 256
"""Lines that are written at a time: the thread keeps the interpreter for a quarter of a millisecond, not for longer."""

_BATCH_SECONDS = 0.05  # the thread wakes once for the records of this time; each waking keeps answers waiting
_CLOSE_SECONDS = 5.0
_HURRY_SECONDS = 1.0
_END_SECONDS = 0.25  # for the thread to end by itself once it gave up
_LINE_BYTES = 64  # of memory, beside its characters
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
    failing = ""
    oldest_unwritten: float | None = None
    unsampled = 0

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """True."""
        return True

    def sample(self, share: float) -> None:
        """There is nothing to sample."""

    def hurry(self) -> None:
        """There is nothing to wait for."""

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
    """Hands records as lines to an output. `written` counts lines since the start, `unsampled` the allows left out."""

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
        self._output = output
        self._make = LineEncoder(masker).line
        self._sampled_below = sampled_below(sample_allows)
        self._room, self._room_of_denials = capacity, int(capacity * DENIAL_SHARE)
        self._room_bytes, self._room_bytes_of_denials = max_bytes, int(max_bytes * DENIAL_SHARE)
        self._on_full = on_full
        self._notes: deque[PendingRecord] = deque()
        self._lines: deque[list[bytes]] = deque()
        self._since: deque[float] = deque()  # for each list in `_lines`, when its oldest decision was made
        self._batch_since: float | None = None
        self._making = threading.Lock()
        # each count has one writer, so that none needs a lock: the caller's thread, who holds `_making`, our thread
        self._refused = self._taken = 0
        self._unmade = self._queued_bytes = 0
        self._begun = self._lost = self._done_bytes = 0
        self._asleep, self._closed = True, False
        self._awake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_batches, name="audit", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records since the start that were not taken, or could not be written, or kept where they were written."""
        return self._refused + self._unmade + self._lost + self._output.lost

    @property
    def queued(self) -> int:
        """Records that wait to be written."""
        return self._taken - self._unmade - self._begun

    @property
    def failing(self) -> str:
        """Why nothing can be written at the moment, in a few words; "" while it can."""
        return self._output.failing

    @property
    def oldest_unwritten(self) -> float | None:
        """When the oldest decision was made whose record has not been written (epoch seconds); None without any."""
        with suppress(IndexError):  # the other thread took the last one while we looked
            if (held := self._output.held_since) is not None:
                return held
            if (since := self._batch_since) is not None:
                return since
            if self._since:
                return self._since[0]
            if self._notes:
                return self._notes[0].now
        return None

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Queue the record. False where there is no room, unless the operator chose to drop and count.

        An allow that is not sampled is only counted; those that an AUDIT rule or one in dry run matched, or that the
        shadow policies would deny, are all kept.
        """
        allowed = decision.verdict is Verdict.ALLOW
        below = self._sampled_below
        if below is not None and allowed and decision_id[:_SAMPLED_DIGITS] >= below and not _remarkable(decision):
            self.unsampled += 1
            return True
        if (
            self._taken - self._unmade - self._begun >= (self._room if allowed else self._room_of_denials)
            or self._queued_bytes - self._done_bytes >= (self._room_bytes if allowed else self._room_bytes_of_denials)
            or self._closed
        ):
            self._refused += 1
            return self._on_full is OnFull.DROP_AND_COUNT
        notes = self._notes
        note = capture(request, decision, decision_id, now, time(), table_digest, metadata)
        notes.append(note)
        self._taken += 1
        texts = len(note.path) + len(note.host) + len(note.method) + len(note.request_id) + len(note.trace_parent)
        if len(notes) >= NOTED_RECORDS or texts + len(decision.detail) > MAX_TEXT_CHARACTERS:  # a long one can't wait
            self._make_lines()
        if self._asleep:
            self._asleep = False
            self._awake.set()
        return True

    def sample(self, share: float) -> None:
        """From now on keep this share of allows."""
        self._sampled_below = sampled_below(share)

    def hurry(self) -> None:
        """The end is wanted at once: what can't be kept within a second is not waited for any longer."""
        self._output.hurry(_HURRY_SECONDS)

    def close(self, seconds: float = 0.0) -> None:
        """Write what is queued, for `seconds` at most but five in any case, and stop; later records are refused."""
        seconds = max(seconds, _CLOSE_SECONDS)
        self._closed = True
        self._closing.set()
        self._output.hurry(seconds)
        self._awake.set()
        self._thread.join(seconds + _END_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the decision log did not take its last records: %d are lost", self.queued)

    def _make_lines(self, *, wait: bool = False) -> None:
        """Make lines of the notes, in their order; without `wait`, only if the other thread is not at it."""
        if not self._making.acquire(blocking=wait):
            return
        try:
            notes = [self._notes.popleft() for _ in range(len(self._notes))]
            lines = self._lines_of(notes)
            self._unmade += len(notes) - len(lines)
            self._queued_bytes += _memory(lines)
            if notes:
                self._since.append(notes[0].now)
                self._lines.append(lines)
        finally:
            self._making.release()

    def _lines_of(self, notes: Sequence[PendingRecord]) -> list[bytes]:
        try:
            return list(map(self._make, notes))
        except Exception:  # noqa: BLE001  one of them can't be made; the others can
            return [line for line in map(self._stub_or_line, notes) if line]

    def _stub_or_line(self, note: PendingRecord) -> bytes:
        """The line, or what can be said where it can't be made: a bug, but the decision stands. Else b""."""
        try:
            return self._make(note)
        except Exception as error:  # noqa: BLE001
            _LOG.error("the record of decision %s can't be made: %s", note.decision_id, type(error).__qualname__)
        try:
            return stub_line(note)
        except Exception as error:  # noqa: BLE001  out of memory, say: this one is lost, those to come need not be
            _LOG.error("a decision record is lost: %s", type(error).__qualname__)
            return b""

    def _write_batches(self) -> None:
        while True:
            if self._awake.wait(self._output.patience()):
                self._closing.wait(_BATCH_SECONDS)
            self._awake.clear()
            self._asleep = True  # from here on a note wakes us again
            closing = self._closing.is_set()
            while self._notes or self._lines:
                if self._notes:
                    self._make_lines(wait=True)
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
        """Write the oldest lines; others may be added meanwhile. Raises nothing: the thread must go on."""
        batch: list[bytes] = []
        while self._lines and len(batch) < WRITTEN_RECORDS:
            batch += self._lines.popleft()
            since = self._since.popleft()
            if self._batch_since is None:
                self._batch_since = since
        self._begun += len(batch)
        try:
            self._output.write(batch)
            self.written += len(batch)
        except Exception as error:  # noqa: BLE001  out of memory, say: these are lost, those to come need not be
            self._lost += len(batch)
            _LOG.error("%d decision records are lost: %s", len(batch), type(error).__qualname__)
        finally:
            self._done_bytes += _memory(batch)
            self._batch_since = None
        self._guard(self._output.tend)


def _memory(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + _LINE_BYTES * len(lines)

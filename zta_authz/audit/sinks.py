"""The queue of decision records: `record` captures them, encodes many at a time, and a thread writes the lines.

Records are encoded in batches, because encoding one right after its request finds its code outside of the CPU caches
and takes several times as long. They are encoded soon, because their data would leave the caches too. So the caller
encodes the batches, and the thread only the last few records.

The size of the queue limits how far a slow output may fall behind. When it is full, an allow is refused, because no
decision may go unrecorded. Denials are refused earlier, so that a flood of them leaves capacity for allows.
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
from zta_authz.audit.record import MAX_TEXT_CHARACTERS, PendingRecord, stub_line
from zta_authz.model.decision import Verdict
from zta_authz.model.request import RequestAttributes
from zta_authz.model.trace_context import call_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.audit.outputs import Output
    from zta_authz.model.decision import Decision
    from zta_authz.ports import Metadata

QUEUE_RECORDS = 8192
QUEUE_BYTES = 16 * 1024 * 1024
"""Memory limit of the queue. Ordinary requests reach the limit of records first, long ones this limit."""
DENIAL_SHARE = 0.75
"""The share of the queue that denials may fill."""
ENCODE_BATCH = 128
"""Records that are encoded at a time, which delays other calls by a quarter of a millisecond."""
WRITE_BATCH = 256
"""Lines that are written at a time. The thread holds the interpreter for a quarter of a millisecond for them."""

_BATCH_SECONDS = 0.05  # the thread wakes at most once in this time, because each wake-up delays answers
_CLOSE_SECONDS = 5.0
_HURRY_SECONDS = 1.0
_END_SECONDS = 0.25  # for the thread to end after its deadline
_LINE_BYTES = 64  # memory overhead of a line
_SAMPLED_DIGITS = 8
_NOT_PARSED = RequestAttributes()
_LOG = logging.getLogger(__name__)


class OnFull(StrEnum):
    """What happens to an allow whose record can't be kept."""

    DENY = "deny"
    DROP_AND_COUNT = "drop_and_count"


class NullSink:
    """Keeps nothing and refuses nothing (`audit.sink: none`)."""

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
        """Return True."""
        return True

    def sample(self, share: float) -> None:
        """Do nothing."""

    def hurry(self) -> None:
        """Do nothing."""

    def close(self, seconds: float = 0.0) -> None:
        """Do nothing."""


NO_MASKS = Masker(())


def sampled_below(share: float) -> str | None:
    """Return the limit below which the first digits of a decision ID select an allow; None selects all.

    Selecting by ID means that all systems with the same share keep the same decisions.
    """
    return None if share >= 1 else f"{int(share * 16**_SAMPLED_DIGITS):0{_SAMPLED_DIGITS}x}"


def capture(
    request: RequestAttributes | None,
    decision: Decision,
    decision_id: str,
    now: float,
    ended: float = 0.0,
    table_digest: str = "",
    metadata: Metadata = (),
) -> PendingRecord:
    """Capture what the record of a decision needs; `request` is None if it was not parsed.

    `now` is when the request arrived and `ended` when it was decided, in seconds since the epoch. `table_digest`
    identifies the rules in force. `metadata` is that of the gRPC call.
    """
    if request is None:
        request = _NOT_PARSED
    parent = call_parent(metadata) if metadata else None  # the proxy's own span, as our span's parent is
    return PendingRecord(
        decision_id,
        now,
        decision,
        request.method,
        request.host,
        request.path,
        request.source,
        request.destination,
        request.request_id,
        parent or request.headers.joined("traceparent") or "",  # else the client's word
        ended,
        table_digest,
    )


def _always_recorded(decision: Decision) -> bool:
    """Whether a decision is recorded even if it is not sampled."""
    return bool(decision.shadows) or decision.disagreement is not None


class LineSink:
    """Queues records and writes them as lines to an output.

    Counts since the start: `written` lines, and `unsampled` allows that were left out.
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
        """Start the writer thread. The sink owns `output` and closes it; `capacity` is in records.

        `sample_allows` is the share of allows that is kept, from 0 to 1. All denials are kept.
        """
        self.written = 0
        self.unsampled = 0
        self._output = output
        self._encode = LineEncoder(masker).line
        self._sampled_below = sampled_below(sample_allows)
        self._capacity, self._denial_capacity = capacity, int(capacity * DENIAL_SHARE)
        self._max_bytes, self._denial_max_bytes = max_bytes, int(max_bytes * DENIAL_SHARE)
        self._on_full = on_full
        self._pending: deque[PendingRecord] = deque()
        self._lines: deque[list[bytes]] = deque()
        self._since: deque[float] = deque()  # the time of the oldest decision of each list in `_lines`
        self._batch_since: float | None = None
        self._encoding = threading.Lock()
        # each count has one writer and needs no lock: the caller's thread, the holder of `_encoding`, the writer thread
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
        """Records since the start that were refused, could not be encoded or written, or were lost by the output."""
        return self._refused + self._unmade + self._lost + self._output.lost

    @property
    def queued(self) -> int:
        """The number of records that wait to be written."""
        return self._taken - self._unmade - self._begun

    @property
    def failing(self) -> str:
        """Why writing fails at the moment, in a few words; "" if it works."""
        return self._output.failing

    @property
    def oldest_unwritten(self) -> float | None:
        """The time of the oldest decision whose record is not yet written (epoch seconds); None without any."""
        with suppress(IndexError):  # the other thread removed the last one meanwhile
            if (held := self._output.held_since) is not None:
                return held
            if (since := self._batch_since) is not None:
                return since
            if self._since:
                return self._since[0]
            if self._pending:
                return self._pending[0].now
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
        """Queue the record. Return False if the queue is full, unless the operator chose to drop and count.

        An allow that is not sampled is only counted. Allows that match an AUDIT rule or a rule in dry run, or that the
        shadow policies decide differently, are always kept.
        """
        allowed = decision.verdict is Verdict.ALLOW
        below = self._sampled_below
        if below is not None and allowed and decision_id[:_SAMPLED_DIGITS] >= below and not _always_recorded(decision):
            self.unsampled += 1
            return True
        if (
            self._taken - self._unmade - self._begun >= (self._capacity if allowed else self._denial_capacity)
            or self._queued_bytes - self._done_bytes >= (self._max_bytes if allowed else self._denial_max_bytes)
            or self._closed
        ):
            self._refused += 1
            return self._on_full is OnFull.DROP_AND_COUNT
        pending = self._pending
        record = capture(request, decision, decision_id, now, time(), table_digest, metadata)
        pending.append(record)
        self._taken += 1
        texts = (
            len(record.path) + len(record.host) + len(record.method) + len(record.request_id) + len(record.trace_parent)
        )
        if (
            len(pending) >= ENCODE_BATCH or texts + len(decision.detail) > MAX_TEXT_CHARACTERS
        ):  # long records are encoded at once
            self._encode_pending()
        if self._asleep:
            self._asleep = False
            self._awake.set()
        return True

    def sample(self, share: float) -> None:
        """Keep this share of allows from now on."""
        self._sampled_below = sampled_below(share)

    def hurry(self) -> None:
        """Limit further waiting for the output to a second."""
        self._output.hurry(_HURRY_SECONDS)

    def close(self, seconds: float = 0.0) -> None:
        """Write queued records for at most `seconds` (at least five) and stop. Later records are refused."""
        seconds = max(seconds, _CLOSE_SECONDS)
        self._closed = True
        self._closing.set()
        self._output.hurry(seconds)
        self._awake.set()
        self._thread.join(seconds + _END_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the decision log could not write its last records: %d are lost", self.queued)

    def _encode_pending(self, *, wait: bool = False) -> None:
        """Encode the pending records in order. Without `wait`, do nothing if the other thread is encoding."""
        if not self._encoding.acquire(blocking=wait):
            return
        try:
            pending = [self._pending.popleft() for _ in range(len(self._pending))]
            lines = self._encode_all(pending)
            self._unmade += len(pending) - len(lines)
            self._queued_bytes += _memory(lines)
            if pending:
                self._since.append(pending[0].now)
                self._lines.append(lines)
        finally:
            self._encoding.release()

    def _encode_all(self, pending: Sequence[PendingRecord]) -> list[bytes]:
        try:
            return list(map(self._encode, pending))
        except Exception:  # noqa: BLE001  one record can't be encoded; encode the others
            return [line for line in map(self._stub_or_line, pending) if line]

    def _stub_or_line(self, record: PendingRecord) -> bytes:
        """Encode a record. If that fails, which is a bug, return a stub line, or b"" if even that fails."""
        try:
            return self._encode(record)
        except Exception as error:  # noqa: BLE001
            _LOG.error("the record of decision %s can't be encoded: %s", record.decision_id, type(error).__qualname__)
        try:
            return stub_line(record)
        except Exception as error:  # noqa: BLE001  for example out of memory: only this record is lost
            _LOG.error("a decision record is lost: %s", type(error).__qualname__)
            return b""

    def _write_batches(self) -> None:
        while True:
            if self._awake.wait(self._output.seconds_until_due()):
                self._closing.wait(_BATCH_SECONDS)
            self._awake.clear()
            self._asleep = True  # from here on a new record wakes the thread
            closing = self._closing.is_set()
            while self._pending or self._lines:
                if self._pending:
                    self._encode_pending(wait=True)
                self._write_batch()
            self._guard(self._output.run_due_work)
            if closing:
                self._guard(self._output.close)
                return

    def _guard(self, step: Callable[[], None]) -> None:
        """Run `step` and log its failure, because the thread must go on."""
        try:
            step()
        except Exception as error:  # noqa: BLE001
            _LOG.error("maintenance of the decision log failed: %s", type(error).__qualname__)

    def _write_batch(self) -> None:
        """Write the oldest lines; others may be added meanwhile. Does not raise, because the thread must go on."""
        batch: list[bytes] = []
        while self._lines and len(batch) < WRITE_BATCH:
            batch += self._lines.popleft()
            since = self._since.popleft()
            if self._batch_since is None:
                self._batch_since = since
        self._begun += len(batch)
        try:
            self._output.write(batch)
            self.written += len(batch)
        except Exception as error:  # noqa: BLE001  for example out of memory: only these records are lost
            self._lost += len(batch)
            _LOG.error("%d decision records are lost: %s", len(batch), type(error).__qualname__)
        finally:
            self._done_bytes += _memory(batch)
            self._batch_since = None
        self._guard(self._output.run_due_work)


def _memory(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + _LINE_BYTES * len(lines)

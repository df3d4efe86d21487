"""What stands between spans and their exporter: a bounded queue and one thread, so that no decision waits for either.

The SDK's own batch processor logs a line for each span that a full queue drops, tells nobody how many they were, and
may take half a minute to close.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.otlp.messages import Answer, Fate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_LOG = logging.getLogger(__name__)
BATCH_BYTES: Final = 1024 * 1024
"""And a span more at most, which stays below the 4 MiB that collectors take: callers choose how long a span is."""

_LOOK_SECONDS: Final = 0.1


class BatchExporter(Protocol):
    """What sends batches. One thread uses it, but for `shutdown`."""

    def export(self, batch: Sequence[ReadableSpan], size: int, /) -> Answer:
        """What the collector made of these `size` spans. Blocks, and may try again, for its own timeout."""
        ...

    def shutdown(self) -> None:
        """Give up: what is under way ends. Called by another thread, or twice."""
        ...


class ExportQueue:
    """Hands spans to `exporter` in batches, on a thread of its own; a span that finds `capacity` others is dropped.

    The counts are since the start: spans that were `exported`, those that were `dropped` at a full queue, and those
    that `failed` because the collector did not take them, or rejected them of a batch that it took.
    """

    def __init__(self, exporter: BatchExporter, capacity: int, batch: int, interval: float) -> None:
        """Export when `batch` spans wait, and every `interval` seconds."""
        self._exporter = exporter
        self._capacity = capacity
        self._batch = batch
        self._interval = interval
        self._waiting: deque[tuple[ReadableSpan, int]] = deque()  # appending and taking are atomic
        self._awake = threading.Event()
        self._closing = False
        self._hurried = False
        self._until = math.inf  # when closing ends
        self._failing = False
        self.exported = 0
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._work, name="zta-spans", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Spans that wait."""
        return len(self._waiting)

    def put(self, span: ReadableSpan, size: int) -> None:
        """Queue a span of about `size` bytes, or drop it. Never waits."""
        waiting = len(self._waiting)
        if waiting >= self._capacity or self._closing:
            self.dropped += 1
            return
        self._waiting.append((span, size))
        if waiting + 1 >= self._batch:
            self._awake.set()

    def _work(self) -> None:
        while not self._closing:
            self._awake.wait(self._interval)
            self._awake.clear()
            while self._waiting and not self._closing:
                self._export()
        while self._waiting and self._left() > 0:
            self._export()
        self._exporter.shutdown()

    def _left(self) -> float:
        """Seconds that are left for exporting."""
        return self._until - time.monotonic()

    def _next_batch(self) -> list[ReadableSpan]:
        batch: list[ReadableSpan] = []
        size = 0
        with suppress(IndexError):  # none left
            while len(batch) < self._batch and size < BATCH_BYTES:
                span, more = self._waiting.popleft()
                batch.append(span)
                size += more
        return batch

    def _export(self) -> None:
        batch = self._next_batch()
        try:
            answer = self._exporter.export(batch, len(batch))
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever an exporter does
            answer = Answer(Fate.LATER, said=type(error).__name__)
        self._settle(answer, len(batch))
        batch.clear()  # whoever keeps the frames of a failure keeps no spans by them

    def _settle(self, answer: Answer, sent: int) -> None:
        """Count, and say once when it begins to fail and when that is over."""
        lost = answer.rejected if answer.fate is Fate.TAKEN else sent
        self.exported += sent - lost
        self.failed += lost
        if lost and not self._failing:
            _LOG.warning("the collector does not take all spans", extra={"said": answer.said, "lost_spans": lost})
        elif self._failing and not lost:
            _LOG.info("the collector takes all spans again")
        self._failing = lost > 0

    def hurry(self) -> None:
        """The end is wanted at once: whoever closes waits for no collector any longer. From any thread."""
        self._hurried = True
        self._until = 0.0

    def close(self, seconds: float) -> None:
        """Export what waits, for `seconds` at most; what is left then is dropped."""
        self._until = 0.0 if self._hurried else time.monotonic() + seconds
        self._closing = True
        self._awake.set()
        while self._thread.is_alive() and self._left() > 0:  # which `hurry` may shorten
            self._thread.join(min(_LOOK_SECONDS, self._left()))
        self._exporter.shutdown()
        self.dropped += len(self._waiting)
        self._waiting.clear()

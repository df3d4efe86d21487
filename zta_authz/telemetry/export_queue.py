"""A bounded queue and one thread between spans and their exporter, so that decisions never wait for an export.

The SDK's batch processor logs a line for each span that a full queue drops, does not count them, and may take half a
minute to close.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.otlp.messages import ExportResult, ExportStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

_LOG = logging.getLogger(__name__)
BATCH_BYTES: Final = 1024 * 1024
"""A batch exceeds this by at most one span, and so stays below collectors' limit of 4 MiB. Callers influence the size
of a span."""

_POLL_SECONDS: Final = 0.1


class BatchExporter(Protocol):
    """Sends batches of spans. One thread calls `export`; other threads may call `shutdown`."""

    def export(self, batch: Sequence[ReadableSpan], size: int, /) -> ExportResult:
        """Send `size` spans and return the result. Blocks and may retry until its own timeout."""
        ...

    def shutdown(self) -> None:
        """Cancel the current export. May be called from another thread and more than once."""
        ...


class ExportQueue:
    """Passes spans to `exporter` in batches on its own thread. When `capacity` spans wait, new ones are dropped.

    Counts since the start: `exported` spans, spans `dropped` at a full queue, and spans that `failed` because the
    collector did not accept the batch or rejected some of its spans.
    """

    def __init__(self, exporter: BatchExporter, capacity: int, batch: int, interval: float) -> None:
        """Start the thread. It exports when `batch` spans wait, and every `interval` seconds."""
        self._exporter = exporter
        self._capacity = capacity
        self._batch = batch
        self._interval = interval
        self._waiting: deque[tuple[ReadableSpan, int]] = deque()  # append and popleft are atomic
        self._awake = threading.Event()
        self._closing = False
        self._closing_now = False
        self._deadline = math.inf  # of closing, in monotonic time
        self._failing = False
        self.exported = 0
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._work, name="zta-spans", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """The number of waiting spans."""
        return len(self._waiting)

    def put(self, span: ReadableSpan, size: int) -> None:
        """Queue a span of about `size` bytes, or drop it. Never blocks."""
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
        """Return the seconds left for exporting."""
        return self._deadline - time.monotonic()

    def _next_batch(self) -> list[ReadableSpan]:
        batch: list[ReadableSpan] = []
        size = 0
        with suppress(IndexError):  # the queue is empty
            while len(batch) < self._batch and size < BATCH_BYTES:
                span, more = self._waiting.popleft()
                batch.append(span)
                size += more
        return batch

    def _export(self) -> None:
        batch = self._next_batch()
        try:
            result = self._exporter.export(batch, len(batch))
        except Exception as error:  # noqa: BLE001  the thread must survive every failure of an exporter
            result = ExportResult(ExportStatus.RETRYABLE, detail=type(error).__name__)
        self._record_result(result, len(batch))
        batch.clear()  # a traceback that keeps this frame alive must not keep the spans alive

    def _record_result(self, result: ExportResult, sent: int) -> None:
        """Count the result. Log once when exports start to fail, and once when they work again."""
        lost = result.rejected if result.status is ExportStatus.ACCEPTED else sent
        self.exported += sent - lost
        self.failed += lost
        if lost and not self._failing:
            _LOG.warning("the collector does not take all spans", extra={"detail": result.detail, "lost_spans": lost})
        elif self._failing and not lost:
            _LOG.info("the collector takes all spans again")
        self._failing = lost > 0

    def hurry(self) -> None:
        """Make the current or next `close` return at once, without waiting for the collector. For any thread."""
        self._closing_now = True
        self._deadline = 0.0

    def close(self, seconds: float) -> None:
        """Export waiting spans for at most `seconds`, then drop the rest."""
        self._deadline = 0.0 if self._closing_now else time.monotonic() + seconds
        self._closing = True
        self._awake.set()
        while self._thread.is_alive() and self._left() > 0:  # `hurry` may shorten the wait
            self._thread.join(min(_POLL_SECONDS, self._left()))
        self._exporter.shutdown()
        self.dropped += len(self._waiting)
        self._waiting.clear()

"""What stands between spans and their exporter: a bounded queue and one thread, so that no decision waits for either.

The SDK's own batch processor logs a line for each span that a full queue drops, tells nobody how many they were, and
may take half a minute to close.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

from opentelemetry.sdk.trace.export import SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG = logging.getLogger(__name__)


class RequestExporter(Protocol):
    """An exporter of the SDK's, but of what is encoded already."""

    def export(self, parts: Sequence[bytes]) -> SpanExportResult:
        """Send what the parts are together. Blocks, and may try again, for as long as it was told to."""
        ...

    def shutdown(self) -> None:
        """Give connections back; a try that is under way ends."""
        ...


class ExportQueue:
    """Hands spans to `exporter` in batches, on a thread of its own; a span that finds `capacity` others is dropped.

    The counts are since the start: spans that were `exported`, those that were `dropped` at a full queue, and those
    that `failed` because the collector did not take them.
    """

    def __init__(self, exporter: RequestExporter, capacity: int, batch: int, interval: float) -> None:
        """Export when `batch` spans wait, and every `interval` seconds."""
        self._exporter = exporter
        self._capacity = capacity
        self._batch = batch
        self._interval = interval
        self._waiting: deque[bytes] = deque()  # appending and taking are atomic
        self._awake = threading.Event()
        self._closing = False
        self.exported = 0
        self.dropped = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._work, name="zta-spans", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Spans that wait."""
        return len(self._waiting)

    def put(self, span: bytes) -> None:
        """Queue a span, or drop it. Never waits."""
        waiting = len(self._waiting)
        if waiting >= self._capacity or self._closing:
            self.dropped += 1
            return
        self._waiting.append(span)
        if waiting + 1 >= self._batch:
            self._awake.set()

    def _work(self) -> None:
        while not self._closing:
            self._awake.wait(self._interval)
            self._awake.clear()
            while self._waiting and not self._closing:
                self._export()
        while self._waiting:
            self._export()

    def _export(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
        try:
            taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever an exporter does
            _LOG.warning("spans could not be exported: %s", type(error).__name__)
            taken = False
        if taken:
            self.exported += len(batch)
        else:
            self.failed += len(batch)
        batch.clear()  # an exporter's exceptions keep its frames, and thereby this list, until a full collection

    def close(self, seconds: float) -> None:
        """Export what waits, for `seconds` at most; what is left then is dropped."""
        self._closing = True
        self._awake.set()
        self._thread.join(seconds)
        self._exporter.shutdown()
        self.dropped += len(self._waiting)
        self._waiting.clear()

"""The queue between spans and their exporter: bounded, counted, and never waited for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExportResult

from zta_authz.telemetry.export_queue import ExportQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

SPAN = b"s"


class Stubborn:
    """Waits for `free` before it takes a batch; raises `failure` instead, where there is one."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.free = threading.Event()
        self.batches: list[int] = []
        self._failure = failure

    def export(self, parts: Sequence[bytes]) -> SpanExportResult:
        self.free.wait(10)
        if self._failure is not None:
            raise self._failure
        self.batches.append(len(parts))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to close."""


def test_a_full_queue_drops_and_counts_at_once() -> None:
    exporter = Stubborn()
    queue = ExportQueue(exporter, capacity=10, batch=4, interval=0.01)
    begun = time.monotonic()
    for _ in range(100):
        queue.put(SPAN)
    assert time.monotonic() - begun < 1
    assert queue.queued <= 10
    assert queue.dropped >= 100 - 10 - 4
    exporter.free.set()
    queue.close(5)
    assert queue.exported + queue.dropped == 100
    assert max(exporter.batches) <= 4


def test_an_exporter_that_fails_is_counted_and_asked_again() -> None:
    exporter = Stubborn(RuntimeError("secret"))
    exporter.free.set()
    queue = ExportQueue(exporter, capacity=10, batch=1, interval=0.01)
    queue.put(SPAN)
    deadline = time.monotonic() + 5
    while not queue.failed and time.monotonic() < deadline:
        time.sleep(0.01)
    exporter._failure = None
    queue.put(SPAN)
    queue.close(5)
    assert (queue.failed, queue.exported, queue.dropped) == (1, 1, 0)


def test_closing_waits_no_longer_than_it_was_told() -> None:
    exporter = Stubborn()
    queue = ExportQueue(exporter, capacity=10, batch=2, interval=0.01)
    for _ in range(6):
        queue.put(SPAN)
    begun = time.monotonic()
    queue.close(0.2)
    assert time.monotonic() - begun < 2
    assert queue.dropped >= 4
    queue.put(SPAN)
    assert queue.queued == 0
    exporter.free.set()

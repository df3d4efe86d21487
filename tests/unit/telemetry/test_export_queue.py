"""The queue between spans and their exporter: bounded, counted, and never blocking."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan

from zta_authz.otlp.messages import ExportResult, ExportStatus
from zta_authz.telemetry.export_queue import BATCH_BYTES, ExportQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

SPAN = ReadableSpan("s")
ACCEPTED = ExportResult(ExportStatus.ACCEPTED)


class BlockingExporter:
    """Waits for `free` before it answers a batch, or raises `failure`."""

    def __init__(self, failure: Exception | None = None, answer: ExportResult = ACCEPTED) -> None:
        self.free = threading.Event()
        self.batches: list[int] = []
        self.closed = False
        self.answer = answer
        self._failure = failure

    def export(self, batch: Sequence[ReadableSpan], size: int, /) -> ExportResult:
        self.free.wait(10)
        if self._failure is not None:
            raise self._failure
        assert len(batch) == size
        self.batches.append(size)
        return self.answer

    def shutdown(self) -> None:
        self.closed = True


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_drops_and_counts_at_once() -> None:
    exporter = BlockingExporter()
    queue = ExportQueue(exporter, capacity=10, batch=4, interval=0.01)
    begun = time.monotonic()
    for _ in range(100):
        queue.put(SPAN, 1)
    assert time.monotonic() - begun < 1
    assert queue.queued <= 10
    assert queue.dropped >= 100 - 10 - 4
    exporter.free.set()
    queue.close(5)
    assert queue.exported + queue.dropped == 100
    assert max(exporter.batches) <= 4
    assert exporter.closed


def test_long_spans_are_sent_in_requests_below_the_collectors_limit() -> None:
    """A caller's trace state and path can make a span of 20 KB. 512 of them in one request would lose all spans in it."""
    exporter = BlockingExporter()
    queue = ExportQueue(exporter, capacity=600, batch=512, interval=0.01)
    for _ in range(600):
        queue.put(SPAN, 20_000)
    exporter.free.set()
    queue.close(5)
    assert queue.exported == 600
    assert max(exporter.batches) * 20_000 < BATCH_BYTES + 20_000


def test_a_failing_exporter_is_counted_and_used_again() -> None:
    exporter = BlockingExporter(RuntimeError("secret"))
    exporter.free.set()
    queue = ExportQueue(exporter, capacity=10, batch=1, interval=0.01)
    queue.put(SPAN, 1)
    deadline = time.monotonic() + 5
    while not queue.failed and time.monotonic() < deadline:
        time.sleep(0.01)
    exporter._failure = None
    queue.put(SPAN, 1)
    queue.close(5)
    assert (queue.failed, queue.exported, queue.dropped) == (1, 1, 0)


def test_closing_respects_its_time_limit() -> None:
    exporter = BlockingExporter()
    queue = ExportQueue(exporter, capacity=10, batch=2, interval=0.01)
    for _ in range(6):
        queue.put(SPAN, 1)
    begun = time.monotonic()
    queue.close(0.2)
    assert time.monotonic() - begun < 2
    assert queue.dropped >= 4
    queue.put(SPAN, 1)
    assert queue.queued == 0
    exporter.free.set()


def _is_empty(queue: ExportQueue) -> bool:
    return not queue.queued


def test_hurry_makes_closing_return_without_waiting_for_the_collector() -> None:
    for early in (True, False):
        queue = ExportQueue(BlockingExporter(), capacity=10, batch=1, interval=0.01)
        queue.put(SPAN, 1)
        until(partial(_is_empty, queue))
        hurrying = threading.Timer(0 if early else 0.2, queue.hurry)
        hurrying.start()
        if early:
            hurrying.join()
        begun = time.monotonic()
        queue.close(5)
        assert time.monotonic() - begun < 3
        hurrying.join()


def test_rejected_spans_of_a_batch_count_as_failed_and_the_others_as_exported() -> None:
    exporter = BlockingExporter(answer=ExportResult(ExportStatus.ACCEPTED, rejected=2))
    exporter.free.set()
    queue = ExportQueue(exporter, capacity=10, batch=5, interval=60)
    for _ in range(5):
        queue.put(SPAN, 1)
    queue.close(5)
    assert (queue.exported, queue.failed, queue.dropped) == (3, 2, 0)


def test_an_outage_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    exporter = BlockingExporter(answer=ExportResult(ExportStatus.RETRYABLE, detail="UNAVAILABLE"))
    exporter.free.set()
    queue = ExportQueue(exporter, capacity=10, batch=1, interval=0.01)
    with caplog.at_level("INFO"):
        for total in (1, 2):
            queue.put(SPAN, 1)
            until(lambda total=total: queue.failed == total)
        exporter.answer = ACCEPTED
        for total in (1, 2):
            queue.put(SPAN, 1)
            until(lambda total=total: queue.exported == total)
        queue.close(5)
    assert caplog.messages == ["the collector does not take all spans", "the collector takes all spans again"]


def test_closing_exports_the_waiting_spans() -> None:
    exporter = BlockingExporter()
    exporter.free.set()
    queue = ExportQueue(exporter, capacity=10, batch=5, interval=60)
    queue.put(SPAN, 1)
    queue.close(1)
    assert queue.exported == 1
    assert exporter.closed

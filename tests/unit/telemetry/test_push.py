"""Pushing metrics: collected metrics arrive, failures are counted and logged once, and nothing waits for a push."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily

from zta_authz.otlp.messages import ExportResult, ExportStatus
from zta_authz.telemetry import push as module
from zta_authz.telemetry.push import MetricsPush

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest
    from prometheus_client.metrics_core import Metric

HANG_SECONDS = 3.0
ACCEPTED = ExportResult(ExportStatus.ACCEPTED)
RETRYABLE = ExportResult(ExportStatus.RETRYABLE, detail="UNAVAILABLE")


class FakeExport:
    """Returns `answers` in turn, then repeats the last; `pushed` are the received names."""

    def __init__(self, *answers: ExportResult) -> None:
        self.answers = deque(answers or (ACCEPTED,))
        self.pushed: list[list[str]] = []
        self.hangs = threading.Event()
        self.closed = threading.Event()

    def export(self, families: Sequence[Metric], now_ns: int) -> ExportResult:
        assert abs(now_ns - time.time_ns()) < 60e9
        assert threading.current_thread() is not threading.main_thread()
        self.pushed.append([family.name for family in families])
        if self.hangs.is_set():
            time.sleep(HANG_SECONDS)
        return self.answers.popleft() if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        self.closed.set()


async def one_gauge() -> list[Metric]:
    return [GaugeMetricFamily("a", "A.", value=1)]


async def pushed(export: FakeExport, times: int, interval: float = 0.01) -> MetricsPush:
    push = MetricsPush(one_gauge, export, interval)
    push.start()
    async with asyncio.timeout(10):
        while len(export.pushed) < times:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await push.close()
    assert await asyncio.to_thread(export.closed.wait, 5)
    return push


async def test_it_pushes_every_interval_and_once_at_the_end() -> None:
    export = FakeExport()
    push = await pushed(export, 3)
    assert len(export.pushed) >= 4
    assert len(export.pushed) - push.pushed in (0, 1)  # one that is in flight at the end is not counted
    assert export.pushed[0] == ["a"]
    assert push.failed == 0


async def test_failures_are_counted_and_logged_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    push = await pushed(
        FakeExport(RETRYABLE, RETRYABLE, ACCEPTED, ExportResult(ExportStatus.ACCEPTED, 2, "odd"), ACCEPTED), 6
    )
    assert push.failed == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the collector does not take all metrics",
        "the collector takes all metrics again",
    ] * 2


async def test_a_failed_collection_counts_as_a_failed_push_and_pushing_goes_on() -> None:
    calls = 0

    async def sometimes() -> list[Metric]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError
        return await one_gauge()

    export = FakeExport()
    push = MetricsPush(sometimes, export, 0.01)
    push.start()
    async with asyncio.timeout(10):
        while not export.pushed:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await push.close()
    assert push.failed == 1


async def test_a_collector_that_hangs_blocks_neither_the_loop_nor_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUSH_SECONDS", 0.2)
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.1)
    export = FakeExport()
    export.hangs.set()
    push = MetricsPush(one_gauge, export, 0.01, 0.05)
    push.start()
    slowest = 0.0
    for _ in range(20):
        began = time.monotonic()
        await asyncio.sleep(0.01)
        slowest = max(slowest, time.monotonic() - began)
    began = time.monotonic()
    await push.close()
    assert slowest < 0.25
    assert push.failed >= 1
    assert export.pushed == [["a"]]  # what waits for a collector that hangs is given up, not kept
    assert time.monotonic() - began < 2


async def test_it_can_be_closed_at_any_time() -> None:
    for tries in range(50):  # `asyncio.wait_for` may swallow the end where the answer comes at the same moment
        await pushed(FakeExport(), 1 + tries % 3, 0.0)


async def test_closing_without_a_start_pushes_nothing() -> None:
    export = FakeExport()
    await MetricsPush(one_gauge, export, 1.0).close()
    assert await asyncio.to_thread(export.closed.wait, 5)
    assert export.pushed == []

"""Pushes the metrics of `/metrics` to a collector at an interval.

The metrics are cumulative, so the push after a failed one makes up for it, and nothing needs to be kept.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.otlp.messages import ExportResult, ExportStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prometheus_client.metrics_core import Metric

PUSH_SECONDS: Final = 5.0
"""Limit for the last push, when the service stops."""
_GRACE_SECONDS: Final = 1.0
_MAX_WAITING: Final = 2
_LOG = logging.getLogger(__name__)


class MetricsSender(Protocol):
    """Sends metrics to the collector."""

    def export(self, families: Sequence[Metric], now_ns: int) -> ExportResult:
        """Send the families as of `now_ns` and return the result after all retries."""
        ...

    def close(self) -> None:
        """Stop retries and close connections. Called from another thread."""
        ...


class _ExportThread:
    """Exports on a daemon thread, so that a hanging collector blocks neither the event loop nor process exit.

    Calls that are cancelled before they start are skipped. At most `_MAX_WAITING` calls wait.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[ExportResult], Callable[[], ExportResult]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="zta-metrics", daemon=True).start()

    def submit(self, call: Callable[[], ExportResult]) -> Future[ExportResult]:
        """Queue a call and return its future result. Raises TimeoutError if too many calls wait."""
        if self._calls.qsize() >= _MAX_WAITING:
            raise TimeoutError
        future: Future[ExportResult] = Future()
        self._calls.put((future, call))
        return future

    def end(self) -> None:
        """Stop the thread after the queued calls."""
        self._calls.put(None)

    def _work(self) -> None:
        while (submitted := self._calls.get()) is not None:
            future, call = submitted
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001  passed on to the waiting caller
                future.set_exception(error)
            del submitted, future, call  # don't keep the metrics alive until the next push


class MetricsPush:
    """Pushes every `interval` seconds and once at the end. Counts the pushes that succeeded (`pushed`) or `failed`.

    `collect` runs on the event loop, where everything is counted. A background thread sends the result.
    """

    def __init__(
        self,
        collect: Callable[[], Awaitable[Sequence[Metric]]],
        export: MetricsSender,
        interval: float,
        seconds: float = PUSH_SECONDS,
    ) -> None:
        """Create it stopped. `seconds` is the time limit of `export`; a push that takes longer fails."""
        self.pushed = 0
        self.failed = 0
        self._collect = collect
        self._export = export
        self._interval = interval
        self._seconds = seconds
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self._thread = _ExportThread()

    def start(self) -> None:
        """Start pushing. Call on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._push_periodically(), name="metrics push")

    async def close(self) -> None:
        """Push once more, for at most `PUSH_SECONDS`, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._push(min(self._seconds, PUSH_SECONDS))
        self._thread.end()
        self._export.close()

    async def _push_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._push(self._seconds)

    async def _push(self, seconds: float) -> None:
        """Push once. Failures don't raise, because the next push may succeed."""
        try:
            families = await self._collect()
            sending = self._thread.submit(partial(self._export.export, families, time.time_ns()))
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                result = await asyncio.wrap_future(sending)
        except Exception as error:  # noqa: BLE001
            result = ExportResult(ExportStatus.RETRYABLE, detail=type(error).__qualname__)
        self._record_result(result)

    def _record_result(self, result: ExportResult) -> None:
        """Count the result. Log once when pushes start to fail, and once when they work again."""
        failing = result.status is not ExportStatus.ACCEPTED or result.rejected > 0
        if failing:
            self.failed += 1
        else:
            self.pushed += 1
        if failing and not self._failing:
            details = {"detail": result.detail, "rejected_points": result.rejected}
            _LOG.warning("the collector does not take all metrics", extra=details)
        elif self._failing and not failing:
            _LOG.info("the collector takes all metrics again")
        self._failing = failing

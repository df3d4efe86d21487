"""Metrics pushed to a collector: what `/metrics` shows, every so often.

They are cumulative, so that a push that failed is made up for by the next, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.otlp.messages import Answer, Fate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prometheus_client.metrics_core import Metric

PUSH_SECONDS: Final = 5.0
MAX_ASKED_SECONDS: Final = 300.0
"""The most that a collector may ask us to wait."""
_LOG = logging.getLogger(__name__)


class Export(Protocol):
    """What sends metrics to the collector."""

    def export(self, families: Sequence[Metric], now_ns: int, seconds: float) -> Answer:
        """What the collector made of the families as they were at `now_ns`, within about `seconds`."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class MetricsPush:
    """Pushes every `interval` seconds, and once at the end. Counts since the start: `pushed`, and those that `failed`.

    `collect` is asked on the event loop, where everything is counted; a thread that nothing waits for sends it.
    """

    def __init__(self, collect: Callable[[], Awaitable[Sequence[Metric]]], export: Export, interval: float) -> None:
        self.pushed = 0
        self.failed = 0
        self._collect = collect
        self._export = export
        self._interval = interval
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "zta-metrics")

    def start(self) -> None:
        """Push from now on. On the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._push_often(), name="metrics push")

    async def close(self) -> None:
        """Push what has been counted last, for `PUSH_SECONDS` at most, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._push()
        self._thread.submit(self._export.close)
        self._thread.shutdown(wait=False)

    async def _push_often(self) -> None:
        pause = self._interval
        while True:
            await asyncio.sleep(pause)
            answer = await self._push()
            pause = max(self._interval, min(answer.after or 0.0, MAX_ASKED_SECONDS))

    async def _push(self) -> Answer:
        """One push. Raises nothing: whatever is wrong with this one, the next may be right."""
        try:
            families = await self._collect()
            loop = asyncio.get_running_loop()
            sending = loop.run_in_executor(self._thread, self._export.export, families, time.time_ns(), PUSH_SECONDS)
            async with asyncio.timeout(PUSH_SECONDS + 1):
                answer = await sending
        except Exception as error:  # noqa: BLE001
            answer = Answer(Fate.LATER, said=type(error).__qualname__)
        self._settle(answer)
        return answer

    def _settle(self, answer: Answer) -> None:
        """Count, and say once when it begins to fail and when that is over."""
        failing = answer.fate is not Fate.TAKEN or answer.rejected > 0
        if failing:
            self.failed += 1
        else:
            self.pushed += 1
        if failing and not self._failing:
            told = {"said": answer.said, "rejected_points": answer.rejected}
            _LOG.warning("the collector does not take all metrics", extra=told)
        elif self._failing and not failing:
            _LOG.info("the collector takes all metrics again")
        self._failing = failing

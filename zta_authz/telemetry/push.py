"""Metrics pushed to a collector: what `/metrics` shows, every so often.

They are cumulative, so that a push that failed is made up for by the next, and nothing is kept for it.
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

from zta_authz.otlp.messages import Answer, Fate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from prometheus_client.metrics_core import Metric

PUSH_SECONDS: Final = 5.0
"""For the last push, when the service stops: whoever stops it waits no longer."""
_GRACE_SECONDS: Final = 1.0
_MAX_WAITING: Final = 2
_LOG = logging.getLogger(__name__)


class Export(Protocol):
    """What sends metrics to the collector."""

    def export(self, families: Sequence[Metric], now_ns: int) -> Answer:
        """What the collector made of the families as they were at `now_ns`, after all retries."""
        ...

    def close(self) -> None:
        """End retries and connections. Called by another thread."""
        ...


class _Thread:
    """Exports on a daemon thread: neither the event loop nor the end of the process waits for a collector that hangs.

    A call that is cancelled before its turn is skipped, and no more than `_MAX_WAITING` wait for one that never ends.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Answer], Callable[[], Answer]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="zta-metrics", daemon=True).start()

    def submit(self, call: Callable[[], Answer]) -> Future[Answer]:
        """The call's future result. Raises TimeoutError where too many wait."""
        if self._calls.qsize() >= _MAX_WAITING:
            raise TimeoutError
        future: Future[Answer] = Future()
        self._calls.put((future, call))
        return future

    def end(self) -> None:
        """No call follows."""
        self._calls.put(None)

    def _work(self) -> None:
        while (submitted := self._calls.get()) is not None:
            future, call = submitted
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001  whoever waits for it is told
                future.set_exception(error)
            del submitted, future, call  # keep no metrics until the next push


class MetricsPush:
    """Pushes every `interval` seconds, and once at the end. Counts since the start: `pushed`, and those that `failed`.

    `collect` is asked on the event loop, where everything is counted; a thread that nothing waits for sends it.
    """

    def __init__(
        self,
        collect: Callable[[], Awaitable[Sequence[Metric]]],
        export: Export,
        interval: float,
        seconds: float = PUSH_SECONDS,
    ) -> None:
        """`seconds`: what `export` takes at most, as far as it knows; a push that takes longer has failed."""
        self.pushed = 0
        self.failed = 0
        self._collect = collect
        self._export = export
        self._interval = interval
        self._seconds = seconds
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self._thread = _Thread()

    def start(self) -> None:
        """Push from now on. On the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._push_often(), name="metrics push")

    async def close(self) -> None:
        """Push what has been counted last, for `PUSH_SECONDS` at most, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._push(min(self._seconds, PUSH_SECONDS))
        self._thread.end()
        self._export.close()

    async def _push_often(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._push(self._seconds)

    async def _push(self, seconds: float) -> None:
        """One push. Raises nothing: whatever is wrong with this one, the next may be right."""
        try:
            families = await self._collect()
            sending = self._thread.submit(partial(self._export.export, families, time.time_ns()))
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                answer = await asyncio.wrap_future(sending)
        except Exception as error:  # noqa: BLE001
            answer = Answer(Fate.LATER, said=type(error).__qualname__)
        self._settle(answer)

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

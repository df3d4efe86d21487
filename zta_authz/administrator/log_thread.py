"""The thread that writes a log, because a disk may block for long. It ends with the process, even if it is blocked."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.audit.segments import SegmentedLog

_MAINTENANCE_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.5
STUCK_SECONDS: Final = 2.0
"""The log fails if the disk does not finish a write for so long."""
CLOSE_SECONDS: Final = 5.0
_LOG = logging.getLogger(__name__)


class LogThread:
    """Writes lines to `log`, which it owns. Use it from one event loop."""

    def __init__(self, log: SegmentedLog) -> None:
        """Start the thread."""
        self._log = log
        self._steps: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._writing_since = math.inf
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    @property
    def failing(self) -> str:
        """Why lines can't be written or checkpoints can't be signed; "" if both work."""
        stuck = time.monotonic() - self._writing_since > STUCK_SECONDS
        return self._log.failing or ("the disk does not answer" if stuck else "")

    async def write(self, lines: Sequence[bytes]) -> None:
        r"""Append lines, each with its `\n`, and return when they are on the disk. Waits for a full disk.

        Raises OSError if the log is closed before they are on the disk.
        """
        self._writing_since = time.monotonic()
        await self._do(lambda: self._write(lines))
        self._writing_since = math.inf

    async def maintain(self) -> None:
        """Sign checkpoints when they are due, until cancelled."""
        while True:
            await asyncio.sleep(_MAINTENANCE_SECONDS)
            await self._do(self._log.run_due_work)

    async def close(self) -> None:
        """Close the log after everything that was begun. Gives up a disk that does not finish."""
        self._closing.set()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._do(self._log.close)
        except TimeoutError:
            _LOG.error("the access log is not closed, because %s: the next start continues it", self.failing)
        self._steps.put(None)

    async def _do(self, step: Callable[[], None]) -> None:
        """Run `step` in the thread. Cancelling this does not stop it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def run() -> None:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - for the caller
                loop.call_soon_threadsafe(_fail, done, error)
            else:
                loop.call_soon_threadsafe(_finish, done)

        self._steps.put(run)
        await done

    def _write(self, lines: Sequence[bytes]) -> None:
        self._log.write(lines)
        while not self._log.sync():
            if self._closing.wait(_RETRY_SECONDS):
                raise OSError(self._log.failing)

    def _work(self) -> None:
        while (step := self._steps.get()) is not None:
            try:
                step()
            except RuntimeError:  # the event loop is closed: nobody waits
                _LOG.debug("nobody waits for the access log any more")


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)

"""The thread that reads, compiles and releases policy sets, one set at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from zta_authz.policy_sources.pacing import CooperativePause, background_compilation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zta_authz.model.pace import Pause

_Result = TypeVar("_Result")


class CompileExecutor:
    """A single worker thread that all reloaders share. Its work calls `pause` regularly."""

    def __init__(self, pause: CooperativePause | None = None) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._lock = asyncio.Lock()
        self._pause = pause or CooperativePause()

    @property
    def pause(self) -> Pause:
        """The function that work calls to let decisions run."""
        return self._pause

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the lock while large objects are created or released, because this sets process-wide state."""
        async with self._lock:
            with background_compilation():
                yield

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the thread and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Accept no more work. Current work no longer pauses, because the process waits for it."""
        self._pause.hurry()
        self._threads.shutdown(wait=False, cancel_futures=True)

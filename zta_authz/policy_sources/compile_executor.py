"""The one thread in which sets of policies are read, compiled and let go of, one set at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from zta_authz.policy_sources.pacing import CooperativePause, beside_deciding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from zta_authz.model.pace import Pause

_Result = TypeVar("_Result")


class CompileExecutor:
    """Shared by all that reload. `pause` is given to the work that is done here."""

    def __init__(self, pause: CooperativePause | None = None) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="reload")
        self._turn = asyncio.Lock()
        self._slices = pause or CooperativePause()

    @property
    def pause(self) -> Pause:
        """Where work rests, so that decisions need not wait for it."""
        return self._slices

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """While large things are made or let go of; one at a time, because what it sets is the whole process's."""
        async with self._turn:
            with beside_deciding():
                yield

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns, done in our thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Take no more work. What is being done no longer rests, because the process waits for its end."""
        self._slices.hurry()
        self._threads.shutdown(wait=False, cancel_futures=True)

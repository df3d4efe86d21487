"""Loads data in another thread while requests are decided. The thread pauses, so that answers do not wait for it."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

from zta_authz.model.pace import Pause, no_pause

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class Background(Protocol):
    """Runs one piece of work at a time. The reloads of policies have it, too."""

    @property
    def pause(self) -> Pause:
        """The function that work calls to let decisions run."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Hold a lock while large objects are created or released."""

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in the thread and return its result."""


class PlainThread:
    """A `Background` that never pauses, for commands and tests."""

    pause: Pause = staticmethod(no_pause)

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Nothing else runs."""
        return nullcontext()

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Run `work` in a thread and return its result."""
        return await asyncio.to_thread(work)

"""Runs coroutines as far as they go without waiting, in the caller's turn; a task takes over only where one waits.

A decision rarely waits, and a task for each costs more than it does. The first step of a coroutine may still need to
know its task (`asyncio.timeout` does), so it runs as a task that is kept ready: where the coroutine finishes, the task
is used for the next one; where it waits, that very task goes on with it.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task  # documented in asyncio's "Extending", for task implementations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator


class _Begun:
    """A coroutine that waits for `awaited`; awaiting this goes on with it."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, bytes], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self._go_on(None)

    def cancelled(self, error: asyncio.CancelledError) -> _Rest:
        """Go on with the cancellation that came before the task could wait."""
        return _Rest(self._go_on(error))

    def _go_on(self, error: BaseException | None) -> Generator[Any, Any, bytes]:
        awaited = self._awaited
        while True:
            sent = None
            try:
                if error is None:
                    sent = yield awaited
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as thrown:  # noqa: BLE001  passed on to whom it is for
                error = thrown
            try:
                awaited = self._coroutine.send(sent) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                value: bytes = stop.value
                return value
            error = None


class _Rest:
    """Makes a generator awaitable."""

    __slots__ = ("_generator",)

    def __init__(self, generator: Generator[Any, Any, bytes]) -> None:
        self._generator = generator

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self._generator


class _Spare:
    """A task that waits for a coroutine to go on with, and the context in which both run."""

    __slots__ = ("_handover", "context", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.context = contextvars.copy_context()
        self._handover: asyncio.Future[_Begun] = loop.create_future()
        self.task = loop.create_task(self._run(), context=self.context)

    async def _run(self) -> bytes:
        try:
            begun = await self._handover
        except asyncio.CancelledError as error:
            if not self._handover.done() or self._handover.cancelled():
                raise
            return await self._handover.result().cancelled(error)
        return await begun

    def take(self, begun: _Begun) -> asyncio.Task[bytes]:
        self._handover.set_result(begun)
        return self.task


class EagerRunner:
    """For one event loop; use it outside of tasks, from the loop's callbacks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._spare: _Spare | None = None

    def start(self, coroutine: Coroutine[Any, Any, bytes]) -> bytes | asyncio.Task[bytes]:
        """The result, or the task that works on it. Raises what the coroutine raises before it first waits."""
        spare = self._spare
        if spare is None:
            spare = self._spare = _Spare(self._loop)
        _enter_task(self._loop, spare.task)
        try:
            awaited = spare.context.run(coroutine.send, None)
        except StopIteration as stop:
            value: bytes = stop.value
            return value
        finally:
            _leave_task(self._loop, spare.task)
        self._spare = None
        return spare.take(_Begun(coroutine, awaited))

    def close(self) -> None:
        """Let the spare task go."""
        if self._spare is not None:
            self._spare.task.cancel()
            self._spare = None

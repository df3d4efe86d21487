from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from zta_authz.ext_authz.eager import EagerRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

VARIABLE = contextvars.ContextVar("variable", default="")


def run(test: Callable[[Callable[[Coroutine[Any, Any, bytes]], Any]], Awaitable[None]], loop_factory: Any) -> None:
    """Run `test` with a `start` that works from a loop's callback, as the protocol's does."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        runner = EagerRunner(loop)

        async def start(coroutine: Coroutine[Any, Any, bytes]) -> Any:
            done: asyncio.Future[Any] = loop.create_future()

            def step() -> None:
                try:
                    done.set_result(runner.start(coroutine))
                except LookupError as error:
                    done.set_exception(error)

            loop.call_soon(step)
            return await done

        await test(start)  # type: ignore[arg-type]  # start is awaited
        runner.close()
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_what_does_not_wait_is_done_at_once(loop_factory: Any) -> None:
    async def work() -> bytes:
        return b"done"

    async def test(start: Any) -> None:
        assert await start(work()) == b"done"

    run(test, loop_factory)


def test_what_waits_goes_on_in_a_task(loop_factory: Any) -> None:
    async def work() -> bytes:
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return b"later"

    async def test(start: Any) -> None:
        tasks = [await start(work()) for _ in range(3)]
        assert all(isinstance(task, asyncio.Task) for task in tasks)
        assert await asyncio.gather(*tasks) == [b"later"] * 3

    run(test, loop_factory)


def test_a_failure_before_the_first_wait_is_raised_and_one_after_it_is_the_tasks(loop_factory: Any) -> None:
    async def work(wait: bool) -> bytes:
        if wait:
            await asyncio.sleep(0)
        raise LookupError("no")

    async def test(start: Any) -> None:
        with pytest.raises(LookupError):
            await start(work(False))
        task = await start(work(True))
        with pytest.raises(LookupError):
            await task

    run(test, loop_factory)


def test_a_timeout_that_begins_before_the_first_wait_holds(loop_factory: Any) -> None:
    async def work() -> bytes:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return b"timed out"
        return b"slept"

    async def test(start: Any) -> None:
        assert await (await start(work())) == b"timed out"

    run(test, loop_factory)


def test_the_task_before_the_first_wait_is_the_task_after_it(loop_factory: Any) -> None:
    async def work() -> bytes:
        before = asyncio.current_task()
        await asyncio.sleep(0)
        return b"same" if asyncio.current_task() is before is not None else b"other"

    async def test(start: Any) -> None:
        assert await (await start(work())) == b"same"
        assert await (await start(work())) == b"same"

    run(test, loop_factory)


def test_a_context_variable_set_before_the_first_wait_can_be_reset_after_it(loop_factory: Any) -> None:
    async def work() -> bytes:
        token = VARIABLE.set("inside")
        await asyncio.sleep(0)
        seen = VARIABLE.get()
        VARIABLE.reset(token)
        return seen.encode()

    async def test(start: Any) -> None:
        assert await (await start(work())) == b"inside"
        assert VARIABLE.get() == ""

    run(test, loop_factory)


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_a_task_that_is_cancelled_at_any_moment_cancels_the_work(loop_factory: Any, turns: int) -> None:
    seen = []

    async def work() -> bytes:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return b"slept"

    async def test(start: Any) -> None:
        task = await start(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == ["cancelled"]

    run(test, loop_factory)


def test_work_that_goes_on_after_its_cancellation_ends_as_it_says(loop_factory: Any) -> None:
    async def work() -> bytes:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return b"went on"

    async def test(start: Any) -> None:
        task = await start(work())
        task.cancel()
        assert await task == b"went on"

    run(test, loop_factory)

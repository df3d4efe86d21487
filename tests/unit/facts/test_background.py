"""The plain background runs work in another thread, and never pauses."""

from __future__ import annotations

import threading

import pytest

from zta_authz.facts.background import PlainThread
from zta_authz.model.pace import no_pause
from zta_authz.policy_sources.compile_executor import CompileExecutor


@pytest.mark.parametrize("kind", [PlainThread, CompileExecutor])
async def test_work_runs_in_another_thread_while_the_lock_is_held(kind: type[PlainThread | CompileExecutor]) -> None:
    background = kind()
    async with background.exclusive():
        assert await background.run(threading.get_ident) != threading.get_ident()
    background.pause()


def test_the_plain_one_does_not_pause() -> None:
    assert PlainThread().pause is no_pause

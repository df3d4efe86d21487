"""The pages of several workers; one that does not answer breaks none of them."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast

import pytest

from tests.fakes.snapshots import FixedSnapshot, hatshop
from zta_authz.admin.health import KEY_SET
from zta_authz.admin.state import ServiceState
from zta_authz.service.workers import health
from zta_authz.service.workers.health import PoolHealth
from zta_authz.service.workers.process import PageReply, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = PageReply(200, b'{"ready": true}')


class Worker:
    """Answers at once, or hangs."""

    def __init__(self, number: int, *, hangs: bool = False, readiness: PageReply = READY) -> None:
        self.number = number
        self.hangs = hangs
        self.readiness = readiness
        self.keys = PageReply(200, b'{"keys": []}')
        self.is_late = False
        self.asked = 0

    async def page(self, path: bytes, seconds: float) -> PageReply | None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(seconds)
            self.is_late = True
            return None
        if path == KEY_SET:
            return self.keys
        return self.readiness if path == b"/readyz" else PageReply(200, b"")


class Pool:
    stopping = False

    def __init__(self, *workers: Worker) -> None:
        self._workers = workers

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        return cast("Sequence[WorkerProcess]", self._workers)

    def metrics(self) -> tuple[bytes, str]:
        return b"zta_workers 1\n", "text/plain"


def of(*workers: Worker) -> PoolHealth:
    return PoolHealth("", 0, ServiceState(FixedSnapshot(hatshop()), lambda: 7.0), Pool(*workers))


async def test_it_is_ready_while_one_worker_is_and_shows_each_workers_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "POLL_SECONDS", 0.05)
    page = await of(Worker(1), Worker(2, hangs=True)).answer(b"/readyz")
    state = json.loads(page.body)
    assert (page.status, state["ready"], state["workers"]["1"]) == (200, True, {"ready": True})
    assert state["workers"]["2"]["ready"] is False


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/metrics", b"/version"])
async def test_a_hanging_worker_is_waited_for_once(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    hangs = Worker(2, hangs=True)
    pages = of(Worker(1), hangs)
    for _ in range(5):
        assert (await asyncio.wait_for(pages.answer(path), 1.0)).status == 200
    assert hangs.asked <= 2


async def test_metrics_are_rendered_once_for_all_waiting_clients() -> None:
    """They take tens of milliseconds, in which nothing else runs; each of 64 clients had them made anew."""
    pages = of(Worker(1))
    answers = await asyncio.gather(*(pages.answer(b"/metrics") for _ in range(64)))
    assert all(page is answers[0] for page in answers)


async def test_the_version_page_polls_no_worker() -> None:
    worker = Worker(1, hangs=True)
    assert (await of(worker).answer(b"/version")).status == 200
    assert worker.asked == 0


async def test_concurrent_clients_share_one_poll_and_a_disconnect_does_not_cancel_it() -> None:
    worker = Worker(1)
    pages = of(worker)
    asking = [asyncio.create_task(pages.answer(b"/readyz")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    answers = await asyncio.gather(*asking[1:])
    assert {page.status for page in answers} == {200}
    assert worker.asked == 2


async def test_a_worker_whose_page_fails_is_not_ready_and_breaks_no_page() -> None:
    broken = Worker(2, readiness=PageReply(500, b"Internal Server Error\n"))
    state = json.loads((await of(Worker(1), broken).answer(b"/readyz")).body)
    assert (state["ready"], state["workers"]["2"]["ready"]) == (True, False)


async def test_the_keys_of_minted_tokens_come_from_a_worker_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "POLL_SECONDS", 0.05)
    first, second = Worker(1, hangs=True), Worker(2)
    pages = of(first, second)
    answers = await asyncio.gather(*(pages.answer(KEY_SET) for _ in range(20)))
    assert {(page.status, page.body, page.max_age) for page in answers} == {(200, b'{"keys": []}', 300)}
    assert (first.asked, second.asked) == (1, 1)
    second.keys = PageReply(404, b"Not Found")
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    assert (await pages.answer(KEY_SET)).status == 404

"""The pages of several workers: one that says nothing makes none of them fail."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, cast

import pytest

from tests.fakes.snapshots import FixedSnapshot, hatshop
from zta_authz.admin.state import ServiceState
from zta_authz.service.workers import health
from zta_authz.service.workers.health import FleetHealth
from zta_authz.service.workers.process import Report, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = Report(200, b'{"ready": true}')


class Worker:
    """Answers at once, or hangs."""

    def __init__(self, number: int, *, hangs: bool = False, readiness: Report = READY) -> None:
        self.number = number
        self.hangs = hangs
        self.readiness = readiness
        self.is_late = False
        self.asked = 0

    async def page(self, path: bytes, seconds: float) -> Report | None:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(seconds)
            self.is_late = True
            return None
        return self.readiness if path == b"/readyz" else Report(200, b"")


class Fleet:
    stopping = False

    def __init__(self, *workers: Worker) -> None:
        self._workers = workers

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        return cast("Sequence[WorkerProcess]", self._workers)

    def metrics(self) -> tuple[bytes, str]:
        return b"zta_workers 1\n", "text/plain"


def of(*workers: Worker) -> FleetHealth:
    return FleetHealth("", 0, ServiceState(FixedSnapshot(hatshop()), lambda: 7.0), Fleet(*workers))


async def test_it_is_ready_while_one_worker_is_and_says_what_each_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ASK_SECONDS", 0.05)
    page = await of(Worker(1), Worker(2, hangs=True)).answer(b"/readyz")
    told = json.loads(page.body)
    assert (page.status, told["ready"], told["workers"]["1"]) == (200, True, {"ready": True})
    assert told["workers"]["2"]["ready"] is False


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz", b"/metrics", b"/version"])
async def test_a_worker_that_hangs_is_waited_for_once(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ASK_SECONDS", 0.05)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    hangs = Worker(2, hangs=True)
    pages = of(Worker(1), hangs)
    for _ in range(5):
        assert (await asyncio.wait_for(pages.answer(path), 1.0)).status == 200
    assert hangs.asked <= 2


async def test_metrics_are_made_once_for_all_who_wait_for_them() -> None:
    """They take tens of milliseconds, in which nothing else runs; each of 64 clients had them made anew."""
    pages = of(Worker(1))
    found = await asyncio.gather(*(pages.answer(b"/metrics") for _ in range(64)))
    assert all(page is found[0] for page in found)


async def test_the_version_asks_no_worker() -> None:
    worker = Worker(1, hangs=True)
    assert (await of(worker).answer(b"/version")).status == 200
    assert worker.asked == 0


async def test_those_who_ask_at_once_share_one_question_and_one_who_hangs_up_spoils_it_for_nobody() -> None:
    worker = Worker(1)
    pages = of(worker)
    asking = [asyncio.create_task(pages.answer(b"/readyz")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    answers = await asyncio.gather(*asking[1:])
    assert {page.status for page in answers} == {200}
    assert worker.asked == 2


async def test_a_worker_whose_page_fails_is_not_ready_and_spoils_no_page() -> None:
    broken = Worker(2, readiness=Report(500, b"Internal Server Error\n"))
    told = json.loads((await of(Worker(1), broken).answer(b"/readyz")).body)
    assert (told["ready"], told["workers"]["2"]["ready"]) == (True, False)

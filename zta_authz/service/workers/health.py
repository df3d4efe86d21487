"""The health listener of several workers: ready while one of them is, metrics of all of them together."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.admin.health import FRESH_SECONDS, HealthServer
from zta_authz.admin.http import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.admin.state import ServiceState
    from zta_authz.service.workers.process import Report, WorkerProcess

ASK_SECONDS: Final = 0.4
"""For all that is asked of one worker: the kubelet's own patience is a second."""
_OF_WORKERS: Final = frozenset((b"/healthz", b"/readyz", b"/metrics"))


class Fleet(Protocol):
    """What the listener tells of."""

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        """The workers that run."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether the end has been asked for."""
        ...

    def metrics(self) -> tuple[bytes, str]:
        """The exposition, of what the workers said last, and its content type."""
        ...


class FleetHealth(HealthServer):
    """Asks the workers before it answers."""

    def __init__(self, host: str, port: int, state: ServiceState, fleet: Fleet) -> None:
        super().__init__(host, port, state, fleet.metrics)
        self._fleet = fleet
        self._reports: dict[int, Report | None] = {}
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")

    async def prepare(self, path: bytes) -> None:
        """Ask the workers, at most once at a time for all who ask us. `/version` needs none of them."""
        if path not in _OF_WORKERS:
            return
        loop = asyncio.get_running_loop()
        if self._asking is None:
            if loop.time() - self._asked_at < FRESH_SECONDS:
                return
            self._asking = loop.create_task(self._ask())
        await asyncio.shield(self._asking)  # whoever hangs up ends its own wait only

    async def _ask(self) -> None:
        try:
            await asyncio.gather(*(self._ask_one(worker) for worker in self._fleet.workers))
            numbers = {worker.number for worker in self._fleet.workers}
            self._reports = {number: report for number, report in self._reports.items() if number in numbers}
        finally:
            self._asked_at = asyncio.get_running_loop().time()
            self._asking = None

    async def _ask_one(self, worker: WorkerProcess) -> None:
        """Learn what a worker says; one that still owes an answer is not waited for."""
        if worker.is_late:
            self._reports[worker.number] = None
            return
        until = asyncio.get_running_loop().time() + ASK_SECONDS
        await worker.page(b"/metrics", ASK_SECONDS)
        left = max(0.0, until - asyncio.get_running_loop().time())
        self._reports[worker.number] = await worker.page(b"/readyz", left)

    def _readiness(self) -> Page:
        states = {str(number): _state(report) for number, report in sorted(self._reports.items())}
        ready = not self._fleet.stopping and any(state.get("ready") is True for state in states.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        body = json.dumps({"ready": ready, "workers": states}).encode() + b"\n"
        return Page(status, "application/json", body)


def _state(report: Report | None) -> dict[str, object]:
    """What a worker says of itself."""
    if report is None:
        return {"ready": False, "obstacles": ["starting, or it does not answer"]}
    try:
        state: dict[str, object] = json.loads(report.body)
    except ValueError:  # its page failed, and it says why in its log
        return {"ready": False, "obstacles": ["it can't tell"]}
    return state

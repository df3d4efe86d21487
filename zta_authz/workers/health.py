"""The health listener of several workers: ready while one of them is, metrics of all of them together."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.admin.health import HealthServer, Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.admin.state import ServiceState
    from zta_authz.workers.process import Report, WorkerProcess

FRESH_SECONDS: Final = 0.1
"""Pages that are asked for within this time of each other are made of the same reports."""


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
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        await self._ask()
        return await super()._answer(reader)

    async def _ask(self) -> None:
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at < FRESH_SECONDS:
                return
            workers = self._fleet.workers
            await asyncio.gather(*(worker.page(b"/metrics", 0.4) for worker in workers))
            reports = await asyncio.gather(*(worker.page(b"/readyz", 0.4) for worker in workers))
            self._reports = {worker.number: report for worker, report in zip(workers, reports, strict=True)}
            self._asked_at = now

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
    state: dict[str, object] = json.loads(report.body)
    return state

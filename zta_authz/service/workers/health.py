"""The health listener for several workers: ready while one of them is, with the metrics of all."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.admin.health import FRESH_SECONDS, KEY_SET, HealthServer
from zta_authz.admin.http_listener import Page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.admin.state import ServiceState
    from zta_authz.service.workers.process import PageReply, WorkerProcess

POLL_SECONDS: Final = 0.4
"""Time limit for all requests to one worker; the kubelet's default timeout is a second."""
_WORKER_PAGES: Final = frozenset((b"/healthz", b"/readyz", b"/metrics"))


class WorkerPool(Protocol):
    """The workers that the listener reports on."""

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        """The running workers."""
        ...

    @property
    def stopping(self) -> bool:
        """True once the stop was requested."""
        ...

    def metrics(self) -> tuple[bytes, str]:
        """Return the exposition of the workers' latest metrics, and its content type."""
        ...


class PoolHealth(HealthServer):
    """A health listener that polls the workers before it answers."""

    def __init__(self, host: str, port: int, state: ServiceState, pool: WorkerPool) -> None:
        super().__init__(host, port, state, pool.metrics, lambda: self._keys)
        self._pool = pool
        self._keys: bytes | None = None
        self._keys_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._replies: dict[int, PageReply | None] = {}
        self._polling: asyncio.Task[None] | None = None
        self._polled_at = float("-inf")

    async def prepare(self, path: bytes) -> None:
        """Poll the workers, with one poll at a time shared by all clients. `/version` needs no poll."""
        loop = asyncio.get_running_loop()
        if path == KEY_SET:
            if self._asking is None and loop.time() - self._keys_at >= FRESH_SECONDS:
                self._asking = loop.create_task(self._ask_for_keys())
            if self._asking is not None:
                await asyncio.shield(self._asking)
            return
        if path not in _WORKER_PAGES:
            return
        if self._polling is None:
            if loop.time() - self._polled_at < FRESH_SECONDS:
                return
            self._polling = loop.create_task(self._poll())
        await asyncio.shield(self._polling)  # a client that disconnects must not cancel the shared request

    async def _ask_for_keys(self) -> None:
        """Ask the workers for the keys of minted tokens until one answers; all have the same."""
        try:
            for worker in self._pool.workers:
                reply = None if worker.is_late else await worker.page(KEY_SET, POLL_SECONDS)
                if reply is not None:
                    self._keys = reply.body if reply.status == HTTPStatus.OK else None
                    return
        finally:
            self._keys_at = asyncio.get_running_loop().time()
            self._asking = None

    async def _poll(self) -> None:
        try:
            await asyncio.gather(*(self._poll_worker(worker) for worker in self._pool.workers))
            numbers = {worker.number for worker in self._pool.workers}
            self._replies = {number: reply for number, reply in self._replies.items() if number in numbers}
        finally:
            self._polled_at = asyncio.get_running_loop().time()
            self._polling = None

    async def _poll_worker(self, worker: WorkerProcess) -> None:
        """Read a worker's pages; do not wait for one that still owes an answer."""
        if worker.is_late:
            self._replies[worker.number] = None
            return
        deadline = asyncio.get_running_loop().time() + POLL_SECONDS
        await worker.page(b"/metrics", POLL_SECONDS)
        remaining = max(0.0, deadline - asyncio.get_running_loop().time())
        self._replies[worker.number] = await worker.page(b"/readyz", remaining)

    def _readiness(self) -> Page:
        states = {str(number): _state(reply) for number, reply in sorted(self._replies.items())}
        ready = not self._pool.stopping and any(state.get("ready") is True for state in states.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        body = json.dumps({"ready": ready, "workers": states}).encode() + b"\n"
        return Page(status, "application/json", body)


def _state(reply: PageReply | None) -> dict[str, object]:
    """Return the state that a worker reports."""
    if reply is None:
        return {"ready": False, "obstacles": ["starting, or not answering"]}
    try:
        state: dict[str, object] = json.loads(reply.body)
    except ValueError:  # its page failed; its log has the reason
        return {"ready": False, "obstacles": ["its readiness page failed"]}
    return state

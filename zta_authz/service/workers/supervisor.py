"""Start the workers, replace those that exit, forward signals, and report on all workers.

SIGTERM, SIGINT  drain all; a second time: exit now    SIGHUP   all workers reload policies and live settings
SIGUSR2          replace one worker after the other with the currently installed program
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

from zta_authz.admin.state import ServiceState
from zta_authz.errors import FaultsError
from zta_authz.policy_sources.files import SnapshotHolder
from zta_authz.servers.listeners import Endpoint
from zta_authz.service.app import start_log
from zta_authz.service.observability import new_origin, open_push
from zta_authz.service.preflight import all_faults
from zta_authz.service.workers.control import StartMessage
from zta_authz.service.workers.exposition import Exposition, merged
from zta_authz.service.workers.following import SharedFollowing
from zta_authz.service.workers.health import PoolHealth
from zta_authz.service.workers.process import WorkerProcess
from zta_authz.service.workers.replays import new_table
from zta_authz.service.workers.worker_settings import SharedPorts, worker_settings
from zta_authz.signals import ignore_signals
from zta_authz.telemetry import names
from zta_authz.telemetry.following_metrics import REFUSED_UPDATES_HELP, STREAMS_HELP
from zta_authz.telemetry.metrics import CONTENT_TYPE, PUSH_FAILURES_HELP, PUSHES_HELP

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine

    from prometheus_client.metrics_core import Metric

    from zta_authz.settings import Settings

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.1
_POLL_SECONDS: Final = 0.025


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits, all in seconds.

    A worker that exits is replaced after `backoff`, doubled each time up to `max_backoff`, until one has lived for
    `settled`. Workers are polled every `poll`; one that served and is `silent` for so long is killed. In a rolling
    restart a new worker may take `start` to serve, and `between` passes before the next one (the shipped proxies
    avoid a process for 5 after failures, and check every 2). A drain may take `end` longer than `drain_seconds`.
    """

    backoff: float = 0.1
    max_backoff: float = 10.0
    settled: float = 30.0
    poll: float = 2.0
    silent: float = 30.0
    start: float = 60.0
    between: float = 7.0
    end: float = 10.0


def supervise(settings: Settings, config: str | None) -> int:
    """Serve with `settings.workers` processes until a signal; return the exit status. Raises `SettingsErrors`."""
    start_log(settings)
    try:
        supervisor = Supervisor(settings, config)
    except FaultsError as error:
        raise FaultsError([*error.faults, *all_faults(settings)]) from error
    try:
        return asyncio.run(supervisor.run())
    finally:
        ignore_signals()


class Supervisor:
    """The process that the operator starts."""

    def __init__(self, settings: Settings, config: str | None, timeouts: Timeouts = Timeouts()) -> None:
        self._settings = settings
        self._config = config
        self._timeouts = timeouts
        self._push = open_push(settings, new_origin(), self.families)
        self._ports = SharedPorts(settings)
        self._following = SharedFollowing(settings)
        self._replays = new_table()
        self._workers: dict[int, WorkerProcess] = {}
        self._statuses: dict[int, int] = {}
        self._planned: set[int] = set()
        self._ended = Exposition()
        self._restarts = 0
        self._delays: dict[int, float] = {}
        self._started = False
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rolling: asyncio.Task[None] | None = None

    @property
    def workers(self) -> tuple[WorkerProcess, ...]:
        """The running workers, by number."""
        return tuple(worker for _, worker in sorted(self._workers.items()))

    @property
    def stopping(self) -> bool:
        """True once the stop was requested."""
        return self._stopping.is_set()

    async def families(self) -> list[Metric]:
        """Return the current metrics of all workers together."""
        await asyncio.gather(*(worker.page(b"/metrics") for worker in self.workers if worker.serving))
        return list(text_string_to_metric_families(self.metrics()[0].decode()))

    def metrics(self) -> tuple[bytes, str]:
        """Return the exposition of all workers together, and its content type."""
        whole = merged((worker.metrics for worker in self.workers), self._ended)
        whole.gauge("zta_workers", "Worker processes that serve.", sum(worker.serving for worker in self.workers))
        whole.gauge("zta_workers_wanted", "Worker processes that should serve.", self._settings.workers)
        whole.counter("zta_worker_restarts", "Worker processes that ended and were replaced.", self._restarts)
        if self._push is not None:
            whole.counter(names.PUSHES, PUSHES_HELP, self._push.pushed)
            whole.counter(names.PUSH_FAILURES, PUSH_FAILURES_HELP, self._push.failed)
        follower = self._following.follower
        if follower is not None:
            whole.counter(names.FOLLOWING_STREAMS, STREAMS_HELP, follower.streams)
            whole.counter(names.FOLLOWING_REFUSED_UPDATES, REFUSED_UPDATES_HELP, follower.invalid)
        return whole.render(), CONTENT_TYPE

    async def run(self) -> int:
        """Run from the first worker's start to the last one's exit."""
        self._add_signal_handlers()
        health = None
        try:
            await self._following.start()
            status = await self._start_all()
            if status is not None:
                return status
            health = await self._start_health()
            self._create_task(self._poll())
            if self._push is not None:
                self._push.start()
            await self._stopping.wait()
        finally:
            statuses, _ = await asyncio.gather(self._stop_all(), self._push_last())
            if health is not None:
                await health.stop()
            await self._following.close()
            self._ports.close()
            os.close(self._replays)
        _LOG.info("stopped")
        return 1 if any(statuses) else 0

    def _add_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal)
        loop.add_signal_handler(signal.SIGHUP, self._reload_all)
        loop.add_signal_handler(signal.SIGUSR2, self._start_rolling)

    def _on_stop_signal(self) -> None:
        (self._stop_now if self.stopping else self._stopping).set()

    def _reload_all(self) -> None:
        for worker in self.workers:
            worker.reload()

    def _create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # starting

    async def _start_all(self) -> int | None:
        """Start the workers. Return an exit status if that fails.

        The first worker starts alone, so that faults are reported once.
        """
        for numbers in (range(1, 2), range(2, self._settings.workers + 1)):
            for number in numbers:
                self._spawn(number)
            for number in numbers:
                if not await self._serves(self._workers[number]):
                    return 0 if self.stopping else self._statuses.get(number, 1)
        self._started = True
        for number in list(self._statuses):  # it exited after serving, before the others served
            self._spawn(number)
        return None

    def _listen(self) -> list[str]:
        """Return the addresses that the workers listen on, shared ones once."""
        workers = (worker_settings(self._settings, number, self._ports.addresses) for number in sorted(self._workers))
        return list(dict.fromkeys(text for settings in workers for text in settings.listen))

    def _spawn(self, number: int) -> None:
        relay = self._following.new_relay()
        settings, addresses = self._settings.model_dump_json(), self._ports.addresses
        worker_end = None if relay is None else relay[1].fileno()
        worker = WorkerProcess(StartMessage(number, self._config, settings, addresses, self._replays, worker_end))
        self._workers[number] = worker
        self._statuses.pop(number, None)
        self._create_task(self._watch(worker))
        if relay is not None:
            relay[1].close()
            self._create_task(self._pass_on(worker, relay[0]))

    async def _pass_on(self, worker: WorkerProcess, connection: socket.socket) -> None:
        """Pass the administrator's view on to the worker. Replace a worker that does not get it any more."""
        await self._following.pass_on(connection)
        await asyncio.sleep(_RETRY_SECONDS)  # it may have ended
        if self._workers.get(worker.number) is worker and worker.number not in self._statuses and not self.stopping:
            _LOG.error("a worker gets no more updates of the administrator", extra={"worker": worker.number})
            worker.signal(signal.SIGTERM)

    async def _serves(self, worker: WorkerProcess) -> bool:
        """Wait until the worker serves; return False if it exits before, or the supervisor is stopping."""
        while self._workers.get(worker.number) is worker and not self.stopping:
            if worker.number in self._statuses:
                return False
            if await worker.page(b"/metrics") is not None:
                return True
            await asyncio.sleep(_RETRY_SECONDS)
        return False

    async def _start_health(self) -> PoolHealth | None:
        server, address = None, ""
        if self._settings.health.listen is not None:
            endpoint = Endpoint.parse(self._settings.health.listen)
            server = PoolHealth(endpoint.host, endpoint.port, ServiceState(SnapshotHolder(), time.time), self)
            address = await server.start()
        pids = [worker.pid for worker in self.workers]
        _LOG.info("all workers serve", extra={"listen": self._listen(), "health": address, "worker_pids": pids})
        return server

    # running

    async def _watch(self, worker: WorkerProcess) -> None:
        """Replace the worker when it exits, unless the supervisor is stopping or has not started all workers."""
        began = asyncio.get_running_loop().time()
        number = worker.number
        status = await worker.ended()
        self._statuses[number] = status
        worker.serving = False
        with suppress(ValueError):
            self._ended.add(worker.metrics.decode(), ended=True)
        worker.metrics = b""
        if self.stopping or not self._started:
            return
        if number in self._planned:
            self._planned.discard(number)
        else:
            await self._wait_before_restart(worker, status, began)
        if not self.stopping:
            self._spawn(number)
            self._create_task(self._announce(self._workers[number]))

    async def _wait_before_restart(self, worker: WorkerProcess, status: int, began: float) -> None:
        timeouts, number = self._timeouts, worker.number
        settled = asyncio.get_running_loop().time() - began >= timeouts.settled
        delay = timeouts.backoff if settled else self._delays.get(number, timeouts.backoff)
        self._delays[number] = min(timeouts.max_backoff, delay * 2)
        self._restarts += 1
        details = {"worker": number, "worker_pid": worker.pid, "status": status, "again_in_seconds": delay}
        _LOG.error("a worker ended", extra=details)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    async def _announce(self, worker: WorkerProcess) -> None:
        if await self._serves(worker):
            _LOG.info("a worker serves", extra={"worker": worker.number, "worker_pid": worker.pid})

    async def _poll(self) -> None:
        """Keep a copy of each worker's counters in case it dies; kill a worker that no longer answers."""
        loop, timeouts = asyncio.get_running_loop(), self._timeouts
        while True:
            await asyncio.sleep(timeouts.poll)
            await asyncio.gather(*(worker.page(b"/metrics") for worker in self.workers if worker.serving))
            for worker in self.workers:
                if worker.serving and loop.time() - worker.answered_at > timeouts.silent:
                    _LOG.error("a worker does not answer", extra={"worker": worker.number, "worker_pid": worker.pid})
                    worker.signal(signal.SIGKILL)

    def _start_rolling(self) -> None:
        if self._started and not self.stopping and (self._rolling is None or self._rolling.done()):
            self._rolling = self._create_task(self._roll())

    async def _roll(self) -> None:
        """Replace one worker after the other; stop if a replacement does not serve in time."""
        for number in sorted(self._workers):
            before = self._workers[number]
            if before.serving:
                self._planned.add(number)
                before.signal(signal.SIGTERM)
            seconds = self._settings.drain_seconds + self._timeouts.end + self._timeouts.start
            try:
                async with asyncio.timeout(seconds):
                    await _until(partial(self._replaced, before))
            except TimeoutError:
                _LOG.error("the rolling restart ends: a worker did not come up", extra={"worker": number})
                self._planned.discard(number)
                return
            await asyncio.sleep(self._timeouts.between)
        _LOG.info("all workers were replaced")

    def _replaced(self, before: WorkerProcess) -> bool:
        worker = self._workers[before.number]
        return worker is not before and worker.serving

    # stopping

    async def _stop_all(self) -> list[int]:
        """Stop all workers, by force after their time, and return their exit statuses."""
        self._stopping.set()
        for worker in self.workers:
            if worker.number not in self._statuses:
                worker.signal(signal.SIGTERM)
        waiting = asyncio.create_task(_until(lambda: self._workers.keys() <= self._statuses.keys()))
        hastening = asyncio.create_task(self._stop_now_if_asked())
        seconds = self._settings.drain_seconds + self._timeouts.end
        await asyncio.wait([waiting], timeout=seconds)
        hastening.cancel()
        for worker in self.workers:
            if worker.number not in self._statuses:
                _LOG.error("a worker did not end in time", extra={"worker": worker.number})
                worker.signal(signal.SIGKILL)
        await waiting
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return [self._statuses[number] for number in self._workers]

    async def _push_last(self) -> None:
        if self._push is not None:
            await self._push.close()

    async def _stop_now_if_asked(self) -> None:
        await self._stop_now.wait()
        for worker in self.workers:
            if worker.number not in self._statuses:
                worker.signal(signal.SIGTERM)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  polls other processes
        await asyncio.sleep(_POLL_SECONDS)

"""Composition root of the administrator: builds all parts from the settings, starts them, and stops them in order.

settings -> policies, keys -> store -> access log -> view -> operations, signals, webhooks, due steps -> listeners
SIGTERM  -> no new calls -> signals, webhooks and steps end -> the access log is complete -> exit
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

import uvloop

from zta_authz import __version__
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.admin.health import HealthServer
from zta_authz.admin.state import Phase, ServiceState
from zta_authz.administrator.due_steps import DueSteps
from zta_authz.administrator.event_log import EventLog
from zta_authz.administrator.follow_service import FollowService
from zta_authz.administrator.grants import Grants
from zta_authz.administrator.metrics import AdministratorMetrics
from zta_authz.administrator.minting.setup import AdministratorMinting
from zta_authz.administrator.operations import Operations
from zta_authz.administrator.operations_servers import operations_servers
from zta_authz.administrator.operator_authorization import OperatorAuthorization
from zta_authz.administrator.own_view import OwnView
from zta_authz.administrator.policies import OperatorPolicies
from zta_authz.administrator.policy_records import PolicyRecords
from zta_authz.administrator.problems import CallCounts
from zta_authz.administrator.recovery import Recovery
from zta_authz.administrator.revocations import Revocations
from zta_authz.administrator.signals.held import HeldCounter, HeldEvents
from zta_authz.administrator.signals.setup import build_signals
from zta_authz.administrator.store.open import StoreFiles, open_store, parse_address
from zta_authz.administrator.store.port import StoreError
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.views_servers import views_servers
from zta_authz.administrator.webhooks.service import build_webhooks
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.policy_sources.pacing import collect_rarely
from zta_authz.servers.listeners import Endpoint
from zta_authz.service.observability import new_origin
from zta_authz.settings.audit import open_audit, open_checkpoints
from zta_authz.signals import ignore_signals
from zta_authz.telemetry.service_log import configure_logging

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from zta_authz.administrator.minting.token_exchange import TokenExchange
    from zta_authz.administrator.signals.receiver import PushReceiver
    from zta_authz.administrator.signals.service import SignalService
    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.administrator.webhooks.service import Webhooks
    from zta_authz.servers.group import ServerGroup
    from zta_authz.settings import Settings

EXIT_FAILED: Final = 1
_STDIN: Final = 0
SETTLE_SECONDS: Final = 5.0
"""How long an operation waits until its record is on the disk."""
_LOG = logging.getLogger(__name__)


def administer(settings: Settings, *, embedded: bool = False) -> None:
    """Run the administrator until SIGTERM or SIGINT. Raises `FaultsError` with what prevents the start.

    With `embedded`, it is beside a service: it also ends when its standard input does.
    """
    configure_logging(settings.log.level, for_people=settings.log.format == "text")
    collect_rarely()
    try:
        uvloop.run(_administer(embedded_settings(settings) if embedded else settings, embedded=embedded))
    finally:
        ignore_signals()


def embedded_settings(settings: Settings) -> Settings:
    """The settings of an administrator beside a service with `settings`: the two share no port and no file.

    Decisions on operators go to `administrator-decisions.jsonl` beside the access log.
    """
    path = PurePath(settings.administrator.access_log.path).with_name("administrator-decisions.jsonl")
    audit = settings.audit
    if audit.sink in ("stdout", "file"):
        audit = audit.model_copy(update={"sink": "file", "path": str(path), "checkpoint": None})
    health = settings.health.model_copy(update={"listen": None})
    return settings.model_copy(update={"audit": audit, "health": health})


async def _administer(settings: Settings, *, embedded: bool) -> None:
    stopping = asyncio.Event()
    administrator = Administrator(settings)
    loop = asyncio.get_running_loop()
    if embedded:
        loop.add_reader(_STDIN, stopping.set)  # nobody writes to it: it becomes readable at its end
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, administrator.reload)
    try:
        await administrator.start()
        await asyncio.wait(
            [loop.create_task(stopping.wait()), loop.create_task(administrator.failed.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        await administrator.stop()
    if administrator.failed.is_set():
        raise SystemExit(EXIT_FAILED)


class Administrator:
    """The whole process. Call `start` once, then `stop`, even if `start` failed."""

    def __init__(self, settings: Settings) -> None:
        """Load the policies and open the decision log. Raises `FaultsError`."""
        self._settings = settings
        self._section = settings.administrator
        self._revocations = DynamicRevocations()
        self._policies = OperatorPolicies(
            settings, self._revocations, self._documents_changed, on_refusal=self._documents_refused
        )
        self._records = PolicyRecords()
        self._records.accept(self._policies.current.digest)
        self._minting = AdministratorMinting(settings, self._revocations)
        self._audit = open_audit(settings.audit, new_origin())
        self._metrics = AdministratorMetrics()
        self._name = secrets.token_hex(8)
        self.state = ServiceState(self._policies.snapshots, time.time, needs=self._obstacles)
        self.failed = asyncio.Event()
        """Set when a part that must not end has ended: restart the process."""
        self._store_failure = ""
        self._store: Store | None = None
        self._log: EventLog | None = None
        self._view: PublishedView | None = None
        self._signals: SignalService | None = None
        self._webhooks: Webhooks | None = None
        self._push: PushReceiver | None = None
        self._servers: list[ServerGroup] = []
        self._operations_at: tuple[Endpoint, ...] = ()
        self._health_at = ""
        self._health = self._build_health()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything, then listen. Raises `FaultsError`."""
        await self._policies.start()
        await self._minting.start()
        store = self._store = await self._open_store()
        log = self._log = await self._open_log(store)
        self._run(log.run(), "access log")
        recovery = Recovery(store, log, self._section.access_log.path)
        self._run(recovery.run(), "lost revocations")
        await recovery.wait()
        view = self._view = PublishedView(store, self._on_store_failure)
        try:
            await view.start()
        except StoreError as error:
            raise self._store_fault(str(error)) from error
        follow = FollowService(view)
        self._watch(log, view, follow)
        own_view = OwnView(follow, self._revocations, self._section.max_age_seconds)
        self._run(own_view.run(), "own view")
        await own_view.wait()
        self._run(DueSteps(store).run(), "steps that are due")
        self._run(self._records.run(store), "records of policies")
        authorization = OperatorAuthorization(self._policies.snapshots, self._audit, time.time)
        grants = Grants(store, self._policies.entitlements, self._settle)
        revocations = Revocations(store, self._settle, lambda: self._policies.current.verifier.issuers)
        held = HeldEvents(store, self._settle)
        operations = Operations(authorization, grants, revocations, held, lambda: log.failing)
        await self._start_signals(store, view)
        self._start_webhooks(store, log)
        key_events = self._minting.key_events(store)
        if key_events is not None:
            self._run(key_events.run(), "signing keys")
        token = self._minting.exchange(self._audit, store, self._settle, lambda: log.failing)
        await self._listen(follow, operations, token)
        self.state.phase = Phase.SERVING
        self.state.loaded_at = self.state.now
        self._log_start()

    def reload(self) -> None:
        """Read the policies again soon."""
        self._policies.reload()
        self._minting.reload()

    async def stop(self) -> None:
        """Stop in order. What was answered is in the store and in the access log already."""
        self.state.phase = Phase.DRAINING
        for servers in reversed(self._servers):
            await servers.stop(1.0)
        if self._push is not None:
            await self._push.stop()
        if self._signals is not None:
            await self._signals.close()
        if self._webhooks is not None:
            await self._webhooks.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._view is not None:
            await self._view.close()
        if self._log is not None:
            await self._log.close()
        if self._store is not None:
            await self._store.close()
        await self._policies.close()
        await self._minting.close()
        await asyncio.to_thread(self._audit.close, self._settings.drain_seconds)
        if self._health is not None:
            await self._health.stop()
        _LOG.info("stopped")

    async def _open_store(self) -> Store:
        section = self._section.store
        address = parse_address(section.url, "administrator.store.url")
        files = StoreFiles(
            section.password_file or "", section.ca_file or "", section.cert_file or "", section.key_file or ""
        )
        try:
            return await open_store(address, files=files)
        except StoreError as error:
            raise self._store_fault(str(error)) from error

    def _store_fault(self, reason: str) -> SettingsErrors:
        fault = Fault("administrator.store.url", 0, 0, f"the store can't be opened: {reason}", "correct the URL")
        return SettingsErrors([fault])

    async def _open_log(self, store: Store) -> EventLog:
        section = self._section.access_log
        checkpoints = open_checkpoints(section.checkpoint, "administrator.access_log.checkpoint")
        try:
            return await EventLog.open(
                store,
                section.path,
                max_bytes=section.max_bytes,
                max_files=section.max_files,
                checkpoints=checkpoints,
            )
        except OSError as error:
            hint = "correct `administrator.access_log.path`, or let this service's user write there"
            message = f"the access log can't be written: {error.strerror}"
            raise SettingsErrors([Fault(section.path, 0, 0, message, hint)]) from error

    def _watch(self, log: EventLog, view: PublishedView, follow: FollowService) -> None:
        metrics = self._metrics
        metrics.followers = lambda: follow.followers
        metrics.revision = lambda: view.revision
        metrics.keys = lambda: list(view.items)
        metrics.events = lambda: log.written
        metrics.failures = lambda: {"store": self._store_failure, "access_log": log.failing}

    async def _start_signals(self, store: Store, view: PublishedView) -> None:
        self._signals, self._push = build_signals(
            self._section.signals,
            self._settings.jwks,
            store,
            observer=self._metrics.signals,
            digest=lambda: self._policies.current.digest,
            settle=self._settle,
            holder=self._name,
            published=lambda: len(view.items),
        )
        self._metrics.signals.states = self._signals.states
        counter = HeldCounter(store)
        self._metrics.signals.held = lambda: counter.counts
        self._run(counter.run(), "held signals")
        if self._push is not None:
            await self._push.start()
        await self._signals.start(self._policies.current.signal_sources)

    def _start_webhooks(self, store: Store, log: EventLog) -> None:
        self._webhooks = build_webhooks(
            self._section.webhooks,
            self._settings.jwks,
            store,
            epoch=lambda: log.epoch,
            holder=self._name,
            metrics=self._metrics.webhooks,
        )
        self._webhooks.start()

    async def _listen(self, follow: FollowService, operations: Operations, token: TokenExchange | None) -> None:
        access, tls, workload = self._settings.socket_access(), self._policies.tls, self._settings.options().workload
        views = views_servers(self._section.views, tls, access, follow)
        counts = CallCounts()
        self._metrics.calls = lambda: counts.calls
        calls = operations_servers(self._section.operations, operations, tls, access, workload, token, counts)
        self._servers = [views, calls]
        await views.start()
        self._operations_at = await calls.start()
        if self._health is not None:
            self._health_at = await self._health.start()

    def _build_health(self) -> HealthServer | None:
        if self._settings.health.listen is None:
            return None
        endpoint = Endpoint.parse(self._settings.health.listen)
        return HealthServer(endpoint.host, endpoint.port, self.state, self._metrics.page, self._minting.published)

    async def _settle(self, committed: Committed) -> None:
        """Wait until a commit is in this administrator's access log. The change itself is made already."""
        if self._log is None:
            return
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._log.logged(committed.revision)
        except TimeoutError:
            message = "the change is made, but its record is not on the disk yet"
            raise OperationRefused(Refusal.UNAVAILABLE, message) from None

    def _documents_refused(self, faults: Sequence[Fault]) -> None:
        self._records.refuse(self._policies.current.digest, faults)

    def _documents_changed(self) -> None:
        self._records.accept(self._policies.current.digest)
        if self._signals is not None:
            self._run(self._signals.update(self._policies.current.signal_sources), "changed signal sources")

    def _obstacles(self) -> tuple[str, ...]:
        failing = "" if self._log is None else self._log.failing
        obstacles = list(self._policies.obstacles())
        if self._store_failure:
            obstacles.append("the store can't be read")
        if failing:
            obstacles.append("the access log can't be written")
        return tuple(obstacles)

    def _on_store_failure(self, reason: str) -> None:
        if reason and not self._store_failure:
            _LOG.error("the store can't be read: %s", reason)
        elif self._store_failure and not reason:
            _LOG.info("the store can be read again")
        self._store_failure = reason

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """End the process if a part failed: what is not recorded or published must not look as if it were."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _LOG.critical("a part of the administrator failed: %s", task.get_name(), exc_info=error)
            self.failed.set()

    def _log_start(self) -> None:
        _LOG.info(
            "administering",
            extra={
                "version": __version__,
                "views": list(self._section.views.listen),
                "operations": list(map(str, self._operations_at)),
                "health": self._health_at,
                "table_digest": self._policies.current.digest,
                "obstacles": self.state.obstacles(),
            },
        )

"""Keeps the policies in force up to date with the policy files: watches, compiles in a thread, swaps one reference.

change -> read and compile in one thread -> on the event loop: prepare, put in force -> in that thread: release the old

Reloads run one at a time. Changes during a reload are seen after it, so the latest version wins and a burst of changes
costs only a few reloads. A set with a fault is reported and changes nothing; the next valid one is loaded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from zta_authz.errors import DocumentErrors, Fault
from zta_authz.pdp.snapshot import compile_snapshot, sources_digest
from zta_authz.policy_sources.files import read_sources
from zta_authz.policy_sources.pacing import release_gradually
from zta_authz.policy_sources.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from zta_authz.model.options import Options
    from zta_authz.pdp.snapshot import Snapshot, SourceText
    from zta_authz.policy_sources.compile_executor import CompileExecutor
    from zta_authz.policy_sources.watcher import WatchTiming

LOGGED_FAULTS: Final = 100
"""Logged faults of a refused set. The admin API has all of them."""
LOGGED_NOTES: Final = 20

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A set of policies that is kept current. `name` is its name in the log.

    `current` returns the snapshot in force, and `apply` puts one in force. `on_refused` is called with the faults of a
    refused set, `on_unchanged` when the files match the snapshot in force again. All are called on the event loop's
    thread and must return at once. `prepare` is awaited before `apply`, and loads what the new snapshot needs.
    """

    name: str
    paths: Sequence[str]
    current: Callable[[], Snapshot | None]
    apply: Callable[[Snapshot], None]
    on_refused: Callable[[Sequence[Fault]], None]
    on_unchanged: Callable[[], None]
    prepare: Callable[[Snapshot], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class _LoadResult:
    """The result of one load: a snapshot, or faults, or neither if the files match the snapshot in force."""

    digest: str
    snapshot: Snapshot | None = None
    faults: tuple[Fault, ...] = ()
    seconds: float = 0.0


class PolicyReloader:
    """Reloads `policies` while it runs. Call all methods in the event loop's thread."""

    def __init__(
        self,
        policies: PolicySet,
        options: Options,
        timing: WatchTiming,
        executor: CompileExecutor,
    ) -> None:
        self._policies = policies
        self._options = options
        self._timing = timing
        self._executor = executor
        self._watcher: Watcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._refused: _LoadResult | None = None

    def start(self, *, watches: bool = True) -> None:
        """Start watching. Changes since the files were first read are found at once.

        Without `watches`, the files are read only on `request_reload`, and now if nothing is in force yet.
        """
        paths = self._policies.paths if watches else ()
        self._watcher = Watcher(paths, self._timing, self._executor.run)
        if watches or self._policies.current() is None:
            self._watcher.request_check()
        name = f"reload {self._policies.name}"
        self._task = asyncio.get_running_loop().create_task(self._watch(self._watcher), name=name)

    def request_reload(self) -> None:
        """Read the files soon, even if they seem unchanged."""
        if self._watcher is not None:
            self._watcher.request_check()

    async def close(self) -> None:
        """Stop watching. A compilation in progress ends, but its result is discarded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, watcher: Watcher) -> None:
        while True:
            await watcher.wait_for_change()
            try:
                await self._reload()
            except Exception:  # noqa: BLE001  watching must go on
                _LOG.exception("reloading policies failed", extra={"set": self._policies.name})
                self._policies.on_refused(
                    [Fault(self._policies.name, 0, 0, "reloading failed", "see the service's log")]
                )

    async def _reload(self) -> None:
        old: list[object] = []
        async with self._executor.exclusive():
            result = await self._executor.run(self._read)
            if result.snapshot is not None and self._policies.prepare is not None:
                await self._policies.prepare(result.snapshot)
            before = self._policies.current()
            if result.snapshot is not None:
                self._policies.apply(result.snapshot)
                old.append(before)
            known = "" if before is None else before.digest
            del before
            self._report(result, known)
            del result
            await self._executor.run(partial(release_gradually, old, self._executor.pause))

    def _read(self) -> _LoadResult:
        """Read the files, and compile them if they changed. Runs in the executor's thread and does not raise."""
        before = self._policies.current()
        started = time.perf_counter()
        faults: list[Fault] = []
        digest = ""
        try:
            notes: list[Fault] = []
            sources = read_sources(self._policies.paths, faults, notes)
            digest = sources_digest(sources, self._options)
            if not faults and before is not None and digest == before.digest:
                return _LoadResult(digest)
            if not faults and self._refused is not None and digest == self._refused.digest:
                return self._refused
            snapshot = self._compile(sources, faults, before, notes)
        except DocumentErrors as error:
            # with unreadable files the digest does not identify the set
            return _LoadResult("" if faults else digest, None, (*faults, *error.faults))
        except Exception as error:  # noqa: BLE001  a bug that one set triggers must not stop watching
            _LOG.exception("compiling policies failed", extra={"set": self._policies.name})
            message = f"compiling failed: {type(error).__name__}"
            return _LoadResult("", None, (*faults, Fault(self._policies.name, 0, 0, message, "please report this")))
        return _LoadResult(digest, snapshot, (), time.perf_counter() - started)

    def _compile(
        self, sources: list[SourceText], faults: list[Fault], before: Snapshot | None, notes: list[Fault]
    ) -> Snapshot:
        """Compile `sources` and create the same views as in `before`. Raises `DocumentErrors`."""
        pause = self._executor.pause
        snapshot = compile_snapshot(sources, self._options, pause, notes)
        if faults:
            raise DocumentErrors([])
        if before is not None:
            snapshot.table.make_views_of(before.table, pause)
        return snapshot

    def _report(self, result: _LoadResult, known: str) -> None:
        details: dict[str, object] = {"set": self._policies.name}
        if result.snapshot is not None:
            self._refused = None
            self._log_loaded(result.snapshot, result.seconds, details)
        elif result.faults:
            if result is not self._refused:
                self._log_refused(result.faults, {**details, "table_digest": known})
            self._refused = result
            self._policies.on_refused(result.faults)
        else:
            if self._refused is not None:
                _LOG.info("policies on disk match those in force again", extra=details)
            self._refused = None
            self._policies.on_unchanged()

    @staticmethod
    def _log_loaded(snapshot: Snapshot, seconds: float, details: dict[str, object]) -> None:
        log_warnings_and_notes(snapshot)
        details |= {
            "table_digest": snapshot.digest,
            "files": len(snapshot.sources),
            "rules": snapshot.table.rule_count,
            "seconds": round(seconds, 3),
        }
        _LOG.info("policies taken", extra=details)

    @staticmethod
    def _log_refused(faults: Sequence[Fault], details: dict[str, object]) -> None:
        for fault in faults[:LOGGED_FAULTS]:
            _LOG.error("%s", fault, extra=details)
        _LOG.error("policy_reload_failed", extra={**details, "faults": len(faults)})


def log_warnings_and_notes(snapshot: Snapshot) -> None:
    """Log the warnings of a loaded set, and which names and documents were not read."""
    for warning in snapshot.warnings:
        _LOG.warning("%s", warning)
    for note in snapshot.notes[:LOGGED_NOTES]:
        _LOG.info("%s", note)
    more = len(snapshot.notes) - LOGGED_NOTES
    if more > 0:
        _LOG.info("%d more documents and names are not read; `zta-authz check` names them", more)

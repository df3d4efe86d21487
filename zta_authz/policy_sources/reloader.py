"""Keeps the rules in force what the policy files say: watched, compiled aside, swapped as one reference.

changed -> read and compile in one thread -> on the event loop: put in force -> in that thread: let the old set go

One at a time: what changes meanwhile is seen when it is done, so the latest version wins and a burst of changes costs
a few reloads. A set with a fault changes nothing but what is told of it; the next good one is taken.
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
    from collections.abc import Callable, Sequence

    from zta_authz.model.options import Options
    from zta_authz.pdp.snapshot import Snapshot, SourceText
    from zta_authz.policy_sources.compile_executor import CompileExecutor
    from zta_authz.policy_sources.watcher import WatchTiming

LOGGED_FAULTS: Final = 100
LOGGED_NOTES: Final = 20
"""Of a refused set; the admin API has them all."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A set of policies that is kept current. `name` is what the log calls it.

    `current` gives what is in force, `take` puts a snapshot in force, `refuse` is told the faults of one that is not
    taken, `keep` that the files are again what is in force. They are called on the event loop's thread, and return at
    once.
    """

    name: str
    paths: Sequence[str]
    current: Callable[[], Snapshot | None]
    take: Callable[[Snapshot], None]
    refuse: Callable[[Sequence[Fault]], None]
    keep: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of one reading: a snapshot to take, or faults, or neither where the files say what is in force."""

    digest: str
    snapshot: Snapshot | None = None
    faults: tuple[Fault, ...] = ()
    seconds: float = 0.0


class PolicyReloader:
    """Reloads `policies` while it runs. All methods are for the event loop's thread."""

    def __init__(
        self,
        policies: PolicySet,
        options: Options,
        timing: WatchTiming,
        workshop: CompileExecutor,
    ) -> None:
        self._policies = policies
        self._options = options
        self._timing = timing
        self._workshop = workshop
        self._watcher: Watcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._refused: _Outcome | None = None

    def start(self, *, watches: bool = True) -> None:
        """Begin to watch. What changed since the files were first read is found at once.

        Where `watches` is false, the files are only read when that is asked for, and now if nothing is in force yet.
        """
        paths = self._policies.paths if watches else ()
        self._watcher = Watcher(paths, self._timing, self._workshop.run)
        if watches or self._policies.current() is None:
            self._watcher.ask()
        name = f"reload {self._policies.name}"
        self._task = asyncio.get_running_loop().create_task(self._watch(self._watcher), name=name)

    def ask(self) -> None:
        """Read the files soon, whether or not they seem to have changed."""
        if self._watcher is not None:
            self._watcher.ask()

    async def close(self) -> None:
        """Stop watching. What is being compiled is compiled to its end, and not taken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, watcher: Watcher) -> None:
        while True:
            await watcher.changed()
            try:
                await self._reload()
            except Exception:  # noqa: BLE001  it goes on watching, whatever happened
                _LOG.exception("reloading policies failed", extra={"set": self._policies.name})
                self._policies.refuse([Fault(self._policies.name, 0, 0, "reloading failed", "see the service's log")])

    async def _reload(self) -> None:
        old: list[object] = []
        async with self._workshop.turn():
            outcome = await self._workshop.run(self._read)
            before = self._policies.current()
            if outcome.snapshot is not None:
                self._policies.take(outcome.snapshot)
                old.append(before)
            known = "" if before is None else before.digest
            del before
            self._tell(outcome, known)
            del outcome
            await self._workshop.run(partial(release_gradually, old, self._workshop.pause))

    def _read(self) -> _Outcome:
        """Read and, if that is new, compile. In the workshop's thread; raises nothing."""
        before = self._policies.current()
        started = time.perf_counter()
        faults: list[Fault] = []
        digest = ""
        try:
            notes: list[Fault] = []
            sources = read_sources(self._policies.paths, faults, notes)
            digest = sources_digest(sources, self._options)
            if not faults and before is not None and digest == before.digest:
                return _Outcome(digest)
            if not faults and self._refused is not None and digest == self._refused.digest:
                return self._refused
            snapshot = self._compile(sources, faults, before, notes)
        except DocumentErrors as error:
            # what could not be read is not in the digest, so that it says nothing then
            return _Outcome("" if faults else digest, None, (*faults, *error.faults))
        except Exception as error:  # noqa: BLE001  a bug that one set of documents meets must not end the watching
            _LOG.exception("compiling policies failed", extra={"set": self._policies.name})
            message = f"compiling failed: {type(error).__name__}"
            return _Outcome("", None, (*faults, Fault(self._policies.name, 0, 0, message, "please report this")))
        return _Outcome(digest, snapshot, (), time.perf_counter() - started)

    def _compile(
        self, sources: list[SourceText], faults: list[Fault], before: Snapshot | None, notes: list[Fault]
    ) -> Snapshot:
        """The snapshot of `sources`, with the views that the one `before` has. Raises `DocumentErrors`."""
        pause = self._workshop.pause
        snapshot = compile_snapshot(sources, self._options, pause, notes)
        if faults:
            raise DocumentErrors([])
        if before is not None:
            snapshot.table.make_views_of(before.table, pause)
        return snapshot

    def _tell(self, outcome: _Outcome, known: str) -> None:
        details: dict[str, object] = {"set": self._policies.name}
        if outcome.snapshot is not None:
            self._refused = None
            self._tell_taken(outcome.snapshot, outcome.seconds, details)
        elif outcome.faults:
            if outcome is not self._refused:
                self._tell_refused(outcome.faults, {**details, "table_digest": known})
            self._refused = outcome
            self._policies.refuse(outcome.faults)
        else:
            if self._refused is not None:
                _LOG.info("policies on disk are what is in force", extra=details)
            self._refused = None
            self._policies.keep()

    @staticmethod
    def _tell_taken(snapshot: Snapshot, seconds: float, details: dict[str, object]) -> None:
        log_remarks(snapshot)
        details |= {
            "table_digest": snapshot.digest,
            "files": len(snapshot.sources),
            "rules": snapshot.table.rule_count,
            "seconds": round(seconds, 3),
        }
        _LOG.info("policies taken", extra=details)

    @staticmethod
    def _tell_refused(faults: Sequence[Fault], details: dict[str, object]) -> None:
        for fault in faults[:LOGGED_FAULTS]:
            _LOG.error("%s", fault, extra=details)
        _LOG.error("policy_reload_failed", extra={**details, "faults": len(faults)})


def log_remarks(snapshot: Snapshot) -> None:
    """Log the warnings of a set that is taken, and what of its paths and documents is not in it."""
    for warning in snapshot.warnings:
        _LOG.warning("%s", warning)
    for note in snapshot.notes[:LOGGED_NOTES]:
        _LOG.info("%s", note)
    more = len(snapshot.notes) - LOGGED_NOTES
    if more > 0:
        _LOG.info("%d more documents and names are not read; `zta-authz check` names them", more)

"""Keeps the fetched key sets of all JWT rules current, in the background.

One task fetches each source of keys, however many rules share it. Every rule has a slot (`authn.keys.KeySlot`) whose
one reference is replaced when keys arrive or expire. A slot without keys denies. Fetched keys survive a policy reload:
they fill the new snapshot's slots too.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.authn.keys import NO_KEYS
from zta_authz.keys.http_client import MAX_SECONDS
from zta_authz.keys.jwks import FetchedKeys, KeySource
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.keys.refresh_schedule import DEFAULT_TIMING, Schedule, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.authn.keys import KeySlot
    from zta_authz.ports import Clock

    FetchObserver = Callable[[str, FetchOutcome], None]  # host, outcome

MAX_FETCHES: Final = 32
"""Concurrent fetches over all sources."""

_LOG = logging.getLogger(__name__)
_random = random.SystemRandom()


class Loader(Protocol):
    """Fetches one key set."""

    async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
        """Fetch the keys of `source`. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class KeyAge:
    """When keys were fetched, and when they expire unless they are renewed, in seconds since the epoch."""

    since: float
    until: float


def _ignore(_host: str, _outcome: FetchOutcome) -> None:
    pass


class JwksRefresher:
    """Fetches the keys of every bound slot. Call all methods in the event loop's thread.

    `on_fetch` is called with the host and outcome of each fetch. `clock` is only for reporting: waits use loop time.
    """

    def __init__(
        self,
        loader: Loader,
        timing: Timing = DEFAULT_TIMING,
        on_fetch: FetchObserver = _ignore,
        *,
        clock: Clock = time.time,
        jitter: Callable[[float, float], float] = _random.uniform,
    ) -> None:
        self._loader = loader
        self._timing = timing
        self._on_fetch = on_fetch
        self._clock = clock
        self._jitter = jitter
        self._refreshers: dict[KeySource, _SourceRefresher] = {}
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._tasks: dict[KeySource, asyncio.Task[None]] = {}
        self._started = False

    def bind(self, slots: Iterable[KeySlot]) -> None:
        """Keep `slots`, and no others, filled from now on. Keys that were fetched before fill them at once."""
        slots_by_source: dict[KeySource, list[KeySlot]] = {}
        for slot in slots:
            if slot.fetched:
                slots_by_source.setdefault(KeySource.of(slot), []).append(slot)
        for source in [source for source in self._refreshers if source not in slots_by_source]:
            self._refreshers.pop(source).stop()
            if source in self._tasks:
                self._tasks.pop(source).cancel()
        for source, source_slots in slots_by_source.items():
            if source not in self._refreshers:
                self._refreshers[source] = _SourceRefresher(source, self)
                self._run(source)
            self._refreshers[source].attach(tuple(source_slots))

    async def start(self, patience: float = 0.0) -> None:
        """Start fetching. Return when each source was tried once, or after `patience` seconds."""
        self._started = True
        for source in self._refreshers:
            self._run(source)
        if not self._refreshers or not patience:
            return
        waiting = [asyncio.ensure_future(refresher.tried.wait()) for refresher in self._refreshers.values()]
        await asyncio.wait(waiting, timeout=patience)
        for task in waiting:
            task.cancel()

    async def close(self) -> None:
        """Stop fetching. Slots keep their keys."""
        self._started = False
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for refresher in self._refreshers.values():
            refresher.stop()
        self._tasks.clear()
        await self._loader.close()

    def age_of(self, slot: KeySlot) -> KeyAge | None:
        """Return the age of the fetched keys of `slot`, None if it has none."""
        refresher = self._refreshers.get(KeySource.of(slot)) if slot.fetched else None
        return None if refresher is None else refresher.age

    def ages(self) -> dict[str, float]:
        """Return how many seconds ago the oldest key set of each host was fetched."""
        now = self._clock()
        ages: dict[str, float] = {}
        for source, refresher in self._refreshers.items():
            if refresher.age is not None:
                ages[source.host] = max(ages.get(source.host, 0.0), now - refresher.age.since)
        return ages

    def missing_issuers(self) -> tuple[str, ...]:
        """Return the issuers without keys, sorted."""
        return tuple(sorted({slot.issuer for k in self._refreshers.values() if k.age is None for slot in k.slots}))

    def _run(self, source: KeySource) -> None:
        if self._started:
            name = f"keys of {source.host}"
            self._tasks[source] = asyncio.get_running_loop().create_task(self._refreshers[source].run(), name=name)

    # called by `_SourceRefresher`

    async def fetch(self, source: KeySource, timeout_seconds: float, on_start: Callable[[], None]) -> FetchedKeys:
        """Fetch once, after waiting for a free place; call `on_start` then. Raises only `FetchFailed`."""
        async with self._fetches:
            on_start()
            try:
                fetched = await self._loader.load(source, min(timeout_seconds, MAX_SECONDS))
            except FetchFailed as error:
                self._on_fetch(source.host, error.outcome)
                raise
            except Exception as error:
                _LOG.exception("fetching keys failed", extra={"host": source.host})
                self._on_fetch(source.host, FetchOutcome.FAILED)
                raise FetchFailed(FetchOutcome.FAILED, "internal error") from error
        self._on_fetch(source.host, FetchOutcome.TAKEN)
        return fetched

    def schedule(self, now: float) -> Schedule:
        """Create a schedule that is due at `now`."""
        return Schedule(self._timing, now, self._jitter)

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._clock()


class _SourceRefresher:
    """Refreshes one source of keys and fills its slots."""

    def __init__(self, source: KeySource, owner: JwksRefresher) -> None:
        self._source = source
        self._owner = owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._requested = False
        self._expiry: asyncio.TimerHandle | None = None
        self._keys = NO_KEYS
        self._digest = b""
        self.slots: tuple[KeySlot, ...] = ()
        self.age: KeyAge | None = None
        self.tried = asyncio.Event()

    def attach(self, slots: tuple[KeySlot, ...]) -> None:
        """Fill `slots` from now on."""
        self.slots = slots
        for slot in slots:
            slot.current = self._keys
            slot.key_unknown = self.key_unknown

    def key_unknown(self) -> None:
        """Request one early fetch. Called on the request path, from any thread."""
        loop = self._loop
        if self._requested or loop is None:
            return
        self._requested = True
        with suppress(RuntimeError):  # the loop is closed: the service is shutting down
            loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Stop fetching and expiring. Slots keep their keys."""
        self._loop = None
        if self._expiry is not None:
            self._expiry.cancel()

    async def run(self) -> None:
        """Fetch on schedule until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        schedule = self._owner.schedule(loop.time())

        def on_start() -> None:
            self._requested = False
            self._wake.clear()
            schedule.started(loop.time())

        while True:
            await self._wait_until_due(schedule)
            limit = max((slot.timeout_seconds for slot in self.slots), default=MAX_SECONDS)
            try:
                fetched = await self._owner.fetch(self._source, limit, on_start)
            except FetchFailed as error:
                schedule.failed(loop.time())
                self._log_failure(error, schedule)
            else:
                schedule.succeeded(loop.time(), fetched.max_age)
                self._put_in_force(fetched, schedule)
            self.tried.set()

    async def _wait_until_due(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        while (wait := schedule.next_at - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                self._wake.clear()
                schedule.key_unknown(loop.time())

    def _put_in_force(self, fetched: FetchedKeys, schedule: Schedule) -> None:
        """Put the keys in force. An unchanged text keeps the same key set, so cached verifications stay valid."""
        loop = asyncio.get_running_loop()
        end = schedule.drop_at or loop.time()
        now = self._owner.now()
        self.age = KeyAge(now, now + end - loop.time())
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = loop.call_at(end, self._drop)
        if fetched.digest == self._digest:
            return
        self._digest = fetched.digest
        self._fill(fetched)
        details = {**self._log_fields(), "keys": len(fetched.keys.keys)}
        _LOG.info("keys taken", extra=details)
        if fetched.faults:
            _LOG.warning("keys passed over", extra={**self._log_fields(), "faults": fetched.faults[:10]})

    def _fill(self, fetched: FetchedKeys | None) -> None:
        self._keys = NO_KEYS if fetched is None else fetched.keys
        for slot in self.slots:
            slot.current = self._keys

    def _drop(self) -> None:
        """Drop keys that are too old to be trusted."""
        self.age = None
        self._digest = b""
        self._fill(None)
        _LOG.error("keys dropped: they could not be renewed in time", extra=self._log_fields())

    def _log_failure(self, error: FetchFailed, schedule: Schedule) -> None:
        now = asyncio.get_running_loop().time()
        holds = None if self.age is None or schedule.drop_at is None else round(schedule.drop_at - now)
        _LOG.warning(
            "keys can't be fetched",
            extra={
                **self._log_fields(),
                "outcome": error.outcome.value,
                "detail": error.detail,
                "failures": schedule.failures,
                "retry_in_seconds": round(schedule.next_at - now, 1),
                "keys_hold_for_seconds": holds,
            },
        )

    def _log_fields(self) -> dict[str, object]:
        issuers = list(dict.fromkeys(slot.issuer for slot in self.slots))
        return {"host": self._source.host, "issuers": issuers[:10]}

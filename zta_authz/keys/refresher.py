"""Keeps the fetched key sets of all token rules current, in the background.

One task for each source of keys, however many rules share it. Rules have a slot (`authn.keys.KeySlot`) whose one
reference is replaced when keys arrive or end; a slot without keys denies. What was fetched outlives a reload of the
policies: a new snapshot's slots are filled from what is here.
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
from zta_authz.keys.http import MAX_SECONDS
from zta_authz.keys.jwks import FetchedKeys, KeySource
from zta_authz.keys.outcomes import FetchFailed, Outcome
from zta_authz.keys.schedule import DEFAULT_TIMING, Schedule, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz.authn.keys import KeySlot
    from zta_authz.ports import Clock

    Heard = Callable[[str, Outcome], None]

MAX_FETCHES: Final = 32
"""Fetches at once, over all sources."""

_LOG = logging.getLogger(__name__)
_random = random.SystemRandom()


class Loader(Protocol):
    """What fetches one key set."""

    async def load(self, source: KeySource, timeout_seconds: float) -> FetchedKeys:
        """The keys of `source`. Raises `FetchFailed`."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


@dataclass(frozen=True, slots=True)
class KeyAge:
    """Of keys in force: when they were fetched, and when they end unless they are renewed; seconds since the epoch."""

    since: float
    until: float


def _unheard(_host: str, _outcome: Outcome) -> None:
    pass


class JwksRefresher:
    """Fetches for every slot that it was told of. All methods are for the event loop's thread.

    `heard` is told the host and outcome of each fetch. `clock` is for reporting; waiting goes by the loop's own time.
    """

    def __init__(
        self,
        loader: Loader,
        timing: Timing = DEFAULT_TIMING,
        heard: Heard = _unheard,
        *,
        clock: Clock = time.time,
        jitter: Callable[[float, float], float] = _random.uniform,
    ) -> None:
        self._loader = loader
        self._timing = timing
        self._heard = heard
        self._clock = clock
        self._jitter = jitter
        self._keepers: dict[KeySource, _Keeper] = {}
        self._fetches = asyncio.Semaphore(MAX_FETCHES)
        self._tasks: dict[KeySource, asyncio.Task[None]] = {}
        self._started = False

    def bind(self, slots: Iterable[KeySlot]) -> None:
        """From now on keep `slots`, and no others, filled; at once where their keys are here already."""
        wanted: dict[KeySource, list[KeySlot]] = {}
        for slot in slots:
            if slot.fetched:
                wanted.setdefault(KeySource.of(slot), []).append(slot)
        for source in [source for source in self._keepers if source not in wanted]:
            self._keepers.pop(source).stop()
            if source in self._tasks:
                self._tasks.pop(source).cancel()
        for source, its_slots in wanted.items():
            if source not in self._keepers:
                self._keepers[source] = _Keeper(source, self)
                self._run(source)
            self._keepers[source].attach(tuple(its_slots))

    async def start(self, patience: float = 0.0) -> None:
        """Begin to fetch. Returns when each source was tried once, after `patience` seconds at the latest."""
        self._started = True
        for source in self._keepers:
            self._run(source)
        if not self._keepers or not patience:
            return
        waiting = [asyncio.ensure_future(keeper.tried.wait()) for keeper in self._keepers.values()]
        await asyncio.wait(waiting, timeout=patience)
        for task in waiting:
            task.cancel()

    async def close(self) -> None:
        """Stop fetching. Keys that are in slots stay there."""
        self._started = False
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for keeper in self._keepers.values():
            keeper.stop()
        self._tasks.clear()
        await self._loader.close()

    def age_of(self, slot: KeySlot) -> KeyAge | None:
        """The age of the keys that `slot` gets, None where it gets none (yet, or any more)."""
        keeper = self._keepers.get(KeySource.of(slot)) if slot.fetched else None
        return None if keeper is None else keeper.age

    def ages(self) -> dict[str, float]:
        """How many seconds ago the oldest key set of each host was fetched."""
        now = self._clock()
        ages: dict[str, float] = {}
        for source, keeper in self._keepers.items():
            if keeper.age is not None:
                ages[source.host] = max(ages.get(source.host, 0.0), now - keeper.age.since)
        return ages

    def missing(self) -> tuple[str, ...]:
        """The issuers whose keys are not there, sorted."""
        return tuple(sorted({slot.issuer for k in self._keepers.values() if k.age is None for slot in k.slots}))

    def _run(self, source: KeySource) -> None:
        if self._started:
            name = f"keys of {source.host}"
            self._tasks[source] = asyncio.get_running_loop().create_task(self._keepers[source].run(), name=name)

    # what keepers need of us

    async def fetch(self, source: KeySource, timeout_seconds: float, begins: Callable[[], None]) -> FetchedKeys:
        """One fetch, when it is its turn; `begins` is called then. Raises `FetchFailed`, whatever happens."""
        async with self._fetches:
            begins()
            try:
                fetched = await self._loader.load(source, min(timeout_seconds, MAX_SECONDS))
            except FetchFailed as error:
                self._heard(source.host, error.outcome)
                raise
            except Exception as error:
                _LOG.exception("fetching keys failed", extra={"host": source.host})
                self._heard(source.host, Outcome.FAILED)
                raise FetchFailed(Outcome.FAILED, "a fault of ours") from error
        self._heard(source.host, Outcome.TAKEN)
        return fetched

    def schedule(self, now: float) -> Schedule:
        """A schedule that is due at `now`."""
        return Schedule(self._timing, now, self._jitter)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()


class _Keeper:
    """One source of keys, the slots that take from it, and when it is asked."""

    def __init__(self, source: KeySource, refresher: JwksRefresher) -> None:
        self._source = source
        self._refresher = refresher
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._asked = False
        self._end: asyncio.TimerHandle | None = None
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
        """On the request path: ask for a fetch, once. From any thread."""
        loop = self._loop
        if self._asked or loop is None:
            return
        self._asked = True
        with suppress(RuntimeError):  # the loop is closed: the service ends
            loop.call_soon_threadsafe(self._wake.set)

    def stop(self) -> None:
        """Ask for nothing more and let the keys stand where they are."""
        self._loop = None
        if self._end is not None:
            self._end.cancel()

    async def run(self) -> None:
        """Fetch whenever it is time, until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        schedule = self._refresher.schedule(loop.time())

        def begins() -> None:
            self._asked = False
            self._wake.clear()
            schedule.started(loop.time())

        while True:
            await self._due(schedule)
            limit = max((slot.timeout_seconds for slot in self.slots), default=MAX_SECONDS)
            try:
                fetched = await self._refresher.fetch(self._source, limit, begins)
            except FetchFailed as error:
                schedule.failed(loop.time())
                self._tell_failure(error, schedule)
            else:
                schedule.succeeded(loop.time(), fetched.max_age)
                self._take(fetched, schedule)
            self.tried.set()

    async def _due(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        while (wait := schedule.next_at - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                self._wake.clear()
                schedule.key_unknown(loop.time())

    def _take(self, fetched: FetchedKeys, schedule: Schedule) -> None:
        """Put the keys in force. The same text keeps the same set, and with it what was verified with it."""
        loop = asyncio.get_running_loop()
        end = schedule.drop_at or loop.time()
        now = self._refresher.now()
        self.age = KeyAge(now, now + end - loop.time())
        if self._end is not None:
            self._end.cancel()
        self._end = loop.call_at(end, self._drop)
        if fetched.digest == self._digest:
            return
        self._digest = fetched.digest
        self._fill(fetched)
        details = {**self._names(), "keys": len(fetched.keys.keys)}
        _LOG.info("keys taken", extra=details)
        if fetched.wrong:
            _LOG.warning("keys passed over", extra={**self._names(), "faults": fetched.wrong[:10]})

    def _fill(self, fetched: FetchedKeys | None) -> None:
        self._keys = NO_KEYS if fetched is None else fetched.keys
        for slot in self.slots:
            slot.current = self._keys

    def _drop(self) -> None:
        """The keys are too old to be believed."""
        self.age = None
        self._digest = b""
        self._fill(None)
        _LOG.error("keys dropped: they could not be renewed in time", extra=self._names())

    def _tell_failure(self, error: FetchFailed, schedule: Schedule) -> None:
        now = asyncio.get_running_loop().time()
        holds = None if self.age is None or schedule.drop_at is None else round(schedule.drop_at - now)
        _LOG.warning(
            "keys can't be fetched",
            extra={
                **self._names(),
                "outcome": error.outcome.value,
                "detail": error.detail,
                "failures": schedule.failures,
                "retry_in_seconds": round(schedule.next_at - now, 1),
                "keys_hold_for_seconds": holds,
            },
        )

    def _names(self) -> dict[str, object]:
        issuers = list(dict.fromkeys(slot.issuer for slot in self.slots))
        return {"host": self._source.host, "issuers": issuers[:10]}

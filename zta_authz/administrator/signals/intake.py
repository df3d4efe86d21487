"""Take in one Security Event Token: verify it, decide what it changes, and commit that.

All that a SET does is one commit: its changes, the record of it, the time at which its source was heard, and the mark
that makes a second delivery a duplicate. `receive` returns when the commit is durable. Before that, the transmitter
gets no acknowledgement, so it sends the SET again if the administrator dies at any moment.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from zta_authz.administrator.signals.changes import (
    Draft,
    held_item,
    item_of,
    put_items,
    put_source,
    set_mark,
    signal_event,
)
from zta_authz.administrator.store.port import (
    Committed,
    Conflict,
    StoreForgot,
    StoreUnavailable,
    Window,
    WindowClosed,
)
from zta_authz.errors import ZtaError
from zta_authz.model.signal_documents import EventKind
from zta_authz.security_events.actions import Outcome, Plan, Why, plan_changes
from zta_authz.security_events.set_verifier import SecurityEvent, SetError, verify_set

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from zta_authz.administrator.store.port import Store
    from zta_authz.authn.keys import KeySet
    from zta_authz.model.signal_documents import SignalSource

REMEMBERED_SECONDS: Final = 86400.0
"""How long a SET is remembered. A later repetition changes nothing: the times in the items do not go back."""
MAX_SETS: Final = 100_000
"""SETs of one source within an hour. More are not acknowledged, because they could not be remembered."""
MAX_HELD: Final = 1_000
"""Held events of one source within an hour. More are not acknowledged."""
MAX_PUBLISHED: Final = 250_000
"""With so many items in the view, events are held: decision points refuse a view of more than twice as many, and then
nothing new would reach them."""
WINDOW_SECONDS: Final = 3600.0
_MAX_ATTEMPTS: Final = 8
_BATCH: Final = 100
"""SETs are counted in the store in batches of this size, because each reservation is a write."""


class Result(StrEnum):
    """How the delivery of a SET ended, as a metric's label."""

    ACCEPTED = "accepted"
    WITHOUT_EFFECT = "without_effect"
    DISCARDED = "discarded"
    HELD = "held"
    STREAM = "stream"
    DUPLICATE = "duplicate"
    REFUSED = "refused"  # the SET is not valid
    UNAVAILABLE = "unavailable"  # the store or the keys; the transmitter sends the SET again


class SignalsObserver(Protocol):
    """Receives what happened, for metrics."""

    def received(self, source: str, event_type: str, result: Result, lag_seconds: float | None) -> None:
        """One SET of `source`; `lag_seconds` is the time since the event, None if it is not known."""
        ...


class NotNow(ZtaError):
    """The SET can't be taken in at the moment: answer 5xx, and do not acknowledge it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A SET that needs no other delivery. `event` and `plan` are None for a duplicate."""

    result: Result
    event: SecurityEvent | None = None
    plan: Plan | None = None


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What is known of a source's stream: accepted audiences, and the transmitter's `critical_subject_members`."""

    audiences: tuple[str, ...]
    critical: tuple[str, ...] = ()


async def _nothing(_: Committed) -> None:
    pass


class Intake:
    """Takes in the SETs of all sources. Belongs to one event loop.

    Args:
        store: The store; the caller has called `epoch`.
        digest: Returns the digest of the policies in force, for records.
        settle: Called after each commit, before the SET is acknowledged: waits until the log has it.
        clock: Returns seconds since the epoch.
        holder: This administrator's name in reservations.
        published: Returns the number of items in the view.
    """

    def __init__(
        self,
        store: Store,
        *,
        observer: SignalsObserver | None = None,
        digest: Callable[[], str] = str,
        settle: Callable[[Committed], Awaitable[None]] = _nothing,
        clock: Callable[[], float] = time.time,
        holder: str = "administrator",
        published: Callable[[], int] = int,
    ) -> None:
        self._store = store
        self._observer = observer
        self._digest = digest
        self._settle = settle
        self._clock = clock
        self._holder = holder
        self._published = published
        self._counted: dict[str, tuple[float, int]] = {}

    async def receive(self, data: bytes, source: SignalSource, stream: StreamFacts, keys: KeySet) -> Receipt:
        """Take in one SET of `source`. Returns when it is durable and in force.

        Raises:
            SetError: The SET is not valid. It has no effect.
            NotNow: The store is not available or full. It may have an effect; another delivery is harmless.
        """
        try:
            receipt = await self._receive(data, source, stream, keys)
        except SetError:
            self._observe(source, "", Result.REFUSED, None)
            raise
        except NotNow:
            self._observe(source, "", Result.UNAVAILABLE, None)
            raise
        event = receipt.event
        lag = None if event is None else self._clock() - event.happened_at
        self._observe(source, "" if event is None else _label(event), receipt.result, lag)
        return receipt

    async def _receive(self, data: bytes, source: SignalSource, stream: StreamFacts, keys: KeySet) -> Receipt:
        now = self._clock()
        event = verify_set(data, source.issuer, stream.audiences, keys, now, max_age=source.max_token_life)
        plan_changes(event, source, now)  # before anything is counted: it may not conform to its type
        mark = set_mark(event.issuer, event.token_id)
        try:
            if await self._store.get_temporary(mark) is not None:
                return await self._duplicate()
            await self._count_set(source, now)
            plan = await self._plan(event, source, stream.critical, now)
            return await self._commit(event, plan, source, mark, now)
        except (StoreUnavailable, StoreForgot, WindowClosed) as error:
            raise NotNow(str(error)) from error

    async def _duplicate(self) -> Receipt:
        """A SET that was committed before. Its first delivery may have ended before the log had it."""
        head = await self._store.head()
        await self._settle(Committed(head.revision, head.time))
        return Receipt(Result.DUPLICATE)

    async def _plan(self, event: SecurityEvent, source: SignalSource, critical: Collection[str], now: float) -> Plan:
        """The plan of `event`, with its subjects counted against `max_subjects`."""
        plan = plan_changes(event, source, now, critical=critical)
        if plan.outcome is Outcome.ACCEPTED:
            if self._published() >= MAX_PUBLISHED:
                return Plan(Outcome.HELD, Why.TOO_MANY_SUBJECTS, plan.changes)
            want = plan.subjects
            got = await self._reserve("subjects", source, want, source.max_subjects, now)
            if got < want:
                if got:
                    await self._reserve("subjects", source, -got, source.max_subjects, now)
                return Plan(Outcome.HELD, Why.TOO_MANY_SUBJECTS, plan.changes)
        return plan

    async def _commit(self, event: SecurityEvent, plan: Plan, source: SignalSource, mark: str, now: float) -> Receipt:
        if plan.outcome is Outcome.HELD and not await self._reserve("held", source, 1, MAX_HELD, now):
            raise NotNow(f"more than {MAX_HELD} events of the source are held")
        for _ in range(_MAX_ATTEMPTS):
            draft = Draft()
            if plan.outcome is Outcome.ACCEPTED:
                items = tuple(item_of(change, source, event, now) for change in plan.changes)
                await put_items(self._store, draft, items, event.token_id)
            elif plan.outcome is Outcome.HELD:
                held = held_item(plan, source, event, now)
                draft.put[held.key] = msgspec.json.encode(held)
                draft.changed.append(held.key)
            put_source(draft, source, now)
            if event.kind is not EventKind.VERIFICATION:
                draft.events.append(signal_event(plan, source, event, draft.changed, self._digest()))
            try:
                committed = await self._store.commit(draft.change({mark: REMEMBERED_SECONDS}))
            except Conflict as conflict:
                if conflict.key == mark:
                    return await self._duplicate()
                continue
            await self._settle(committed)
            return Receipt(Result(plan.outcome), event, plan)
        raise NotNow("other changes came first each time")

    async def _count_set(self, source: SignalSource, now: float) -> None:
        """Count one SET against `MAX_SETS`. Raises `NotNow`."""
        starts, left = self._counted.get(source.full_name, (0.0, 0))
        window = now // WINDOW_SECONDS * WINDOW_SECONDS
        if starts != window or not left:
            left = await self._reserve("sets", source, _BATCH, MAX_SETS, now)
            if not left:
                raise NotNow(f"the source sent more than {MAX_SETS} events within an hour")
        self._counted[source.full_name] = (window, left - 1)

    async def _reserve(self, what: str, source: SignalSource, want: int, limit: int, now: float) -> int:
        key = f"signals/{what}/{source.full_name}"
        try:
            return await self._store.reserve(key, _window(now), want, limit, self._holder)
        except WindowClosed:  # the store's clock is in another window
            window = _window((await self._store.head()).time)
            return await self._store.reserve(key, window, want, limit, self._holder)

    def _observe(self, source: SignalSource, event_type: str, result: Result, lag: float | None) -> None:
        if self._observer is not None:
            self._observer.received(source.full_name, event_type, result, lag)


def _window(now: float) -> Window:
    starts = now // WINDOW_SECONDS * WINDOW_SECONDS
    return Window(starts, starts + WINDOW_SECONDS)


def _label(event: SecurityEvent) -> str:
    """The event's type for a metric: a closed list, because the transmitter chooses the URI."""
    return str(event.kind) if event.kind is not None else "other"

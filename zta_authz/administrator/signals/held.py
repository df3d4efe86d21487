"""Held events: operators release one, so that it has its effect, or discard it. Their number is a metric."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_items import at_once, check_reason
from zta_authz.administrator.signals.changes import HELD, Draft, HeldItem, put_items, released_event
from zta_authz.administrator.store.port import Conflict, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Committed, Store

COUNT_SECONDS: Final = 30.0
_LOG = logging.getLogger(__name__)
_MAX_ATTEMPTS: Final = 8


class HeldEvents:
    """The held events of all sources. `settle` waits until a commit is in the access log."""

    def __init__(self, store: Store, settle: Callable[[Committed], Awaitable[None]] = at_once) -> None:
        self._store = store
        self._settle = settle

    async def list_held(self, after: str = "", limit: int = 100) -> list[HeldItem]:
        """Up to `limit` held events whose IDs are greater than `after`, in order of their IDs."""
        items: list[HeldItem] = []
        last = HELD + after if after else ""
        while len(items) < limit and (page := await self._store.scan(HELD, after=last, limit=limit - len(items))):
            last = page[-1][0]
            items += (item for key, entry in page if (item := _read(key, entry.value)) is not None)
        return items

    async def release(self, caller: AuthorizedCaller, event_id: str, reason: str) -> HeldItem:
        """Put in force what a held event changes. Raises `OperationRefused`, `StoreError`."""
        return await self._decide(caller, event_id, reason, discarded=False)

    async def discard(self, caller: AuthorizedCaller, event_id: str, reason: str) -> HeldItem:
        """Remove a held event, which then has no effect. Raises `OperationRefused`, `StoreError`."""
        return await self._decide(caller, event_id, reason, discarded=True)

    async def _decide(self, caller: AuthorizedCaller, event_id: str, reason: str, *, discarded: bool) -> HeldItem:
        check_reason(reason)
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(HELD + event_id)
            if entry is None:
                break
            item = _read(HELD + event_id, entry.value)
            if item is None:
                raise OperationRefused(Refusal.UNAVAILABLE, "the event can't be read: see the administrator's log")
            draft = Draft(expect={item.key: entry.version})
            if not discarded:
                await put_items(self._store, draft, item.changes, item.jti)
            draft.events.append(released_event(item, caller, reason, draft.changed, discarded=discarded))
            try:
                committed = await self._store.commit(draft.change(delete=(item.key,)))
            except Conflict:
                continue
            await self._settle(committed)
            return item
        raise OperationRefused(Refusal.NOT_FOUND, "no such event is held: somebody decided about it")


class HeldCounter:
    """Counts the held events of each source every `COUNT_SECONDS`."""

    def __init__(self, store: Store) -> None:
        self.counts: Mapping[str, int] = {}
        """The number of held events by source, as counted last."""
        self._store = store

    async def run(self) -> None:
        """Count until cancelled. While the store fails, the last numbers stay."""
        while True:
            with contextlib.suppress(StoreError):  # another part reports it
                self.counts = await self._count()
            await asyncio.sleep(COUNT_SECONDS)

    async def _count(self) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        after = ""
        while page := await self._store.scan(HELD, after=after):
            after = page[-1][0]
            items = (_read(key, entry.value) for key, entry in page)
            counts.update(item.source for item in items if item is not None)
        return counts


def _read(key: str, data: bytes) -> HeldItem | None:
    """The item of `key`; None, and a line in the log, for one that can't be read."""
    try:
        return msgspec.json.decode(data, type=HeldItem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        _LOG.error("a held event of the store can't be read", extra={"key": key})
        return None

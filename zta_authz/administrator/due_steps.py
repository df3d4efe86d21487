"""The steps that come by themselves: a request lapses, a grant begins, ends and is forgotten, a revocation ends.

No access depends on these steps: decision points compare the times of grants and revocations themselves. The steps are
for the log, for lists, and to keep the store small. Any replica may do them; the first one's commit wins.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from zta_authz.access.lifecycle import GrantState, RequestState
from zta_authz.administrator.access_events import AccessEvent, EventKind
from zta_authz.administrator.access_items import (
    DUE,
    GRANT,
    REQUEST,
    Draft,
    GrantRecord,
    RequestItem,
    grant_object,
    parse_due_key,
    request_object,
)
from zta_authz.administrator.grants import KEPT_SECONDS, SHOWN_AFTER_END_SECONDS
from zta_authz.administrator.revocation_items import DUE_KIND, revocation_event
from zta_authz.administrator.revocations import change_count
from zta_authz.administrator.store.port import Conflict, StoreError
from zta_authz.administrator.view_items import REVOCATION, BadItem, RevocationItem, decode_item

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.administrator.store.port import Store

Step = Callable[[Draft, str, float], Awaitable[None]]
"""Drafts the step of an item that is due: (draft, the item's ID, the store's time)."""
POLL_SECONDS: Final = 1.0
BATCH: Final = 100
_LOG = logging.getLogger(__name__)


class DueSteps:
    """Does what is due, as long as `run` runs."""

    def __init__(self, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll_seconds = poll_seconds
        self._steps: Mapping[str, Step] = {
            "request": self._request, "grant": self._grant, DUE_KIND: self._revocation,
        }  # fmt: skip

    async def run(self) -> None:
        """Do what is due until cancelled. Survives failures of the store, and logs each once."""
        failing = False
        while True:
            try:
                more = await self.do_due()
                failing = False
            except StoreError as error:
                if not failing:
                    _LOG.warning("steps that are due have to wait: %s", error)
                more, failing = False, True
            await asyncio.sleep(0 if more else self._poll_seconds)

    async def do_due(self) -> bool:
        """Do up to `BATCH` steps that are due by the store's time. Returns whether there may be more."""
        now = (await self._store.head()).time
        page = await self._store.scan(DUE, limit=BATCH)
        done = 0
        for key, _ in page:
            at, kind, item_id = parse_due_key(key)
            if at > now:
                break
            step = self._steps.get(kind)
            if step is None:  # of a newer version, which does it
                continue
            await self._do(step, key, item_id, now)
            done += 1
        return done == BATCH

    async def _do(self, step: Step, key: str, item_id: str, now: float) -> None:
        draft = Draft()
        if await draft.read(self._store, key) is None:
            return  # another replica has done this step; the item's next one is not due yet
        try:
            await step(draft, item_id, now)
        except (msgspec.MsgspecError, BadItem):
            _LOG.error("the item of `%s` can't be read, so its steps are left out", key)
            draft = Draft(dict(draft.expect))
        draft.delete.append(key)
        with suppress(Conflict):  # somebody else changed it, or did this step
            await self._store.commit(draft.change())

    async def _request(self, draft: Draft, request_id: str, now: float) -> None:
        entry = await draft.read(self._store, REQUEST + request_id)
        if entry is None:
            return
        before = msgspec.json.decode(entry.value, type=RequestItem)
        if before.state is not RequestState.REQUESTED:
            draft.delete.append(REQUEST + request_id)
            return
        request = structs.replace(before, state=RequestState.LAPSED, due=now + KEPT_SECONDS)
        draft.put_request(request, None)
        await draft.close_open(self._store, request.entitlement, request.subjects[0], request.id)
        draft.add_event(AccessEvent(EventKind.ACCESS_LAPSED, request_object(request)))

    async def _grant(self, draft: Draft, grant_id: str, now: float) -> None:
        entry = await draft.read(self._store, GRANT + grant_id)
        if entry is None:
            return
        before = msgspec.json.decode(entry.value, type=GrantRecord)
        grant, state = before.grant, GrantState(before.grant.state)
        if state is GrantState.SCHEDULED:
            grant = structs.replace(grant, state=str(GrantState.ACTIVE))
            draft.put_grant(structs.replace(before, grant=grant, due=grant.until), None)
            draft.add_event(AccessEvent(EventKind.ACCESS_ACTIVATED, grant_object(grant)))
        elif state is GrantState.ACTIVE:
            grant = structs.replace(grant, state=str(GrantState.EXPIRED))
            draft.put_grant(structs.replace(before, grant=grant, due=grant.until + SHOWN_AFTER_END_SECONDS), None)
            await draft.close_open(self._store, grant.entitlement, before.holder[0], grant.id)
            draft.add_event(AccessEvent(EventKind.ACCESS_EXPIRED, grant_object(grant)))
        elif now < grant.until + KEPT_SECONDS:
            draft.put_grant(structs.replace(before, due=grant.until + KEPT_SECONDS), None, published=False)
        elif grant.review_due:  # kept until it is reviewed
            draft.put_grant(structs.replace(before, due=now + KEPT_SECONDS), None, published=False)
        else:
            draft.delete += [GRANT + grant_id, grant.key]

    async def _revocation(self, draft: Draft, revocation_id: str, now: float) -> None:
        entry = await draft.read(self._store, REVOCATION + revocation_id)
        item = None if entry is None else decode_item(REVOCATION + revocation_id, entry.value)
        if not isinstance(item, RevocationItem) or not 0 < item.until <= now:  # it was lifted, or it ends later
            return
        draft.delete.append(item.key)
        await change_count(draft, self._store, item, -1)
        draft.add_event(revocation_event(EventKind.REVOCATION_EXPIRED, item))

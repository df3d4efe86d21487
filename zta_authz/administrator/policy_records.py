"""Record which policies the administrator accepts and refuses, as access events.

Policies decide who may approve, so a change of them changes access. All replicas read the same policies: they are
recorded once, by the first replica that has them in force.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.store.port import ABSENT, Change, Conflict, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.administrator.access_events import Value
    from zta_authz.administrator.store.port import Store
    from zta_authz.errors import Fault

ACCEPTED: Final = "policies"
"""The key of the digest of the policies that were accepted last."""
MAX_WAITING: Final = 100
_RETRY_SECONDS: Final = 2.0
_LOG = logging.getLogger(__name__)


class PolicyRecords:
    """Commits a record for each set of policies. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[AccessEvent] = deque(maxlen=MAX_WAITING)
        self._news = asyncio.Event()

    def accept(self, digest: str) -> None:
        """Record soon that the policies with this digest are in force."""
        self._add(AccessEvent(EventKind.POLICIES_ACCEPTED, EventObject("policies", digest), policy_digest=digest))

    def refuse(self, digest: str, faults: Sequence[Fault]) -> None:
        """Record soon that changed policies have faults, so that those with this digest stay in force."""
        fields: dict[str, Value] = {"faults": len(faults), "first": faults[0].place if faults else ""}
        what = EventObject("policies", digest)
        self._add(AccessEvent(EventKind.POLICIES_REFUSED, what, policy_digest=digest, detail=fields))

    async def run(self, store: Store) -> None:
        """Commit what is to be recorded, until cancelled. Waits for a store that fails, and logs that once."""
        failing = False
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                try:
                    await _commit(store, self._waiting[0])
                except StoreError as error:
                    if not failing:
                        _LOG.warning("a record of policies has to wait: %s", error)
                    failing = True
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                self._waiting.popleft()
                failing = False

    def _add(self, event: AccessEvent) -> None:
        self._waiting.append(event)
        self._news.set()


async def _commit(store: Store, event: AccessEvent) -> None:
    if event.kind is EventKind.POLICIES_REFUSED:
        await store.commit(Change(events=[encode_event(event)]))
        return
    digest = event.object.id.encode()
    known = await store.get(ACCEPTED)
    if known is not None and known.value == digest:
        return
    version = ABSENT if known is None else known.version
    with suppress(Conflict):  # another replica has recorded them
        await store.commit(Change({ACCEPTED: version}, {ACCEPTED: digest}, events=[encode_event(event)]))

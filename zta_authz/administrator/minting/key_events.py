"""Records in the access log when a signing key is published, and when it no longer is.

The keys come from files, and every replica reads its own. What is recorded is kept in the store, so that a change that
all replicas see is one event. A replica compares only when its own keys change: two replicas with different files must
not take turns.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.store.port import ABSENT, Change, Conflict, StoreError
from zta_authz.minting.key_states import KeyState

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.administrator.store.port import Store
    from zta_authz.minting.key_states import KeyRing
    from zta_authz.ports import Clock

PREFIX: Final = "signing-key/"
POLL_SECONDS: Final = 2.0
MAX_RECORDED: Final = 200
_LOG = logging.getLogger(__name__)


class KeyEvents:
    """Records the keys of `ring`, as long as `run` runs."""

    def __init__(self, store: Store, ring: Callable[[], KeyRing], issuer: str, clock: Clock) -> None:
        self._store = store
        self._ring = ring
        self._issuer = issuer
        self._clock = clock
        self._seen: frozenset[str] | None = None

    async def run(self) -> None:
        """Record changes until cancelled. Survives failures of the store."""
        while True:
            try:
                await self.record()
            except StoreError as error:
                _LOG.warning("changes of signing keys can't be recorded yet: %s", error)
            await asyncio.sleep(POLL_SECONDS)

    async def record(self) -> None:
        """Record what changed. Raises `StoreError`."""
        ring = self._ring()
        states = ring.states(self._clock())
        published = frozenset(key_id for key_id, state in states.items() if state is not KeyState.RETIRED)
        if published == self._seen:
            return
        page = await self._store.scan(PREFIX, limit=MAX_RECORDED)
        recorded = {key.removeprefix(PREFIX): entry.version for key, entry in page}
        for key_id in sorted(published - recorded.keys()):
            with suppress(Conflict):  # another replica was first
                await self._store.commit(
                    Change(
                        expect={PREFIX + key_id: ABSENT},
                        put={PREFIX + key_id: b"{}"},
                        events=[self._event(EventKind.KEY_PUBLISHED, key_id, str(states[key_id]))],
                    )
                )
        for key_id in sorted(recorded.keys() - published):
            with suppress(Conflict):
                await self._store.commit(
                    Change(
                        expect={PREFIX + key_id: recorded[key_id]},
                        delete=[PREFIX + key_id],
                        events=[self._event(EventKind.KEY_RETIRED, key_id, str(KeyState.RETIRED))],
                    )
                )
        self._seen = published

    def _event(self, kind: EventKind, key_id: str, state: str) -> bytes:
        fields = {"issuer": self._issuer, "state": state}
        return encode_event(AccessEvent(kind, EventObject("key", key_id, fields)))

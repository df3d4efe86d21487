"""Signing keys are recorded once when they are published and once when they are not, over all replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.minting import ISSUER, KEY, ring, signing_key
from tests.support.pki import NOW
from tests.support.stores import SqlitePlace
from zta_authz.administrator.access_events import EventKind, read_event
from zta_authz.administrator.minting.key_events import KeyEvents
from zta_authz.minting.key_states import OVERLAP, KeyRing, ScheduledKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.sqlite import SqliteStore

NEXT = signing_key("Ed25519", 1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    yield store
    await store.close()


class Replica:
    """One administrator with its own files and clock."""

    def __init__(self, store: SqliteStore, keys: KeyRing) -> None:
        self.keys = keys
        self.now = NOW
        self.events = KeyEvents(store, lambda: self.keys, ISSUER, lambda: self.now)


async def recorded(store: SqliteStore) -> list[tuple[EventKind, str]]:
    commits = await store.read_since(0, 100)
    events = [read_event(data) for commit in commits for data in commit.events]
    return [(event.kind, event.object.id) for event in events if event.object.type == "key"]


async def test_a_key_is_recorded_when_it_is_published_and_when_it_retires(store: SqliteStore) -> None:
    first = Replica(store, ring())
    await first.events.record()
    assert await recorded(store) == [(EventKind.KEY_PUBLISHED, KEY.key_id)]
    first.keys = KeyRing([ScheduledKey(KEY), ScheduledKey(NEXT, NOW + 1000)])
    await first.events.record()
    await first.events.record()
    first.now = NOW + 1000 + OVERLAP
    await first.events.record()
    assert await recorded(store) == [
        (EventKind.KEY_PUBLISHED, KEY.key_id),
        (EventKind.KEY_PUBLISHED, NEXT.key_id),
        (EventKind.KEY_RETIRED, KEY.key_id),
    ]


async def test_replicas_record_a_change_together_and_do_not_take_turns_if_their_files_differ(
    store: SqliteStore,
) -> None:
    first, second = Replica(store, ring()), Replica(store, ring())
    for _ in range(3):
        await first.events.record()
        await second.events.record()
    assert await recorded(store) == [(EventKind.KEY_PUBLISHED, KEY.key_id)]
    first.keys = ring(NEXT)
    for _ in range(3):
        await first.events.record()
        await second.events.record()
    assert await recorded(store) == [
        (EventKind.KEY_PUBLISHED, KEY.key_id),
        (EventKind.KEY_PUBLISHED, NEXT.key_id),
        (EventKind.KEY_RETIRED, KEY.key_id),
    ]

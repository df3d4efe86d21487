"""Policies that the administrator accepts or refuses are access events."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.stores import SqlitePlace
from zta_authz.administrator.access_events import AccessEvent, read_event
from zta_authz.administrator.policy_records import MAX_WAITING, PolicyRecords
from zta_authz.administrator.store.port import StoreUnavailable
from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Change, Committed, Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlitePlace(tmp_path).open()
    await opened.epoch()
    yield opened
    await opened.close()


@asynccontextmanager
async def running(store: Store, records: PolicyRecords) -> AsyncIterator[None]:
    task = asyncio.ensure_future(records.run(store))
    yield
    async with asyncio.timeout(5):
        while records._waiting:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.005)
    task.cancel()


async def recorded(store: Store) -> list[AccessEvent]:
    return [read_event(event) for commit in await store.read_since(0) for event in commit.events]


async def test_each_set_of_policies_is_recorded_once_by_whichever_replica(store: Store) -> None:
    first, second = PolicyRecords(), PolicyRecords()
    async with running(store, first), running(store, second):
        for records in (first, second):
            records.accept("d1")
    async with running(store, first), running(store, second):
        for records in (second, first):
            records.accept("d2")
    async with running(store, PolicyRecords()):
        pass
    again = PolicyRecords()
    again.accept("d2")
    async with running(store, again):
        pass
    assert [(event.kind, event.object.id, event.policy_digest) for event in await recorded(store)] == [
        ("policies.accepted", "d1", "d1"),
        ("policies.accepted", "d2", "d2"),
    ]


async def test_a_refusal_names_the_policies_that_stay_in_force_and_the_first_fault(store: Store) -> None:
    records = PolicyRecords()
    async with running(store, records):
        records.refuse("d1", [Fault("a.yaml", 3, 7, "a secret"), Fault("b.yaml", 1, 1, "another")])
    (event,) = await recorded(store)
    assert (event.kind, event.object.id) == ("policies.refused", "d1")
    assert event.detail == {"faults": 2, "first": "a.yaml:3:7"}


class Down:
    """A store that can't be reached at first."""

    def __init__(self, store: Store) -> None:
        self._store, self.failures = store, 2

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, change: Change) -> Committed:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("down")
        return await self._store.commit(change)


async def test_records_wait_for_a_store_that_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.administrator.policy_records._RETRY_SECONDS", 0.01)
    records = PolicyRecords()
    for number in range(MAX_WAITING + 5):
        records.accept(f"d{number}")
    async with running(Down(store), records):  # type: ignore[arg-type]
        pass
    assert [event.object.id for event in await recorded(store)] == [
        f"d{number}" for number in range(5, MAX_WAITING + 5)
    ]

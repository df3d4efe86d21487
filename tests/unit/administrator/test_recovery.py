"""Revocations that the store lost are made again from the access log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from tests.support.stores import SqlitePlace
from zta_authz.administrator.access_events import AccessEvent, Actor, EventKind, EventObject, encode_event
from zta_authz.administrator.event_log import EventLog
from zta_authz.administrator.operator_authorization import AuthorizedCaller
from zta_authz.administrator.recovery import REASON, Recovery, read_log
from zta_authz.administrator.revocations import COUNT, Revocations
from zta_authz.administrator.store.port import Change, read_items
from zta_authz.administrator.view_items import REVOCATION, GrantItem, RevocationItem, SubjectItem, encode_item
from zta_authz.model.access import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

OPERATOR = AuthorizedCaller((Subject(spiffe_id="spiffe://cluster.local/ops"),), cast("Any", None), Actor(), "")


class Running:
    """A store with its access log, and the recovery of lost revocations."""

    def __init__(self, store: Store, log: EventLog, recovery: Recovery, path: Path) -> None:
        self.store, self.log, self.recovery, self.path = store, log, recovery, path
        self.revocations = Revocations(store)

    async def revoke(self, name: str, until: float = 0.0) -> str:
        value = f"spiffe://cluster.local/{name}"
        return (await self.revocations.revoke(OPERATOR, "spiffe-id", value, until=until, reason="stolen key")).id

    async def in_force(self) -> set[str]:
        _, items = await read_items(self.store, REVOCATION)
        return {key.removeprefix(REVOCATION) for key in items}

    async def logged(self) -> None:
        await asyncio.wait_for(self.log.logged((await self.store.head()).revision), 5)


@asynccontextmanager
async def running(place: SqlitePlace) -> AsyncIterator[Running]:
    """The administrator's store and log; what was lost is made again when this is entered."""
    path = place.path.parent / "access.jsonl"
    store = await place.open()
    log = await EventLog.open(store, str(path), max_bytes=4096)
    task = asyncio.ensure_future(log.run())
    try:
        one = Running(store, log, Recovery(store, log, str(path)), path)
        await one.recovery.recover(await asyncio.wait_for(log.next_epoch(""), 5))
        yield one
        await one.logged()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await log.close()
        await store.close()


@pytest.fixture
def place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path)


async def test_what_was_revoked_stays_revoked_when_the_store_is_lost(place: SqlitePlace) -> None:
    async with running(place) as first:
        kept, lifted = await first.revoke("stays"), await first.revoke("lifted")
        ends = await first.revoke("ends", until=(await first.store.head()).time + 3600)
        await first.revocations.lift(OPERATOR, lifted, "key replaced")
        before = await first.store.get(REVOCATION + kept)
    await place.forget()
    async with running(place) as second:
        assert await second.in_force() == {kept, ends}
        again = await second.store.get(REVOCATION + kept)
        assert again is not None
        assert before is not None
        one, other = read(again.value), read(before.value)
        assert (one.what, one.value, one.issuer, one.until) == (other.what, other.value, other.issuer, other.until)
        count = await second.store.get(COUNT)
        assert count is not None
        assert count.value == b"2"
        await second.revocations.lift(OPERATOR, ends, "over")
    _, revocations = read_log(second.path)
    assert set(revocations) == {kept}
    assert REASON in "".join(file.read_text() for file in second.path.parent.glob("access.jsonl*"))


def read(data: bytes) -> RevocationItem:
    return msgspec.json.decode(data, type=RevocationItem)


async def test_revocations_that_ended_meanwhile_and_grants_are_not_made_again(place: SqlitePlace) -> None:
    async with running(place) as first:
        await first.revoke("ends", until=(await first.store.head()).time + 0.05)
        item = GrantItem("0" * 16, "default/db", SubjectItem(spiffe_id="spiffe://a/b"), 0.0, 1e12)
        await first.store.commit(Change(put={item.key: encode_item(item)}))
    await asyncio.sleep(0.06)
    await place.forget()
    async with running(place) as second:
        _, items = await read_items(second.store, "view/")
        assert items == {}


async def test_it_happens_once_for_each_epoch(place: SqlitePlace) -> None:
    async with running(place) as first:
        kept = await first.revoke("stays")
    async with running(place) as second:
        head = await second.store.head()
        await second.store.commit(Change(delete=[REVOCATION + kept]))
        assert await second.recovery.recover(await second.store.epoch()) == 0
        assert (await second.store.head()).revision == head.revision + 1
    await place.forget()
    async with running(place) as third:
        assert await third.in_force() == {kept}, "the log has no event that lifts it"


async def test_an_interrupted_recovery_is_completed_at_the_next_start(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(place) as first:
        names = {await first.revoke(str(number)) for number in range(7)}
    await place.forget()
    monkeypatch.setattr("zta_authz.administrator.recovery._BATCH", 2)
    made = 0
    make = Recovery._make

    async def interrupted(self: Recovery, mark: str, items: list[RevocationItem]) -> int:
        nonlocal made
        made += 1
        if made == 3:
            raise OSError("killed")
        return await make(self, mark, items)

    monkeypatch.setattr(Recovery, "_make", interrupted)
    with pytest.raises(OSError, match="killed"):
        async with running(place):
            pass
    async with running(place) as second:
        assert await second.in_force() == names


async def test_the_start_waits_for_it_but_not_for_ever(
    place: SqlitePlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zta_authz.administrator.recovery.WAIT_SECONDS", 0.05)
    async with running(place) as one:
        await one.recovery.wait()
        assert "may be missing" in caplog.text
        task = asyncio.ensure_future(one.recovery.run())
        monkeypatch.setattr("zta_authz.administrator.recovery.WAIT_SECONDS", 10.0)
        caplog.clear()
        await one.recovery.wait()
        assert caplog.text == ""
        task.cancel()


async def test_it_follows_every_change_of_the_epoch(place: SqlitePlace) -> None:
    async with running(place) as one:
        task = asyncio.ensure_future(one.recovery.run())
        kept = await one.revoke("stays")
        await one.logged()
        await one.store.commit(Change(delete=[REVOCATION + kept]))
        other = await place.open()
        await other.renew_epoch(await other.epoch())
        async with asyncio.timeout(10), aclosing(other.watch()) as revisions:
            async for _ in revisions:
                if await other.get(REVOCATION + kept) is not None:
                    break
        await other.close()
        task.cancel()


@pytest.mark.parametrize(
    "detail",
    [
        {},
        {"what": "subject", "value": "x" * 600, "issuer": "https://i", "before": 0.0, "until": 0.0},
        {"what": "later", "value": "x", "issuer": "", "before": 0.0, "until": 0.0},
        {"what": "subject", "value": "", "issuer": "", "before": 0.0, "until": 0.0},
        {"what": "subject", "value": "x", "issuer": "", "before": "0", "until": True},
    ],
)
async def test_an_event_without_the_whole_revocation_is_named_in_the_log(
    place: SqlitePlace, detail: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(place) as first:
        event = AccessEvent(EventKind.REVOCATION_ADDED, EventObject("revocation", "op-1"), detail=detail)
        await first.store.commit(Change(events=[encode_event(event)]))
        await first.revoke("stays")
    await place.forget()
    async with running(place) as second:
        assert len(await second.in_force()) == 1
    assert "revocation op-1" in caplog.text

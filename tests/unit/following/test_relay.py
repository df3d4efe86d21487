"""A supervisor passes the administrator's view on to its workers, whole to a new or slow one, and never more than it has."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.administrator.test_follow_service import until
from tests.unit.following.test_views import NOW, grant, revocation
from zta_authz._proto import administrator_pb2 as pb
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following import relay as module
from zta_authz.following.position import MAX_ITEM_BYTES, InvalidView
from zta_authz.following.relay import RelayedView, RelayReader
from zta_authz.following.views import FollowedViews
from zta_authz.model.facts import FactSlot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Worker:
    """A worker's views, and how often its readiness may have changed."""

    def __init__(self, connection: socket.socket) -> None:
        self.revocations, self.changes = DynamicRevocations(), 0
        self.views = FollowedViews(FactSlot(), self.revocations, 600.0)
        self.reader = RelayReader(connection, self.views, self._changed)

    def _changed(self) -> None:
        self.changes += 1


@asynccontextmanager
async def worker_of(relayed: RelayedView) -> AsyncIterator[Worker]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    serving = asyncio.create_task(relayed.serve(ours))
    worker = Worker(theirs)
    worker.reader.start()
    try:
        yield worker
    finally:
        await worker.reader.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def change(*items: pb.Item, revision: int = 1, epoch: str = "e", **more: Any) -> pb.ViewUpdate:
    return pb.ViewUpdate(epoch=epoch, revision=revision, put=items, **{"complete": True, **more})


async def test_each_worker_has_the_view_and_every_change_and_a_new_one_gets_it_whole() -> None:
    relayed = RelayedView()
    async with worker_of(relayed) as first:
        relayed.apply(change(grant("g1"), revocation("r1"), full=True), NOW)
        relayed.show_connected(connected=True)
        await until(lambda: first.views.is_complete and first.reader.connected)
        relayed.apply(change(revocation("r2"), removed=["grant/g1"], revision=2), NOW + 1)
        await until(lambda: first.views.revision == 2)
        async with worker_of(relayed) as second:
            await until(lambda: second.views.is_complete)
            for worker in (first, second):
                assert (len(worker.views.grants), len(worker.revocations)) == (0, 2)
                assert (worker.views.epoch, worker.views.revision, worker.views.heard_at) == ("e", 2, NOW + 1)
            relayed.show_connected(connected=False)
            await until(lambda: not first.reader.connected and not second.reader.connected)
        assert first.changes >= 3


async def test_a_full_view_replaces_the_old_one_in_every_worker_when_it_is_complete() -> None:
    relayed = RelayedView()
    async with worker_of(relayed) as worker:
        relayed.apply(change(grant("g1"), revocation("r1"), full=True), NOW)
        await until(lambda: worker.views.is_complete)
        relayed.apply(change(grant("g2"), epoch="f", full=True, complete=False), NOW + 1)
        assert (relayed.heard_at, set(relayed.items)) == (NOW, {"grant/g1", "revocation/r1"})
        async with worker_of(relayed) as late:
            await until(lambda: late.views.is_complete)
            assert (late.views.epoch, len(late.revocations)) == ("e", 1)
            relayed.apply(change(grant("g3"), epoch="f", revision=9), NOW + 2)
            await until(lambda: worker.views.epoch == late.views.epoch == "f")
            assert [(len(each.views.grants), len(each.revocations)) for each in (worker, late)] == [(2, 1), (2, 1)], (
                "r1 stays"
            )


async def test_revocations_that_the_store_lost_reach_new_workers_too() -> None:
    relayed = RelayedView()
    relayed.apply(change(revocation("r1"), revocation("r2"), revocation("ended", until=NOW + 1), full=True), NOW)
    relayed.apply(change(revocation("r2"), epoch="f", full=True), NOW + 5)
    relayed.apply(change(grant("g1"), epoch="f", full=True, revision=2), NOW + 6)
    async with worker_of(relayed) as worker:
        await until(lambda: worker.views.is_complete)
        assert worker.revocations.in_force(NOW + 6) == {"r1"}, "r2 was lifted, r1 was lost"
        relayed.apply(change(removed=["revocation/r1"], epoch="f", revision=3), NOW + 7)
        relayed.apply(change(epoch="f", full=True, revision=4), NOW + 8)
        await until(lambda: worker.views.revision == 4)
        assert len(worker.revocations) == 0


async def test_a_large_view_comes_in_pages() -> None:
    relayed = RelayedView()
    relayed.apply(change(*(grant(f"g{number}") for number in range(1000)), full=True), NOW)
    assert len(list(relayed.whole())) == 16
    async with worker_of(relayed) as worker:
        await until(lambda: worker.views.is_complete)
        assert len(worker.views.grants) == 1000


async def test_a_worker_that_starts_between_two_pages_of_a_change_misses_nothing() -> None:
    relayed = RelayedView()
    relayed.apply(change(grant("g1"), full=True), NOW)
    async with worker_of(relayed) as first:
        await until(lambda: first.views.is_complete)
        relayed.apply(change(grant("g2"), revision=1, complete=False), NOW + 1)
        async with worker_of(relayed) as second:
            await until(lambda: second.views.is_complete)
            relayed.apply(change(grant("g3"), removed=["grant/g1"], revision=2), NOW + 2)
            await until(lambda: first.views.revision == second.views.revision == 2)
            assert [len(worker.views.grants) for worker in (first, second)] == [2, 2]


async def test_a_worker_that_does_not_read_costs_little_and_gets_the_whole_view_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 2000)
    relayed = RelayedView()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serving = asyncio.create_task(relayed.serve(ours))
    relayed.apply(change(full=True), NOW)
    for revision in range(2, 3000):
        relayed.apply(change(grant(f"g{revision % 7}"), revision=revision), NOW + revision)
        if revision % 100 == 0:
            await asyncio.sleep(0)
    (waiting,) = relayed._workers
    assert waiting._queued <= 2000
    worker = Worker(theirs)
    worker.reader.start()
    await until(lambda: worker.views.revision == 2999)
    assert len(worker.views.grants) == 7
    await worker.reader.close()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def test_the_bounds_of_a_view_hold_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    relayed = RelayedView()
    relayed.apply(change(grant("g1"), revocation("r", reason="x" * MAX_ITEM_BYTES), full=True), NOW)
    assert set(relayed.items) == {"grant/g1"}
    with pytest.raises(InvalidView, match="older"):
        relayed.apply(change(revision=0), NOW)
    monkeypatch.setattr(module, "MAX_ITEMS", 1)
    with pytest.raises(InvalidView, match="more than 1 items"):
        relayed.apply(change(grant("g2"), revision=2), NOW)
    relayed.begin()
    relayed.forget_position()
    assert (relayed.epoch, relayed.revision, relayed.is_complete) == ("", 0, True)


@pytest.mark.parametrize(
    "sent", [b"", struct.pack(">Id?", 2**30, 0.0, True), struct.pack(">Id?", 1, 0.0, True) + b"\xff"]
)
async def test_a_worker_says_when_its_supervisor_passes_on_nothing_more(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    worker = Worker(theirs)
    worker.reader.start()
    ours.sendall(sent)
    ours.close()
    await until(lambda: "passes on no more updates" in caplog.text)
    assert not worker.reader.connected
    await worker.reader.close()

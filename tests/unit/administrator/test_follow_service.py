"""Followers get the whole view, then what changes, over real gRPC; they resume, and a lost stream changes nothing."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.support.published_views import wait_for_revision
from tests.support.stores import SqlitePlace
from zta_authz._proto import administrator_pb2 as pb
from zta_authz.administrator import follow_service as module
from zta_authz.administrator.follow_service import FOLLOW, SERVICE, FollowService
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.view_items import GrantItem, RevocationItem, SubjectItem, encode_item
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following import client, pages as pages_module
from zta_authz.following.client import Follower
from zta_authz.following.connection import UnixConnection
from zta_authz.following.position import MAX_ITEM_BYTES
from zta_authz.following.views import FollowedViews
from zta_authz.model.facts import FactSlot
from zta_authz.servers.grpcio import streaming
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.listeners import Endpoint, SocketAccess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlitePlace(tmp_path).open()
    await opened.epoch()
    yield opened
    await opened.close()


def grant(name: str) -> dict[str, bytes]:
    item = GrantItem(name, "shop/db", SubjectItem("https://i", name), 0.0, time.time() + 3600)
    return {item.key: encode_item(item)}


@asynccontextmanager
async def administrator(store: Store, path: Path, heartbeat: float = 0.1) -> AsyncIterator[FollowService]:
    view = PublishedView(store)
    await view.start()
    service = FollowService(view, heartbeat)
    endpoint = Endpoint(path=str(path))
    server = GrpcServer({}, [endpoint], SocketAccess(), streams={SERVICE: {FOLLOW: service.follow}})
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)
        await view.close()


@asynccontextmanager
async def following(
    path: Path, on_change: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[FollowedViews, Follower]]:
    views = FollowedViews(FactSlot(), DynamicRevocations(), 600.0)
    follower = Follower(UnixConnection(str(path)), views, "test", on_change)
    follower.start()
    try:
        yield views, follower
    finally:
        await follower.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - conditions are of several objects
            await asyncio.sleep(0.005)


async def test_a_follower_has_the_view_and_every_change_to_it(store: Store, tmp_path: Path) -> None:
    await store.commit(Change(put=grant("a") | grant("b")))
    socket = tmp_path / "admin.sock"
    async with administrator(store, socket) as service, following(socket) as (views, follower):
        await until(lambda: views.is_complete)
        assert len(views.grants) == 2
        assert (follower.connected, service.followers) == (True, 1)
        await store.commit(Change(put=grant("c"), delete=["view/grant/a"]))
        await until(lambda: len(views.grants) == 2 and views.revision == 2)
    await until(lambda: service.followers == 0)


async def test_large_views_come_in_pages(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "PAGE_ITEMS", 7)
    for start in range(0, 40, 20):
        await store.commit(Change(put={k: v for n in range(start, start + 20) for k, v in grant(f"g{n}").items()}))
    socket = tmp_path / "admin.sock"
    async with administrator(store, socket), following(socket) as (views, _):
        await until(lambda: views.is_complete)
        assert len(views.grants) == 40


async def test_large_changes_come_in_pages_and_count_as_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "PAGE_ITEMS", 7)
    view = PublishedView(store)
    await view.start()
    stream = FollowService(view).updates("", 0)
    await anext(stream)
    await store.commit(Change(put={k: v for n in range(15) for k, v in grant(f"g{n}").items()}))
    await wait_for_revision(view, 1)
    pages = [pb.ViewUpdate.FromString(await anext(stream)) for _ in range(3)]
    assert [(len(page.put), page.revision, page.complete) for page in pages] == [
        (7, 0, False),
        (7, 0, False),
        (1, 1, True),
    ]
    await stream.aclose()
    await view.close()
    socket = tmp_path / "admin.sock"
    async with administrator(store, socket), following(socket) as (views, _):
        await until(lambda: views.is_complete)
        await store.commit(Change(put=grant("more"), delete=[f"view/grant/g{n}" for n in range(15)]))
        await until(lambda: views.revision == 2)
        assert len(views.grants) == 1


async def test_a_follower_that_is_ahead_waits_for_this_administrator_and_gets_only_what_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit(Change(put=grant("a")))
    view = PublishedView(store)
    await view.start()
    stream = FollowService(view).updates(view.epoch, 2)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    assert not first.done()
    await store.commit(Change(put=grant("b")))
    update = pb.ViewUpdate.FromString(await first)
    assert (update.full, update.revision, len(update.put)) == (False, 2, 0)
    await stream.aclose()
    monkeypatch.setattr(module, "CATCH_UP_SECONDS", 0.05)
    stream = FollowService(view).updates(view.epoch, 99)
    update = pb.ViewUpdate.FromString(await anext(stream))
    assert (update.full, update.revision) == (True, 2)
    await stream.aclose()
    await view.close()


async def test_pages_are_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "PAGE_BYTES", 60)
    await store.commit(Change(put=grant("a") | grant("b")))
    view = PublishedView(store)
    await view.start()
    stream = FollowService(view).updates("", 0)
    pages = [pb.ViewUpdate.FromString(await anext(stream)) for _ in range(2)]
    assert [(page.full, page.complete, len(page.put)) for page in pages] == [(True, False, 1), (False, True, 1)]
    await stream.aclose()
    await view.close()


async def test_an_item_that_followers_would_refuse_is_not_published(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    item = RevocationItem("r", "token", "x", reason="y" * MAX_ITEM_BYTES)
    await store.commit(Change(put={item.key: encode_item(item)} | grant("a")))
    view = PublishedView(store)
    await view.start()
    assert list(view.items) == ["grant/a"]
    assert "not published" in caplog.text
    await view.close()


@pytest.mark.parametrize("tcp", [True, False])
async def test_a_follower_that_does_not_read_is_cut_off(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: bool
) -> None:
    monkeypatch.setattr(streaming, "STALL_SECONDS", 0.2)
    for start in (0, 500):
        items = [RevocationItem(f"r{n}", "token", "x", reason="y" * 9000) for n in range(start, start + 500)]
        await store.commit(Change(put={item.key: encode_item(item) for item in items}))
    view = PublishedView(store)
    await view.start()
    service = FollowService(view)
    endpoint = Endpoint(host="127.0.0.1") if tcp else Endpoint(path=str(tmp_path / "admin.sock"))
    server = GrpcServer({}, [endpoint], SocketAccess(), streams={SERVICE: {FOLLOW: service.follow}})
    await server.start()
    async with grpc.aio.insecure_channel(str(server.addresses[0])) as channel:
        stream = channel.unary_stream(client.METHOD)(b"")
        assert await stream.read()
        await until(lambda: service.followers == 1)
        if tcp:
            await until(lambda: service.followers == 0)
        else:
            await asyncio.sleep(0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(stream)
        expected = grpc.StatusCode.UNAVAILABLE if tcp else grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.code() is expected
    await until(lambda: service.followers == 0)
    await server.stop(0)
    await view.close()


async def read_all(stream: Any) -> None:
    while await stream.read():
        pass


async def test_an_administrator_that_ends_each_stream_is_tried_less_and_less_often(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.05)
    pauses = list[float]()
    monkeypatch.setattr(client.random, "uniform", lambda _low, high: pauses.append(high) or 0.001)

    async def one_update(_payload: bytes, _context: Any, _caller: str) -> AsyncGenerator[bytes, None]:
        yield pb.ViewUpdate(full=True, complete=True, epoch="e", revision=1).SerializeToString()

    socket = tmp_path / "admin.sock"
    server = GrpcServer({}, [Endpoint(path=str(socket))], SocketAccess(), streams={SERVICE: {FOLLOW: one_update}})
    await server.start()
    async with following(socket) as (views, follower):
        await until(lambda: len(pauses) >= 5)
        assert pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.8]
        assert (views.is_complete, follower.invalid) == (True, 0)
    await server.stop(0)
    assert "the administrator ended the stream" in caplog.text


async def test_updates_that_make_no_sense_are_counted_and_the_view_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.02)
    asked = list[tuple[str, int]]()

    async def wrong(payload: bytes, _context: Any, _caller: str) -> AsyncGenerator[bytes, None]:
        request = pb.FollowRequest.FromString(payload)
        asked.append((request.epoch, request.revision))
        yield pb.ViewUpdate(full=True, complete=True, epoch="e", revision=5).SerializeToString()
        yield pb.ViewUpdate(complete=True, epoch="e", revision=4).SerializeToString()

    socket = tmp_path / "admin.sock"
    server = GrpcServer({}, [Endpoint(path=str(socket))], SocketAccess(), streams={SERVICE: {FOLLOW: wrong}})
    await server.start()
    async with following(socket) as (_, follower):
        await until(lambda: follower.invalid >= 2)
    await server.stop(0)
    assert set(asked) == {("", 0)}


async def test_a_follower_resumes_where_it_was_and_its_view_outlives_the_administrator(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.02)
    await store.commit(Change(put=grant("a")))
    socket, changes = tmp_path / "admin.sock", list[bool]()
    async with following(socket, lambda: changes.append(True)) as (views, follower):
        async with administrator(store, socket):
            await until(lambda: views.is_complete)
        await until(lambda: not follower.connected)
        assert len(views.grants) == 1
        await store.commit(Change(put=grant("b")))
        async with administrator(store, socket):
            await until(lambda: follower.connected and len(views.grants) == 2)
    assert len(changes) >= 3


async def test_another_store_replaces_the_view_as_a_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.02)
    await store.commit(Change(put=grant("a")))
    (tmp_path / "other").mkdir()
    other = await SqlitePlace(tmp_path / "other").open()
    await other.epoch()
    await other.commit(Change(put=grant("b") | grant("c")))
    socket = tmp_path / "admin.sock"
    async with following(socket) as (views, _):
        async with administrator(store, socket):
            await until(lambda: views.is_complete)
        async with administrator(other, socket):
            await until(lambda: len(views.grants) == 2)
    await other.close()


async def test_silence_begins_the_stream_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.02)
    socket = tmp_path / "admin.sock"
    async with administrator(store, socket, heartbeat=60), following(socket) as (_, follower):
        await until(lambda: follower.streams >= 3)


async def test_a_malformed_request_gets_the_whole_view(store: Store) -> None:
    view = PublishedView(store)
    await view.start()
    stream: Any = FollowService(view).follow(b"\xff\xff", None, "")
    update = pb.ViewUpdate.FromString(await anext(stream))
    assert (update.full, update.complete, update.epoch) == (True, True, view.epoch)
    await stream.aclose()
    await view.close()


async def test_there_is_a_limit_of_followers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOLLOWERS", 1)
    view = PublishedView(store)
    await view.start()
    service = FollowService(view)
    first: Any = service.follow(b"", None, "")
    await anext(first)
    second: Any = service.follow(b"", None, "")
    with pytest.raises(StopAsyncIteration):
        await anext(second)
    await first.aclose()
    await view.close()

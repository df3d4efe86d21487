"""The Valkey store is right or refuses, whatever happened to its server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support.redis_server import RedisServer
from tests.support.stores import ValkeyPlace
from zta_authz.administrator.store import valkey_scripts as scripts
from zta_authz.administrator.store.port import (
    Change,
    Conflict,
    InvalidChange,
    StoreError,
    StoreForgot,
    StoreUnavailable,
    Versioned,
    Window,
)
from zta_authz.administrator.store.valkey import ValkeyAddress, ValkeyStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def server(redis_program: str) -> Iterator[RedisServer]:
    """A server of its own, to be killed."""
    server = RedisServer(redis_program)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[ValkeyStore]:
    store = await ValkeyPlace(server).open()
    await store.epoch()
    yield store
    await store.close()


def put(**items: bytes) -> Change:
    return Change(put=items)


async def test_a_restart_of_the_server_loses_nothing(server: RedisServer, store: ValkeyStore) -> None:
    epoch = await store.epoch()
    await store.commit(Change(put={"a": b"1"}, events=[b"e"]))
    server.kill()
    with pytest.raises(StoreUnavailable, match="can't be reached"):
        await store.head()
    server.start()  # without the scripts that it knew
    assert (await store.head()).revision == 1
    assert await store.get("a") == Versioned(1, b"1")
    assert (await store.commit(put(a=b"2"))).revision == 2
    assert await store.epoch() == epoch


async def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer, store: ValkeyStore) -> None:
    await store.commit(Change(put={"a": b"1"}))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.socket))
        connection.sendall(b"SCRIPT FLUSH\r\n")
        assert connection.recv(64) == b"+OK\r\n"
    assert (await store.commit(Change(put={"a": b"2"}))).revision == 2
    assert await store.reserve("budget", Window(0.0, 2.0**40), 5, 3, "one") == 3


async def test_a_server_that_restarts_empty_has_another_epoch(server: RedisServer, store: ValkeyStore) -> None:
    epoch = await store.epoch()
    await store.commit(put(a=b"1"))
    server.kill()
    server.forget()
    server.start()
    with suppress(StoreUnavailable):  # of a connection to the server before
        await store.head()
    for _ in range(2):
        with pytest.raises(StoreForgot):
            await store.commit(put(a=b"2"))
    assert await store.epoch() != epoch
    assert await store.get("a") is None
    assert (await store.commit(put(a=b"2"))).revision == 1


async def test_a_kill_of_the_server_loses_no_acknowledged_commit(server: RedisServer, store: ValkeyStore) -> None:
    acknowledged = 0

    async def commit() -> None:
        nonlocal acknowledged
        while True:
            await store.commit(Change(events=[b"e"]))
            acknowledged += 1

    committing = asyncio.ensure_future(commit())
    await asyncio.sleep(0.2)
    server.kill()
    with pytest.raises(StoreUnavailable) as caught:
        await committing
    assert acknowledged > 10
    server.start()
    revision = (await store.head()).revision
    assert acknowledged <= revision <= acknowledged + caught.value.uncertain


async def newer(store: ValkeyStore, *commands: tuple[str | int | bytes, ...]) -> None:
    for command in commands:
        await store._execute(*command)


@pytest.mark.parametrize("came_after", [0, 1, 2, 5])
async def test_a_failover_that_lost_commits_is_noticed_whatever_came_after(
    came_after: int, server: RedisServer, store: ValkeyStore
) -> None:
    """The new master has only the first commit, and took others from another replica of the administrator."""
    other = await ValkeyPlace(server).open()
    epoch = await other.epoch()
    await other.commit(put(a=b"1"))
    kept = await store._execute("HGET", scripts.STATE, "newest")
    await store.commit(put(b=b"lost"))
    await store.commit(put(b=b"lost again"))
    for entry in (await store._execute("XRANGE", scripts.STREAM, "-", "+"))[1:]:
        await store._execute("XDEL", scripts.STREAM, entry[0])
    await newer(
        store, ("HSET", scripts.STATE, "newest", kept), ("HDEL", scripts.STATE, "k:b"), ("ZREM", scripts.ITEM_KEYS, "b")
    )
    await newer(store, ("DEL", "copy"), ("COPY", scripts.STREAM, "copy"))
    await store._execute("DEL", scripts.STREAM)
    await store._execute("XADD", scripts.STREAM, kept, "t", "1.5", "e", (await store._execute("XRANGE", "copy", "-", "+"))[0][1][b"e"])  # fmt: skip
    for number in range(came_after):
        await other.commit(put(c=b"%d" % number))
    for _ in range(2):
        with pytest.raises(StoreForgot):
            await store.head()
        with pytest.raises(StoreForgot):
            await store.commit(put(c=b"x"))
    renewed = await store.epoch()
    assert renewed != epoch
    assert (await store.head()).revision == 1 + came_after
    with pytest.raises(StoreForgot):
        await other.head()
    assert await other.epoch() == renewed
    await other.close()


@pytest.mark.parametrize("lost", [scripts.STATE, scripts.ITEM_KEYS])
async def test_items_that_somebody_deleted_are_noticed(lost: str, store: ValkeyStore) -> None:
    await store.commit(put(a=b"1"))
    await store._execute("DEL", lost)
    with pytest.raises(StoreError):
        await store.scan("")


async def test_a_stream_that_somebody_deleted_is_noticed(store: ValkeyStore) -> None:
    await store.commit(put(a=b"1"))
    await store._execute("DEL", scripts.STREAM)
    with pytest.raises(StoreForgot):
        await store.read_since(0)


async def test_values_that_somebody_changed_are_an_error(store: ValkeyStore) -> None:
    await store.commit(put(a=b"1"))
    await store._execute("HSET", scripts.STATE, "k:a", "no version")
    with pytest.raises(StoreUnavailable, match="damaged"):
        await store.get("a")


async def test_a_newer_schema_is_refused(store: ValkeyStore) -> None:
    await store._execute("HSET", scripts.STATE, "schema", scripts.SCHEMA_VERSION + 1)
    with pytest.raises(StoreUnavailable, match="newer version"):
        await store.epoch()


async def test_a_call_that_is_cancelled_does_not_give_its_answer_to_another(store: ValkeyStore) -> None:
    await store.commit(put(**{f"k{number}": b"%d" % number for number in range(50)}))
    for number in range(50):
        calls = [asyncio.ensure_future(store.get(f"k{other}")) for other in range(50)]
        await asyncio.sleep(0)
        calls[number].cancel()
        await asyncio.wait(calls)
        for other, call in enumerate(calls):
            if other != number:
                assert call.result() == Versioned(1, b"%d" % other)


async def test_more_calls_at_once_than_connections_wait(store: ValkeyStore) -> None:
    committed = await asyncio.gather(*(store.commit(Change(events=[b"e"])) for _ in range(200)))
    assert sorted(one.revision for one in committed) == list(range(1, 201))


async def test_concurrent_replicas_count_exactly(server: RedisServer) -> None:
    stores = [await ValkeyPlace(server).open() for _ in range(4)]
    for store in stores:
        await store.epoch()

    async def count(store: ValkeyStore) -> None:
        for _ in range(25):
            while True:
                item = await store.get("counter")
                version, value = (0, 0) if item is None else (item.version, int(item.value))
                try:
                    await store.commit(Change({"counter": version}, {"counter": b"%d" % (value + 1)}))
                    break
                except Conflict:
                    continue

    await asyncio.gather(*map(count, stores))
    assert await stores[0].get("counter") == Versioned(100, b"100")
    for store in stores:
        await store.close()


async def test_a_server_that_hangs_is_unavailable_after_a_while(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zta_authz.administrator.store.valkey.TIMEOUT_SECONDS", 0.3)
    store = await ValkeyPlace(server).open()
    await store.epoch()
    blocker = await ValkeyPlace(server).open()
    await blocker._execute("CLIENT", "PAUSE", 1000, "ALL")
    with pytest.raises(StoreUnavailable, match="can't be reached") as caught:
        await store.commit(put(a=b"1"))
    assert caught.value.uncertain
    await store.close()
    await blocker.close()


async def test_a_read_only_replica_is_unavailable(server: RedisServer, store: ValkeyStore) -> None:
    await store._execute("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match="refuses"):
        await store.commit(put(a=b"1"))


async def test_a_store_keeps_something() -> None:
    with pytest.raises(InvalidChange):
        await ValkeyStore.open(ValkeyAddress(path="/none"), retained=0)


def test_an_address_does_not_show_its_password() -> None:
    assert "hunter2" not in repr(ValkeyAddress(host="h", password="hunter2"))

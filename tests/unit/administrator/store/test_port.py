"""Every store keeps what the port promises."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from zta_authz.administrator.store import port
from zta_authz.administrator.store.port import (
    ABSENT,
    Change,
    Commit,
    Conflict,
    Forgotten,
    InvalidChange,
    StoreForgot,
    Versioned,
    Window,
    WindowClosed,
    read_items,
)

if TYPE_CHECKING:
    from tests.support.stores import StorePlace
    from zta_authz.administrator.store.port import Store


def put(**items: bytes) -> Change:
    return Change(put=items)


async def test_a_new_store_is_empty(store: Store) -> None:
    assert (await store.head()).revision == 0
    assert await store.get("a") is None
    assert await store.scan("") == []
    assert await store.read_since(0) == []


async def test_the_store_has_a_clock(store: Store) -> None:
    assert abs((await store.head()).time - time.time()) < 60


async def test_a_commit_puts_items_and_appends_to_the_stream(store: Store) -> None:
    committed = await store.commit(Change(put={"a/1": b"one", "a/2": b"\x00\xff"}, events=[b"first", b"second"]))
    assert committed.revision == 1
    assert await store.get("a/1") == Versioned(1, b"one")
    assert await store.get("a/2") == Versioned(1, b"\x00\xff")
    assert await store.read_since(0) == [
        Commit(1, committed.time, (b"first", b"second"), {"a/1": b"one", "a/2": b"\x00\xff"}, ())
    ]


async def test_revisions_have_no_gaps_and_are_the_versions_of_items(store: Store) -> None:
    await store.commit(put(a=b"1"))
    await store.commit(put(b=b"1"))
    with pytest.raises(Conflict):
        await store.commit(Change(expect={"a": 2}, put={"a": b"x"}))
    await store.commit(put(a=b"2"))
    assert await store.get("a") == Versioned(3, b"2")
    assert await store.get("b") == Versioned(2, b"1")
    assert [commit.revision for commit in await store.read_since(0)] == [1, 2, 3]


async def test_a_deleted_item_is_absent_and_its_deletion_is_in_the_stream(store: Store) -> None:
    await store.commit(put(a=b"1", b=b"1"))
    await store.commit(Change(delete=["a"], put={"c": b"1"}))
    assert await store.get("a") is None
    assert [key for key, _ in await store.scan("")] == ["b", "c"]
    (deletion,) = await store.read_since(1)
    assert (deletion.deleted, dict(deletion.put)) == (("a",), {"c": b"1"})


@pytest.mark.parametrize(
    ("expect", "key"), [({"a": 2}, "a"), ({"a": ABSENT}, "a"), ({"b": 1}, "b"), ({"a": 1, "b": 1}, "b")]
)
async def test_a_change_is_refused_as_a_whole_if_one_expectation_does_not_hold(
    expect: dict[str, int], key: str, store: Store
) -> None:
    await store.commit(put(a=b"1"))
    with pytest.raises(Conflict) as caught:
        await store.commit(Change(expect, put={"c": b"1"}, delete=["a"], events=[b"e"], marks={"m": 60}))
    assert caught.value.key == key
    assert await store.get("c") is None
    assert await store.get("a") == Versioned(1, b"1")
    assert len(await store.read_since(0)) == 1
    assert await store.remember("m", 60)


async def test_a_change_is_made_if_all_expectations_hold(store: Store) -> None:
    await store.commit(put(a=b"1", b=b"1"))
    await store.commit(Change({"a": 1, "b": 1, "c": ABSENT}, put={"a": b"2"}))
    assert await store.get("a") == Versioned(2, b"2")


async def test_an_item_that_was_deleted_is_expected_to_be_absent(store: Store) -> None:
    await store.commit(put(a=b"1"))
    await store.commit(Change(delete=["a"]))
    await store.commit(Change({"a": ABSENT}, put={"a": b"2"}))
    assert await store.get("a") == Versioned(3, b"2")


async def test_a_mark_can_be_made_once(store: Store) -> None:
    await store.commit(Change(put={"a": b"1"}, marks={"jti/1": 60}))
    with pytest.raises(Conflict) as caught:
        await store.commit(Change(put={"a": b"2"}, marks={"jti/2": 60, "jti/1": 60}))
    assert caught.value.key == "jti/1"
    assert await store.get("a") == Versioned(1, b"1")
    assert not await store.remember("jti/1", 60)
    assert await store.remember("jti/2", 60)


async def test_a_mark_ends(store: Store) -> None:
    assert await store.remember("m", 0.05)
    assert not await store.remember("m", 0.05)
    await asyncio.sleep(0.08)
    await store.commit(Change(put={"a": b"1"}, marks={"m": 60}))
    assert not await store.remember("m", 60)


async def test_a_temporary_item_ends(store: Store) -> None:
    await store.put_temporary("t", b"\x00value", 60)
    assert await store.get_temporary("t") == b"\x00value"
    await store.put_temporary("t", b"other", 0.05)
    assert await store.get_temporary("t") == b"other"
    await asyncio.sleep(0.08)
    assert await store.get_temporary("t") is None
    assert await store.get_temporary("never") is None


async def test_temporary_items_are_neither_items_nor_in_the_stream(store: Store) -> None:
    await store.put_temporary("t", b"value", 60)
    await store.remember("m", 60)
    assert await store.get("t") is None
    assert await store.scan("") == []
    assert (await store.head()).revision == 0


async def test_a_scan_returns_only_keys_with_the_prefix_in_order_of_their_bytes(store: Store) -> None:
    keys = ["grant/2", "grant/10", "grant/~", "grant/A", "grant/a", "grant", "grant0", "grants/1", "other"]
    await store.commit(Change(put=dict.fromkeys(keys, b"x")))
    expected = sorted(key for key in keys if key.startswith("grant/"))
    assert [key for key, _ in await store.scan("grant/")] == expected
    assert [key for key, _ in await store.scan("")] == sorted(keys)
    assert await store.scan("none/") == []


async def test_a_scan_has_pages(store: Store) -> None:
    await store.commit(Change(put={f"k/{number:03}": b"x" for number in range(25)}))
    found: list[str] = []
    sizes = []
    while page := await store.scan("k/", after=found[-1] if found else "", limit=10):
        sizes.append(len(page))
        found += [key for key, _ in page]
    assert sizes == [10, 10, 5]
    assert found == [f"k/{number:03}" for number in range(25)]


async def test_the_stream_has_pages(store: Store) -> None:
    for number in range(5):
        await store.commit(Change(events=[b"%d" % number]))
    assert [commit.revision for commit in await store.read_since(1, 2)] == [2, 3]
    assert [commit.events for commit in await store.read_since(3)] == [(b"3",), (b"4",)]
    assert await store.read_since(5) == []


async def test_large_pages_are_shorter_but_lose_nothing(store: Store) -> None:
    large = b"x" * port.MAX_VALUE_BYTES
    for number in range(40):
        await store.commit(Change(events=[large], put={f"k{number:02}": large}))
    read, pages = 0, 0
    while commits := await store.read_since(read):
        assert [commit.revision for commit in commits] == list(range(read + 1, read + 1 + len(commits)))
        read, pages = commits[-1].revision, pages + 1
    assert read == 40
    assert pages > 1
    _, items = await read_items(store, "k")
    assert len(items) == 40


async def test_the_stream_says_that_it_forgot_the_oldest_commits(place: StorePlace) -> None:
    store = await place.open(retained=3)
    await store.epoch()
    for number in range(10):
        await store.commit(Change(events=[b"%d" % number]))
    assert [commit.revision for commit in await store.read_since(7)] == [8, 9, 10]
    for revision in (0, 6):
        with pytest.raises(Forgotten):
            await store.read_since(revision)
    await store.close()


async def test_a_revision_of_the_future_means_that_the_store_forgot(store: Store) -> None:
    await store.commit(put(a=b"1"))
    with pytest.raises(StoreForgot):
        await store.read_since(2)
    with pytest.raises(StoreForgot):
        await store.read_since(2**70)


async def test_a_watcher_wakes_when_the_revision_grows(store: Store) -> None:
    async with aclosing(store.watch()) as revisions:
        assert await anext(revisions) == 0
        waiting = asyncio.ensure_future(anext(revisions))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await store.commit(put(a=b"1"))
        assert await asyncio.wait_for(waiting, 5) == 1


async def test_a_watcher_sees_commits_of_another_opener(place: StorePlace, store: Store) -> None:
    other = await place.open()
    await other.epoch()
    async with aclosing(store.watch(0)) as revisions:
        waiting = asyncio.ensure_future(anext(revisions))
        await asyncio.sleep(0.05)
        await other.commit(put(a=b"1"))
        await other.commit(put(a=b"2"))
        revision = await asyncio.wait_for(waiting, 5)
        while revision < 2:
            revision = await asyncio.wait_for(anext(revisions), 5)
    assert await store.get("a") == Versioned(2, b"2")
    await other.close()


async def test_a_watcher_that_is_behind_is_told_at_once(store: Store) -> None:
    for _ in range(3):
        await store.commit(put(a=b"1"))
    async with aclosing(store.watch(1)) as revisions:
        assert await asyncio.wait_for(anext(revisions), 5) == 3


async def test_everything_is_there_after_it_is_opened_again(place: StorePlace) -> None:
    store = await place.open()
    epoch = await store.epoch()
    window = Window(0, 2e9)
    await store.commit(Change(put={"a": b"1"}, events=[b"e"], marks={"m": 60}))
    await store.put_temporary("t", b"value", 60)
    assert await store.reserve("b", window, 7, 10, "n1") == 7
    await store.close()
    store = await place.open()
    assert await store.epoch() == epoch
    assert await store.get("a") == Versioned(1, b"1")
    assert [commit.events for commit in await store.read_since(0)] == [(b"e",)]
    assert not await store.remember("m", 60)
    assert await store.get_temporary("t") == b"value"
    assert await store.reserve("b", window, 7, 10, "n2") == 3
    await store.close()


async def test_two_openers_share_one_store(place: StorePlace, store: Store) -> None:
    other = await place.open()
    assert await other.epoch() == await store.epoch()
    await store.commit(put(a=b"1"))
    await other.commit(Change({"a": 1}, put={"a": b"2"}))
    with pytest.raises(Conflict):
        await store.commit(Change({"a": 1}, put={"a": b"3"}))
    assert await store.get("a") == Versioned(2, b"2")
    await other.close()


async def test_a_store_without_its_data_has_another_epoch(place: StorePlace) -> None:
    store = await place.open()
    epoch = await store.epoch()
    await store.commit(put(a=b"1"))
    await store.close()
    await place.forget()
    store = await place.open()
    assert await store.epoch() != epoch
    assert (await store.head()).revision == 0
    await store.close()


async def test_nothing_works_before_the_epoch_is_read(place: StorePlace) -> None:
    store = await place.open()
    with pytest.raises(StoreForgot):
        await store.head()
    with pytest.raises(StoreForgot):
        await store.commit(put(a=b"1"))
    await store.epoch()
    assert (await store.head()).revision == 0
    await store.close()


async def test_a_renewed_epoch_stops_every_other_opener_until_it_reads_the_epoch(
    place: StorePlace, store: Store
) -> None:
    other = await place.open()
    lost = await other.epoch()
    await store.commit(put(a=b"1"))
    epoch = await store.renew_epoch(lost)
    assert epoch != lost
    assert (await store.head()).revision == 1
    for attempt in (
        other.head(), other.get("a"), other.scan(""), other.commit(put(b=b"1")), other.read_since(0),
        other.remember("m", 1), other.put_temporary("t", b"", 1), other.get_temporary("t"),
        other.reserve("b", Window(0, 2e9), 1, 1, "n"), anext(other.watch()),
    ):  # fmt: skip
        with pytest.raises(StoreForgot):
            await attempt
    assert await other.epoch() == epoch
    assert await other.get("a") == Versioned(1, b"1")
    await other.close()


async def test_an_epoch_is_renewed_once_however_many_ask(store: Store) -> None:
    lost = await store.epoch()
    epochs = await asyncio.gather(*(store.renew_epoch(lost) for _ in range(5)))
    assert len(set(epochs)) == 1
    assert await store.epoch() == epochs[0]


async def test_reservations_never_exceed_the_limit(place: StorePlace, store: Store) -> None:
    stores = [store, *[await place.open() for _ in range(3)]]
    for one in stores:
        await one.epoch()
    window = Window(0, 2e9)
    got = await asyncio.gather(*(one.reserve("b", window, 7, 500, f"n{number}") for number, one in enumerate(stores) for _ in range(30)))  # fmt: skip
    assert sum(got) == 500
    assert sorted(set(got)) == [0, 3, 7]
    for one in stores[1:]:
        await one.close()


async def test_a_holder_gives_back_only_its_own_units(store: Store) -> None:
    window = Window(0, 2e9)
    assert await store.reserve("b", window, 6, 10, "n1") == 6
    assert await store.reserve("b", window, 9, 10, "n2") == 4
    assert await store.reserve("b", window, -5, 10, "n2") == -4
    assert await store.reserve("b", window, -1, 10, "n3") == 0
    assert await store.reserve("b", window, 9, 10, "n3") == 4
    assert await store.reserve("b", window, 1, 3, "n4") == 0  # the limit was lowered
    assert await store.reserve("b", window, 0, 10, "n4") == 0


async def test_keys_and_windows_have_limits_of_their_own(store: Store) -> None:
    now = (await store.head()).time
    assert await store.reserve("b", Window(0, now + 1000), 10, 10, "n") == 10
    assert await store.reserve("c", Window(0, now + 1000), 10, 10, "n") == 10
    assert await store.reserve("b", Window(0, now + 2000), 10, 10, "n") == 10


async def test_nothing_is_reserved_outside_of_the_window(store: Store) -> None:
    now = (await store.head()).time
    for window in (Window(now + 1000, now + 2000), Window(now - 2000, now - 1000)):
        with pytest.raises(WindowClosed):
            await store.reserve("b", window, 1, 1, "n")


async def test_reservations_are_gone_after_their_window(store: Store) -> None:
    now = (await store.head()).time
    window = Window(now - 1, now + 0.1)
    assert await store.reserve("b", window, 1, 1, "n") == 1
    await asyncio.sleep(0.15)
    with pytest.raises(WindowClosed):
        await store.reserve("b", window, 1, 1, "n")
    assert await store.reserve("b", Window(now - 1, now + 1000), 1, 1, "n") == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "é", "\x7f", "a" * 513, "a\x00b"])
async def test_a_key_has_only_visible_ascii_characters(key: str, store: Store) -> None:
    for attempt in (
        store.get(key), store.commit(Change(put={key: b""})), store.commit(Change({key: 0}, put={"a": b""})),
        store.commit(Change(delete=[key])), store.commit(Change(put={"a": b""}, marks={key: 1})),
        store.remember(key, 1), store.put_temporary(key, b"", 1), store.get_temporary(key),
        store.reserve(key, Window(0, 1), 1, 1, "n"), store.reserve("a", Window(0, 1), 1, 1, key),
    ):  # fmt: skip
        with pytest.raises(InvalidChange):
            await attempt
    assert (await store.head()).revision == 0


@pytest.mark.parametrize(
    "change",
    [
        Change(),
        Change(expect={"a": 0}),
        Change(marks={"a": 1}),
        Change(put={"a": b"x" * (port.MAX_VALUE_BYTES + 1)}),
        Change(events=[b"x" * (port.MAX_VALUE_BYTES + 1)]),
        Change(events=[b""] * (port.MAX_CHANGE_ENTRIES + 1)),
        Change(events=[b"x" * port.MAX_VALUE_BYTES] * 33),
        Change(put={"a": b""}, delete=["a"]),
        Change(delete=["a", "a"]),
        Change(put={"a": b""}, marks={"m": 0}),
        Change(put={"a": b""}, marks={"m": float("nan")}),
        Change(put={"a": b""}, marks={"m": float("inf")}),
    ],
    ids=["nothing", "only expects", "only marks", "long value", "long event", "many", "large", "both", "twice", "no time", "nan", "inf"],
)  # fmt: skip
async def test_a_change_has_limits(change: Change, store: Store) -> None:
    with pytest.raises(InvalidChange):
        await store.commit(change)
    assert (await store.head()).revision == 0


async def test_the_largest_change_is_made(store: Store) -> None:
    await store.commit(Change(put={f"k{number}": b"x" for number in range(port.MAX_CHANGE_ENTRIES)}))
    (commit,) = await store.read_since(0)
    assert len(commit.put) == port.MAX_CHANGE_ENTRIES
    revision, items = await read_items(store, "k")
    assert (revision, len(items)) == (1, port.MAX_CHANGE_ENTRIES)


async def test_other_arguments_have_limits(store: Store) -> None:
    for attempt in (
        store.scan("", limit=0), store.scan("", limit=port.PAGE + 1), store.scan("a b"), store.scan("", after="\n"),
        store.read_since(0, 0), store.read_since(-1), store.remember("m", -1),
        store.put_temporary("t", b"x" * (port.MAX_VALUE_BYTES + 1), 1),
        store.reserve("a", Window(2, 1), 1, 1, "n"), store.reserve("a", Window(0, 1), 2**60, 1, "n"),
        store.reserve("a", Window(0, 1), 1, -1, "n"),
    ):  # fmt: skip
        with pytest.raises(InvalidChange):
            await attempt


async def test_items_are_read_as_of_one_revision_while_others_commit(place: StorePlace, store: Store) -> None:
    """Two items always change together, so that a torn state would show."""
    keys = [f"k/{number:04}" for number in range(1500)]
    await store.commit(Change(put=dict.fromkeys(keys, b"0")))
    other = await place.open()
    await other.epoch()
    stopped = False

    async def change() -> None:
        number = 0
        while not stopped:
            number += 1
            await other.commit(Change(put={keys[0]: b"%d" % number, keys[-1]: b"%d" % number}))

    changing = asyncio.ensure_future(change())
    for _ in range(10):
        revision, items = await read_items(store, "k/")
        assert len(items) == 1500
        assert items[keys[0]] == items[keys[-1]]
        assert items[keys[0]].version <= revision
    stopped = True
    await changing
    await other.close()

"""The published view is that of the store, at one revision, and says what changed since an earlier one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.published_views import wait_for_revision
from tests.support.stores import SqlitePlace
from zta_authz.administrator import view as module
from zta_authz.administrator.store.port import Change, Commit, StoreForgot, StoreUnavailable
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.view_items import BadItem, GrantItem, SubjectItem, decode_item, encode_item, wire_item

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Store


def stored(text: bytes) -> bytes:
    """An item as the store keeps it, told apart by its entitlement."""
    return encode_item(GrantItem("1", text.decode("latin-1"), SubjectItem(spiffe_id="spiffe://a/b"), 1.0, 2.0))


def sent(text: bytes, name: str = "1") -> bytes:
    return wire_item(f"view/grant/{name}", stored(text))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlitePlace(tmp_path).open()
    await opened.epoch()
    yield opened
    await opened.close()


@pytest.fixture
async def view(store: Store) -> AsyncIterator[PublishedView]:
    await store.commit(Change(put={"view/grant/1": stored(b"one"), "request/1": b"private"}))
    published = PublishedView(store)
    await published.start()
    yield published
    await published.close()


async def put(store: Store, view: PublishedView, **items: bytes | None) -> int:
    """Put or, for None, delete items of the view; return the revision once the view has it."""
    change = Change(
        put={f"view/grant/{name[1:]}": stored(value) for name, value in items.items() if value is not None},
        delete=[f"view/grant/{name[1:]}" for name, value in items.items() if value is None],
    )
    committed = await store.commit(change)
    async with asyncio.timeout(5):
        await wait_for_revision(view, committed.revision)
    return committed.revision


async def test_only_published_items_are_in_the_view(store: Store, view: PublishedView) -> None:
    assert view.items == {"grant/1": sent(b"one")}
    assert (view.epoch, view.revision) == (await store.epoch(), 1)


async def test_a_follower_gets_what_changed_since_its_revision_in_one_piece(store: Store, view: PublishedView) -> None:
    first = view.revision
    await put(store, view, g2=b"two", g1=b"changed")
    await put(store, view, g2=b"two again")
    last = await put(store, view, g1=None)
    delta = view.since(view.epoch, first)
    assert delta is not None
    assert delta.revision == last
    assert delta.changes == {"grant/2": sent(b"two again", "2"), "grant/1": None}
    again = view.since(view.epoch, last)
    assert again is not None
    assert again.changes == {}
    assert view.items == {"grant/2": sent(b"two again", "2")}


async def test_a_commit_without_published_items_moves_only_the_revision(store: Store, view: PublishedView) -> None:
    before = view.revision
    committed = await store.commit(Change(put={"request/2": b"private"}))
    async with asyncio.timeout(5):
        await wait_for_revision(view, committed.revision)
    delta = view.since(view.epoch, before)
    assert delta is not None
    assert (delta.revision, delta.changes) == (committed.revision, {})


async def test_a_position_that_is_unknown_needs_the_whole_view(view: PublishedView) -> None:
    assert view.since("another epoch", view.revision) is None
    assert view.since(view.epoch, view.revision + 1) is None
    assert view.since(view.epoch, 0) is None, "nothing is known of what came before the start"


async def test_only_so_many_changes_are_remembered(
    store: Store, view: PublishedView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_CHANGES", 3)
    view._recent = module.deque(maxlen=3)
    first = view.revision
    revisions = [await put(store, view, g1=bytes([number])) for number in range(4)]
    assert view.since(view.epoch, first) is None
    remembered = view.since(view.epoch, revisions[0])
    assert remembered is not None
    assert remembered.changes == {"grant/1": sent(b"\x03")}


async def test_waiting_ends_with_a_change_or_in_time(store: Store, view: PublishedView) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await view.wait(view.epoch, view.revision, 0.05)
    assert loop.time() - began >= 0.045
    await view.wait("another", view.revision, 5)
    waiting = asyncio.create_task(view.wait(view.epoch, view.revision, 60))
    await asyncio.sleep(0)
    await put(store, view, g9=b"nine")
    async with asyncio.timeout(5):
        await waiting


class Failing:
    """A store that fails in the given ways, then reads on."""

    def __init__(self, store: Store, *errors: Exception) -> None:
        self._store = store
        self._errors = list(errors)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def read_since(self, revision: int, limit: int = 1000) -> list[Commit]:
        if self._errors:
            raise self._errors.pop(0)
        return await self._store.read_since(revision, limit)


async def test_a_store_that_fails_for_a_while_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    reported: list[str] = []
    errors = (StoreUnavailable("down"), StoreForgot("lost"), StoreUnavailable("down again"))
    published = PublishedView(Failing(store, *errors), reported.append)  # type: ignore[arg-type]
    await published.start()
    await put(store, published, g1=b"one")
    assert published.items == {"grant/1": sent(b"one")}
    assert "down" in reported
    await published.close()


async def test_a_store_that_is_back_is_reported_even_if_nothing_changes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    reported: list[str] = []
    published = PublishedView(Failing(store, StoreUnavailable("down")), reported.append)  # type: ignore[arg-type]
    await published.start()
    async with asyncio.timeout(5):
        while reported[-1:] != [""] or "down" not in reported:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
    await published.close()


async def test_an_item_that_can_not_be_read_is_not_published(store: Store, view: PublishedView) -> None:
    committed = await store.commit(Change(put={"view/grant/9": b"{", "view/later/1": b"{}"}))
    await wait_for_revision(view, committed.revision)
    assert set(view.items) == {"grant/1"}


def test_items_are_read_by_the_kind_that_their_key_names() -> None:
    assert isinstance(decode_item("view/grant/1", stored(b"x")), GrantItem)
    with pytest.raises(BadItem):
        decode_item("view/revocation/1", stored(b"x"))
    with pytest.raises(BadItem):
        wire_item("grant/1", stored(b"x"))

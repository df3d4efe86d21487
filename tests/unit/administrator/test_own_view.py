"""The administrator applies its own revocations before anybody can call it, and goes on whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from zta_authz.administrator import own_view as module
from zta_authz.administrator.follow_service import FollowService
from zta_authz.administrator.own_view import OwnView
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view import PublishedView
from zta_authz.administrator.view_items import RevocationItem, encode_item
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following.position import InvalidView
from zta_authz.following.views import FollowedViews

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from zta_authz.administrator.store.port import Store


def revoked(name: str) -> dict[str, bytes]:
    item = RevocationItem(name, "subject", name, "https://i")
    return {item.key: encode_item(item)}


@asynccontextmanager
async def followed(store: Store, revocations: DynamicRevocations) -> AsyncIterator[OwnView]:
    view = PublishedView(store)
    await view.start()
    own = OwnView(FollowService(view, 0.05), revocations, 600.0)
    running = asyncio.get_running_loop().create_task(own.run())
    try:
        yield own
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await view.close()


async def holds(revocations: DynamicRevocations, count: int) -> None:
    async with asyncio.timeout(10):
        while len(revocations) != count:  # noqa: ASYNC110 - of another task
            await asyncio.sleep(0.01)


async def test_what_was_revoked_before_the_start_counts_when_waiting_ends(store: Store) -> None:
    await store.commit(Change(put=revoked("a") | revoked("b")))
    revocations = DynamicRevocations()
    async with followed(store, revocations) as own:
        await own.wait()
        assert len(revocations) == 2
        await store.commit(Change(put=revoked("c"), delete=["view/revocation/a"]))
        await store.commit(Change(put=revoked("d")))
        await holds(revocations, 3)


async def test_a_view_that_can_not_be_applied_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    apply = FollowedViews.apply
    failures = [InvalidView("one"), InvalidView("two")]

    def fail_twice(self: FollowedViews, *args: object) -> None:
        if failures:
            raise failures.pop()
        apply(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(FollowedViews, "apply", fail_twice)
    await store.commit(Change(put=revoked("a")))
    revocations = DynamicRevocations()
    async with followed(store, revocations) as own:
        await own.wait()
        assert len(revocations) == 1
        failures.append(InvalidView("three"))
        await store.commit(Change(put=revoked("b")))
        await holds(revocations, 2)

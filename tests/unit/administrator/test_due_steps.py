"""Steps that come by themselves are done once, by whichever replica is first, and no access depends on them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.fakes.stores import FailingStore
from tests.support.administrator import DB, ENTITLEMENT, OPERATORS, Administrator, refusal
from tests.support.pki import HOUR, NOW
from zta_authz.access.lifecycle import GrantState, Refusal, RequestState
from zta_authz.administrator.access_items import DUE, GRANT, REQUEST, due_key
from zta_authz.administrator.due_steps import DueSteps
from zta_authz.administrator.grants import KEPT_SECONDS, SHOWN_AFTER_END_SECONDS
from zta_authz.administrator.store.port import Change, StoreUnavailable
from zta_authz.administrator.view_items import VIEW

if TYPE_CHECKING:
    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.store.port import Store
    from zta_authz.administrator.view_items import GrantItem

EMERGENCIES = ENTITLEMENT + "  breakGlass: {who: [{source: {requestPrincipals: ['*']}}], maxDuration: 1h}\n"


@pytest.fixture
def admin(store: Store) -> Administrator:
    return Administrator(store, EMERGENCIES, OPERATORS)


async def asked(admin: Administrator, start: float = 0.0) -> RequestItem:
    return await admin.grants.request(admin.person("ann"), DB, HOUR, "why", start)


async def granted(admin: Administrator, start: float = 0.0) -> GrantItem:
    request = await asked(admin, start)
    done = await admin.grants.approve(admin.person("bob"), request.id, request.scope_sha256)
    return await admin.grants.get_grant(done.grant_id)


async def step_to(admin: Administrator, now: float) -> None:
    """Do what is due at `now`."""
    admin.clock.now = now
    while await admin.due_steps.do_due():
        pass


async def keys(admin: Administrator) -> set[str]:
    """The keys of all items of requests and grants."""
    prefixes = (REQUEST, GRANT, DUE, "open/", VIEW)
    return {key for prefix in prefixes for key, _ in await admin.store.scan(prefix)}


async def test_an_undecided_request_lapses_and_is_forgotten_later(admin: Administrator) -> None:
    request = await asked(admin)
    await step_to(admin, request.pending_until - 0.001)
    assert await admin.kinds() == ["requested"]
    await step_to(admin, request.pending_until)
    assert await admin.kinds() == ["requested", "lapsed"]
    assert (await admin.grants.get_request(request.id)).state is RequestState.LAPSED
    await step_to(admin, request.pending_until + KEPT_SECONDS + 1)
    assert await refusal(admin.grants.get_request(request.id)) is Refusal.NOT_FOUND
    assert await keys(admin) == set(), "nothing is left in the store"


async def test_a_grant_begins_ends_leaves_the_view_and_is_forgotten(admin: Administrator) -> None:
    grant = await granted(admin, start=NOW + HOUR)
    await step_to(admin, grant.start)
    assert (await admin.kinds())[-1] == "activated"
    await step_to(admin, grant.until)
    assert (await admin.kinds())[-2:] == ["activated", "expired"]
    assert await admin.store.get(grant.key) is not None, "a denial can name it for a while"
    await step_to(admin, grant.until + SHOWN_AFTER_END_SECONDS)
    assert await admin.store.get(grant.key) is None
    assert (await admin.grants.get_grant(grant.id)).state == GrantState.EXPIRED
    await step_to(admin, grant.until + KEPT_SECONDS + 1)
    assert await refusal(admin.grants.get_grant(grant.id)) is Refusal.NOT_FOUND
    assert await keys(admin) == set()
    assert (await admin.kinds()).count("expired") == 1


async def test_a_grant_that_was_revoked_leaves_the_view_too(admin: Administrator) -> None:
    grant = await granted(admin)
    await admin.grants.revoke(admin.person("bob"), grant.id)
    await step_to(admin, NOW + SHOWN_AFTER_END_SECONDS)
    assert await admin.store.get(grant.key) is None
    await step_to(admin, NOW + KEPT_SECONDS + SHOWN_AFTER_END_SECONDS)
    assert await keys(admin) == set()
    assert "expired" not in await admin.kinds()


async def test_an_emergency_is_kept_until_it_is_reviewed(admin: Administrator) -> None:
    grant = await admin.grants.break_glass(admin.person("ann"), DB, HOUR, "fire")
    for months in (1, 2, 3):
        await step_to(admin, NOW + HOUR + months * (KEPT_SECONDS + 1))
    assert await refusal(admin.grants.break_glass(admin.person("ann"), DB, HOUR, "fire")) is Refusal.REVIEW_OPEN
    await admin.grants.review(admin.person("bob"), grant.id, "late")
    await step_to(admin, admin.clock.now + KEPT_SECONDS + 1)
    assert await keys(admin) == set()


async def test_two_replicas_do_each_step_once(store: Store) -> None:
    replicas = [Administrator(store) for _ in range(2)]
    grants = [await granted(replicas[0], start=NOW + 60) for _ in range(5)]
    for now in (NOW + 60, NOW + 60 + HOUR, NOW + 60 + 25 * HOUR):
        for replica in replicas:
            replica.clock.now = now
        await asyncio.gather(*(replica.due_steps.do_due() for replica in replicas))
    kinds = await replicas[0].kinds()
    assert (kinds.count("activated"), kinds.count("expired")) == (len(grants), len(grants))


async def test_a_replica_that_read_an_old_list_does_not_do_the_next_step_too_early(admin: Administrator) -> None:
    grant = await granted(admin, start=NOW + 60)
    request = await asked(admin)

    class SlowReader:
        """The store, as a replica sees it that is overtaken by another one as soon as it has read what is due."""

        def __getattr__(self, name: str) -> Any:
            return getattr(admin.store, name)

        async def scan(self, prefix: str, *, limit: int) -> object:
            page = await admin.store.scan(prefix, limit=limit)
            await step_to(admin, admin.clock.now)
            return page

    slow = DueSteps(cast("Store", SlowReader()))
    admin.clock.now = NOW + 60
    await slow.do_due()
    assert (await admin.grants.get_grant(grant.id)).state == GrantState.ACTIVE
    assert (await admin.kinds())[-1] == "activated", "the second replica has not ended it"
    await admin.grants.revoke(admin.person("bob"), grant.id)
    admin.clock.now = request.pending_until
    await slow.do_due()
    assert (await admin.grants.get_request(request.id)).state is RequestState.LAPSED, "it is not forgotten yet"


async def test_a_decision_at_the_last_moment_and_the_lapse_are_not_both_done(store: Store) -> None:
    replicas = [Administrator(store) for _ in range(2)]
    request = await asked(replicas[0])
    replicas[0].clock.now, replicas[1].clock.now = request.pending_until - 1, request.pending_until
    approval = replicas[0].grants.approve(replicas[0].person("bob"), request.id, request.scope_sha256)
    await asyncio.gather(approval, replicas[1].due_steps.do_due(), return_exceptions=True)
    kinds = await replicas[0].kinds()
    assert ("lapsed" in kinds) != ("activated" in kinds)


async def test_steps_are_never_due_too_early(admin: Administrator) -> None:
    admin.clock.now = NOW + 0.12345
    grant = await granted(admin)
    await step_to(admin, grant.until - 0.0001)
    assert "expired" not in await admin.kinds()
    await step_to(admin, grant.until + 0.001)
    assert "expired" in await admin.kinds()


async def test_an_item_that_can_not_be_read_does_not_stop_the_others(
    admin: Administrator, caplog: pytest.LogCaptureFixture
) -> None:
    request = await asked(admin)
    broken = {REQUEST + "0" * 16: b"{", GRANT + "1" * 16: b'{"grant": 7}'}
    due = {due_key(NOW, "request", "0" * 16): b"{}", due_key(NOW, "grant", "1" * 16): b"{}"}
    await admin.store.commit(Change(put=broken | due))
    with caplog.at_level(logging.ERROR):
        await step_to(admin, request.pending_until)
    assert len(caplog.records) == 2
    assert await admin.kinds() == ["requested", "lapsed"]
    assert [entry for key in broken if (entry := await admin.store.get(key))], "it is left for somebody to look at"


async def test_a_kind_of_a_newer_version_is_left_to_it(admin: Administrator) -> None:
    key = due_key(NOW, "future", "0" * 16)
    await admin.store.commit(Change(put={key: b"{}"}))
    assert await admin.due_steps.do_due() is False
    assert await admin.store.get(key) is not None


async def test_steps_are_done_in_batches(admin: Administrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.administrator.due_steps.BATCH", 2)
    for _ in range(3):
        await asked(admin)
    admin.clock.now += 25 * HOUR
    assert await admin.due_steps.do_due() is True
    assert await admin.due_steps.do_due() is False
    assert (await admin.kinds()).count("lapsed") == 3


async def test_the_steps_go_on_after_a_failure_of_the_store(admin: Administrator) -> None:
    request = await asked(admin)
    admin.clock.now = request.pending_until
    failing = FailingStore(admin.store, 0, StoreUnavailable("gone"))
    running = asyncio.create_task(DueSteps(cast("Store", failing), 0.001).run())
    async with asyncio.timeout(10), aclosing(admin.store.watch()) as revisions:
        async for _ in revisions:
            if "lapsed" in await admin.kinds():
                break
    running.cancel()
    assert isinstance((await asyncio.gather(running, return_exceptions=True))[0], asyncio.CancelledError)


class Gone:
    """A store that nobody reaches."""

    def __init__(self) -> None:
        self.asked = 0

    async def head(self) -> None:
        """Fail."""
        self.asked += 1
        raise StoreUnavailable("gone")


async def test_a_long_failure_of_the_store_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gone = Gone()
    running = asyncio.create_task(DueSteps(cast("Store", gone), 0.001).run())
    async with asyncio.timeout(10):
        while gone.asked < 20:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)
    running.cancel()
    assert len(caplog.records) == 1

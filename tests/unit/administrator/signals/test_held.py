"""A held event has no effect until somebody releases it, and its effect is the one that it would have had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support.pki import NOW
from tests.support.security_events import IDP, KEYS, RECEIVER, claims, signed, source
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import Actor, EventKind, read_event
from zta_authz.administrator.operator_authorization import AuthorizedCaller
from zta_authz.administrator.signals.changes import HELD
from zta_authz.administrator.signals.held import HeldCounter, HeldEvents
from zta_authz.administrator.signals.intake import Intake, Result, StreamFacts
from zta_authz.administrator.store.port import Change, read_items
from zta_authz.administrator.view_items import RevocationItem, decode_item
from zta_authz.model.access import Subject

if TYPE_CHECKING:
    from zta_authz.administrator.access_events import AccessEvent
    from zta_authz.administrator.store.port import Committed, Store

TENANT = {"format": "complex", "tenant": {"format": "opaque", "id": "t-1"}}
CALLER = AuthorizedCaller(
    (Subject("https://login.example", "olga"),),
    cast("Any", None),
    Actor("", "https://login.example", "olga", "d1"),
    "p1",
)


class Held:
    """Held events, and the commits that were settled."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.settled: list[Committed] = []
        self.events = HeldEvents(store, self._settle)

    async def _settle(self, committed: Committed) -> None:
        self.settled.append(committed)

    async def hold(self, jti: str = "t") -> str:
        """Receive an event about the whole tenant. Returns the ID under which it is held."""
        intake = Intake(self.store, clock=lambda: NOW)
        data = signed(claims(jti=jti, sub_id=TENANT))
        receipt = await intake.receive(data, source(tenant="t-1"), StreamFacts((RECEIVER,)), KEYS)
        assert receipt.result is Result.HELD
        return next(item.id for item in await self.events.list_held() if item.jti == jti)

    async def revocations(self) -> list[RevocationItem]:
        _, entries = await read_items(self.store, "view/revocation/")
        found = [decode_item(key, entry.value) for key, entry in entries.items()]
        return [item for item in found if isinstance(item, RevocationItem)]

    async def recorded(self) -> list[AccessEvent]:
        return [read_event(event) for commit in await self.store.read_since(0) for event in commit.events]


async def test_a_released_event_has_the_effect_that_it_would_have_had(store: Store) -> None:
    held = Held(store)
    event_id = await held.hold()
    [item] = await held.events.list_held()
    assert (item.why, item.jti, item.source, item.held_at) == ("tenant_wide", "t", "istio-system/idp", NOW)
    assert await held.revocations() == []
    released = await held.events.release(CALLER, event_id, "breach")
    assert released.id == event_id
    [revocation] = await held.revocations()
    assert (revocation.what, revocation.value, revocation.before) == ("issuer", IDP, NOW - 9)
    assert await held.events.list_held() == []
    assert len(held.settled) == 1
    events = await held.recorded()
    assert [event.kind for event in events] == [
        EventKind.SIGNAL_HELD, EventKind.REVOCATION_ADDED, EventKind.SIGNAL_RELEASED,
    ]  # fmt: skip
    assert (events[-1].actor, events[-1].reason, events[-1].policy_digest) == (CALLER.actor, "breach", "p1")


async def test_a_discarded_event_has_none(store: Store) -> None:
    held = Held(store)
    await held.events.discard(CALLER, await held.hold(), "not ours")
    assert await held.revocations() == []
    assert await held.events.list_held() == []
    last = (await held.recorded())[-1]
    assert (last.kind, last.reason) == (EventKind.SIGNAL_DISCARDED, "not ours")


async def test_a_decision_needs_a_reason_and_an_event_that_is_still_held(store: Store) -> None:
    held = Held(store)
    event_id = await held.hold()
    with pytest.raises(OperationRefused) as refused:
        await held.events.release(CALLER, event_id, " ")
    assert refused.value.refusal is Refusal.REASON_REQUIRED
    await held.events.discard(CALLER, event_id, "not ours")
    for unknown in (event_id, "0" * 32):
        with pytest.raises(OperationRefused) as refused:
            await held.events.release(CALLER, unknown, "breach")
        assert refused.value.refusal is Refusal.NOT_FOUND
    assert await held.revocations() == []


async def test_events_are_listed_in_pages(store: Store) -> None:
    held = Held(store)
    ids = sorted([await held.hold(str(number)) for number in range(5)])
    first = await held.events.list_held(limit=2)
    assert [item.id for item in first] == ids[:2]
    assert [item.id for item in await held.events.list_held(first[-1].id, 10)] == ids[2:]


async def test_an_event_that_cannot_be_read_hides_no_other(store: Store) -> None:
    held, counter = Held(store), HeldCounter(store)
    event_id, broken = await held.hold(), "f" * 32
    await store.commit(Change(put={HELD + broken: b'{"id": 5}', HELD + "0" * 32: b"\xff"}))
    assert [item.id for item in await held.events.list_held()] == [event_id]
    assert [item.id for item in await held.events.list_held(limit=1)] == [event_id]
    with pytest.raises(OperationRefused) as refused:
        await held.events.release(CALLER, broken, "breach")
    assert refused.value.refusal is Refusal.UNAVAILABLE
    running = asyncio.create_task(counter.run())
    async with asyncio.timeout(5):
        while counter.counts != {"istio-system/idp": 1}:  # noqa: ASYNC110 - a task's result
            await asyncio.sleep(0.01)
    running.cancel()


async def test_held_events_are_counted_by_source(store: Store) -> None:
    held, counter = Held(store), HeldCounter(store)
    running = asyncio.create_task(counter.run())
    await asyncio.sleep(0)
    for number in range(3):
        await held.hold(str(number))
    running.cancel()
    running = asyncio.create_task(counter.run())
    async with asyncio.timeout(5):
        while counter.counts != {"istio-system/idp": 3}:  # noqa: ASYNC110 - a task's result
            await asyncio.sleep(0.01)
    running.cancel()

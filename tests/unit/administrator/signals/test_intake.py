"""One SET is one commit: what it puts in force, what it records, and what survives a death at any step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.stores import FailingStore, Killed
from tests.support.pki import NOW
from tests.support.security_events import ALICE, IDP, KEYS, RECEIVER, SESSION_REVOKED, claims, signed, source
from zta_authz.administrator.access_events import EventKind, read_event
from zta_authz.administrator.revocations import MAX_REVOCATIONS
from zta_authz.administrator.signals import intake as intake_module
from zta_authz.administrator.signals.changes import HELD
from zta_authz.administrator.signals.intake import (
    MAX_PUBLISHED,
    Intake,
    NotNow,
    Receipt,
    Result,
    StreamFacts,
)  # fmt: skip
from zta_authz.administrator.store.port import Conflict, StoreForgot, StoreUnavailable, read_items
from zta_authz.administrator.view_items import RevocationItem, SignalItem, SourceItem, decode_item
from zta_authz.following.position import MAX_ITEMS
from zta_authz.model.signal_documents import CAEP, SSF
from zta_authz.security_events.actions import Why
from zta_authz.security_events.set_verifier import SetError

if TYPE_CHECKING:
    from zta_authz.administrator.access_events import AccessEvent
    from zta_authz.administrator.store.port import Store
    from zta_authz.model.signal_documents import SignalSource

RISK = CAEP + "risk-level-change"
STREAM = StreamFacts((RECEIVER,))
TENANT = {"format": "complex", "tenant": {"format": "opaque", "id": "t-1"}}


class Seen:
    """What the observer was told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, Result, float | None]] = []

    def received(self, source: str, event_type: str, result: Result, lag_seconds: float | None) -> None:
        self.all.append((source, event_type, result, lag_seconds))


async def send(store: Any, data: bytes | None = None, of: SignalSource | None = None, stream: StreamFacts = STREAM, **more: Any) -> Receipt:  # fmt: skip
    intake = Intake(store, clock=lambda: NOW, **more)
    return await intake.receive(data or signed(claims()), of or source(), stream, KEYS)


async def items(store: Store, prefix: str) -> list[Any]:
    _, all_items = await read_items(store, prefix)
    return [decode_item(key, item.value) for key, item in all_items.items()]


async def recorded(store: Store) -> list[AccessEvent]:
    return [read_event(event) for commit in await store.read_since(0) for event in commit.events]


def risk(level: str, when: float) -> bytes:
    return signed(claims(events={RISK: {"current_level": level, "event_timestamp": when}}))


async def test_a_revocation_its_record_and_the_sign_of_life_are_one_commit(store: Store) -> None:
    seen = Seen()
    receipt = await send(store, signed(claims(jti="one")), digest=lambda: "d" * 64, observer=seen)
    assert receipt.result is Result.ACCEPTED
    assert (await store.head()).revision == 1
    [revocation] = await items(store, "view/revocation/")
    assert isinstance(revocation, RevocationItem)
    assert (revocation.what, revocation.value, revocation.issuer) == ("subject", "alice", IDP)
    assert (revocation.before, revocation.until) == (NOW - 9, NOW - 9 + 30 * 86400.0)
    assert (revocation.reason, revocation.source) == ("session-revoked", "istio-system/idp jti one")
    assert await items(store, "view/source/") == [
        SourceItem("istio-system/idp", NOW, 600.0, (IDP,), ("assurance", "compliance", "risk"))
    ]
    added, accepted = await recorded(store)
    assert (added.kind, added.object.id) == (EventKind.REVOCATION_ADDED, revocation.id)
    assert (accepted.kind, accepted.object.id) == (EventKind.SIGNAL_ACCEPTED, "one")
    assert accepted.detail["items"] == (revocation.key,) or accepted.detail["items"] == [revocation.key]
    assert (accepted.policy_digest, accepted.object.fields["txn"]) == ("d" * 64, "8675309")
    assert seen.all == [("istio-system/idp", "session-revoked", Result.ACCEPTED, 10.0)]


async def test_a_session_is_revoked_whatever_its_tokens_time_of_issue(store: Store) -> None:
    await send(store, signed(claims(sub_id={"format": "opaque", "id": "s-1"})))
    [revocation] = await items(store, "view/revocation/")
    assert (revocation.what, revocation.value, revocation.before) == ("session", "s-1", 0.0)


async def test_a_set_counts_once_and_is_acknowledged_each_time(store: Store) -> None:
    settled: list[int] = []

    async def settle(committed: Any) -> None:
        settled.append(committed.revision)

    data = signed(claims())
    results = [(await send(store, data, settle=settle)).result for _ in range(3)]
    assert results == [Result.ACCEPTED, Result.DUPLICATE, Result.DUPLICATE]
    assert (await store.head()).revision == 1
    assert settled == [1, 1, 1]  # a duplicate waits for the log too: its first delivery may not have


async def test_a_jti_is_unique_only_with_its_issuer(store: Store) -> None:
    other = "https://other.example/"
    await send(store, signed(claims(jti="same")))
    receipt = await send(store, signed(claims(jti="same", iss=other)), replace(source(), issuer=other, name="other"))
    assert receipt.result is not Result.DUPLICATE


async def test_a_set_that_is_refused_leaves_nothing_behind(store: Store) -> None:
    seen = Seen()
    for data in (b"x", signed(claims(aud="x")), signed(claims(events={RISK: {}}))):
        with pytest.raises(SetError):
            await send(store, data, observer=seen)
    assert (await store.head()).revision == 0
    assert [result for _, _, result, _ in seen.all] == [Result.REFUSED] * 3


async def test_an_unknown_subject_is_recorded_and_acknowledged(store: Store) -> None:
    receipt = await send(store, signed(claims(sub_id=ALICE | {"iss": "https://other.example/"})))
    assert receipt.result is Result.WITHOUT_EFFECT
    assert await items(store, "view/revocation/") == []
    [event] = await recorded(store)
    assert (event.kind, event.detail["why"]) == (EventKind.SIGNAL_ACCEPTED, "unknown_subject")


async def test_a_discarded_set_is_recorded_as_such(store: Store) -> None:
    subject = {"format": "complex", "user": ALICE, "group": {"format": "opaque", "id": "g"}}
    receipt = await send(store, signed(claims(sub_id=subject)), stream=StreamFacts((RECEIVER,), ("group",)))
    assert receipt.result is Result.DISCARDED
    assert [event.kind for event in await recorded(store)] == [EventKind.SIGNAL_DISCARDED]


async def test_a_verification_is_a_sign_of_life_and_no_record(store: Store) -> None:
    receipt = await send(store, signed(claims(sub_id=None, events={SSF + "verification": {"state": "s"}})))
    assert receipt.result is Result.STREAM
    assert receipt.event is not None
    assert receipt.event.values["state"] == "s"
    assert await recorded(store) == []
    assert len(await items(store, "view/source/")) == 1


async def test_a_repeated_event_moves_the_times_of_one_revocation_forward_only(store: Store) -> None:
    for when in (NOW - 100, NOW - 10, NOW - 500):
        await send(store, signed(claims(events={SESSION_REVOKED: {"event_timestamp": when}})))
    [revocation] = await items(store, "view/revocation/")
    assert revocation.before == NOW - 9
    assert [event.kind for event in await recorded(store)].count(EventKind.REVOCATION_ADDED) == 2


async def test_the_signal_that_was_observed_last_counts(store: Store) -> None:
    for level, when in (("LOW", NOW - 100), ("HIGH", NOW - 10), ("LOW", NOW - 50)):
        await send(store, risk(level, when))
    [signal] = await items(store, "view/signal/")
    assert isinstance(signal, SignalItem)
    assert (signal.what, signal.issuer, signal.subject) == ("subject", IDP, "alice")
    assert (signal.kind, signal.value, signal.observed_at) == ("risk", "HIGH", NOW - 10)


async def test_a_tenant_wide_event_waits_for_an_operator(store: Store) -> None:
    assert (await send(store, signed(claims(sub_id=TENANT)), source(tenant="t-1"))).result is Result.HELD
    assert await items(store, "view/revocation/") == []
    assert len(await store.scan(HELD)) == 1


async def test_more_subjects_than_allowed_within_an_hour_are_held(store: Store) -> None:
    of = source(max_subjects=2)
    intake = Intake(store, clock=lambda: NOW)
    results = [
        (await intake.receive(signed(claims(sub_id=ALICE | {"sub": str(number)})), of, STREAM, KEYS)).plan
        for number in range(4)
    ]
    assert [plan.why for plan in results if plan] == [None, None, Why.TOO_MANY_SUBJECTS, Why.TOO_MANY_SUBJECTS]
    assert len(await store.scan(HELD)) == 2


async def test_events_are_held_before_the_view_is_larger_than_decision_points_accept(store: Store) -> None:
    published = [MAX_PUBLISHED - 1]
    intake = Intake(store, clock=lambda: NOW, published=lambda: published[0])
    first = await intake.receive(signed(claims()), source(), STREAM, KEYS)
    published[0] += 1
    second = await intake.receive(signed(claims(jti="j-2")), source(), STREAM, KEYS)
    assert (first.result, second.result) == (Result.ACCEPTED, Result.HELD)
    assert MAX_PUBLISHED + MAX_REVOCATIONS < MAX_ITEMS


async def test_a_full_memory_is_no_acknowledgement(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "MAX_SETS", 1)
    intake = Intake(store, clock=lambda: NOW)
    await intake.receive(signed(claims()), source(), STREAM, KEYS)
    with pytest.raises(NotNow, match="within an hour"):
        await intake.receive(signed(claims()), source(), STREAM, KEYS)


async def test_more_held_events_than_can_be_kept_are_not_acknowledged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(intake_module, "MAX_HELD", 1)
    await send(store, signed(claims(sub_id=TENANT)), source(tenant="t-1"))
    with pytest.raises(NotNow, match="are held"):
        await send(store, signed(claims(sub_id=TENANT)), source(tenant="t-1"))


@pytest.mark.parametrize("error", [StoreUnavailable("disk"), StoreForgot("epoch")])
async def test_a_store_that_fails_at_any_call_is_no_acknowledgement(store: Store, error: Exception) -> None:
    calls = FailingStore(store, -1, error)
    await send(calls)
    for number in range(len(calls.calls)):
        seen = Seen()
        with pytest.raises(NotNow):
            await send(FailingStore(store, number, error), observer=seen)
        assert [result for _, _, result, _ in seen.all] == [Result.UNAVAILABLE]


async def test_changes_that_come_first_are_taken_into_account(store: Store) -> None:
    class Racing(FailingStore):
        """Another administrator commits a newer event before the first commit of this one."""

        late = True

        def __getattr__(self, name: str) -> Any:
            if name == "commit" and self.late:
                self.late = False
                return self._commit_late
            return super().__getattr__(name)

        async def _commit_late(self, change: Any) -> Any:
            await send(store, signed(claims(events={SESSION_REVOKED: {"event_timestamp": NOW - 3}})))
            return await store.commit(change)

    await send(Racing(store, -1, Conflict("x")))
    [revocation] = await items(store, "view/revocation/")
    assert revocation.before == NOW - 2
    assert [event.kind for event in await recorded(store)].count(EventKind.SIGNAL_ACCEPTED) == 2


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("held", [False, True])
async def test_a_death_at_any_step_loses_no_acknowledged_set_and_repeats_none(
    store: Store, after: bool, held: bool
) -> None:
    of = source(tenant="t-1")

    def next_set() -> bytes:
        return signed(claims(sub_id=TENANT)) if held else signed(claims())

    calls = FailingStore(store, -1, Killed())
    await send(calls, next_set(), of)
    steps = len(calls.calls)
    assert steps >= 4
    for step in range(steps):
        before = len(await recorded(store))
        data = next_set()
        with pytest.raises(Killed):
            await send(FailingStore(store, step, Killed(), after=after), data, of)
        taken = len(await recorded(store)) - before
        again = await send(store, data, of)  # the transmitter got no answer
        assert again.result is (Result.DUPLICATE if taken else Result.HELD if held else Result.ACCEPTED)
        assert (await send(store, data, of)).result is Result.DUPLICATE
        marks = [
            event for event in await recorded(store) if event.kind in (EventKind.SIGNAL_ACCEPTED, EventKind.SIGNAL_HELD)
        ]
        assert len(marks) == step + 2

"""Operators revoke and lift. Each change is one commit with its event; the same revocation twice is one item."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support.pki import ISSUER, NOW
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator import revocations as module
from zta_authz.administrator.access_events import Actor, read_event
from zta_authz.administrator.access_items import DUE, MAX_REASON
from zta_authz.administrator.due_steps import DueSteps
from zta_authz.administrator.operator_authorization import AuthorizedCaller
from zta_authz.administrator.revocations import COUNT, Revocations
from zta_authz.administrator.signals.changes import Draft as SignalDraft, put_items
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.view_items import REVOCATION, RevocationItem, wire_item
from zta_authz.model.access import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.access_events import AccessEvent
    from zta_authz.administrator.store.port import Committed, Store

CALLER = AuthorizedCaller(
    (Subject("https://login.example", "olga"),),
    cast("Any", None),
    Actor("", "https://login.example", "olga", "d1"),
    "p1",
)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await SqliteStore.open(str(tmp_path / "store.db"), clock=clock)
    await opened.epoch()
    yield opened
    await opened.close()


async def events(store: Store) -> list[AccessEvent]:
    return [read_event(event) for commit in await store.read_since(0) for event in commit.events]


async def kinds(store: Store) -> list[str]:
    return [str(event.kind) for event in await events(store)]


async def revoke(of: Revocations, value: str = "alice", **changed: Any) -> RevocationItem:
    arguments = {"what": "subject", "value": value, "issuer": ISSUER, "reason": "INC-1"} | changed
    return await of.revoke(CALLER, **arguments)


async def refusal(operation: Any) -> Refusal:
    with pytest.raises(OperationRefused) as refused:
        await operation
    return refused.value.refusal


async def signal_item(store: Store, until: float = NOW + 60) -> RevocationItem:
    item = RevocationItem(
        "set-" + "a" * 32, "subject", "bob", ISSUER, NOW, until, "session-revoked", "istio-system/idp jti j1", NOW
    )
    draft = SignalDraft()
    await put_items(store, draft, (item,), "j1")
    await store.commit(draft.change())
    return item


async def test_a_revocation_is_published_with_its_event_in_one_commit_before_the_answer(store: Store) -> None:
    settled: list[Committed] = []

    async def settle(committed: Committed) -> None:
        settled.append(committed)

    item = await revoke(Revocations(store, settle), what="email", value="Alice@Example.com", reason="INC-1 stolen")
    commits = await store.read_since(0)
    assert [commit.revision for commit in commits] == [one.revision for one in settled]
    assert item.key in commits[0].put
    assert (item.what, item.value, item.issuer, item.before, item.until) == ("email", "alice@example.com", ISSUER, 0, 0)
    assert (item.reason, item.source, item.created_at) == (
        "INC-1 stolen",
        "operator olga of https://login.example",
        NOW,
    )
    assert wire_item(item.key, commits[0].put[item.key])
    (event,) = await events(store)
    assert (event.kind, event.object.id, event.reason) == ("revocation.added", item.id, "INC-1 stolen")
    assert (event.actor, event.policy_digest, event.detail["value"]) == (CALLER.actor, "p1", "alice@example.com")


async def test_the_same_revocation_twice_is_one_item_with_both_reasons_and_the_later_times(store: Store) -> None:
    subject = Revocations(store)
    first = await revoke(subject, before=NOW - 60, until=NOW + 600)
    again = await revoke(subject, before=NOW - 30, until=NOW + 60, reason="INC-2")
    assert (again.id, again.before, again.until) == (first.id, NOW - 30, NOW + 600)
    assert again.reason == "INC-2; INC-1"
    assert (await revoke(subject, before=NOW - 90, until=0, reason="INC-1")).reason == "INC-2; INC-1"
    assert [item.until for item in await subject.list_revocations()] == [0.0]
    assert [event.reason for event in await events(store)] == ["INC-1", "INC-2", "INC-1"]
    assert await store.get(COUNT) is not None
    assert (await store.get(COUNT)).value == b"1"  # type: ignore[union-attr]


async def test_reasons_together_have_the_length_of_one(store: Store) -> None:
    subject = Revocations(store)
    for number in range(4):
        item = await revoke(subject, reason=f"{number}" * MAX_REASON)
    assert item.reason == "3" * MAX_REASON


async def test_a_person_may_be_locked_out_and_earlier_logins_revoked_each_for_itself(store: Store) -> None:
    subject = Revocations(store)
    earlier = await revoke(subject, before=NOW)
    locked = await revoke(subject, until=NOW + 3600)
    assert earlier.id != locked.id
    assert (await subject.lift(CALLER, locked.id, "back at work")) == locked
    assert await subject.list_revocations() == [earlier]


async def test_a_lifted_revocation_is_gone_with_its_end_and_its_event(store: Store) -> None:
    subject = Revocations(store)
    item = await revoke(subject, until=NOW + 60)
    assert len(await store.scan(DUE)) == 1
    assert await subject.lift(CALLER, item.id, "found again") == item
    assert await subject.list_revocations() == []
    assert await store.scan(DUE) == []
    assert (await store.get(COUNT)).value == b"0"  # type: ignore[union-attr]
    assert [(str(event.kind), event.reason) for event in await events(store)][1:] == [
        ("revocation.lifted", "found again")
    ]
    assert await refusal(subject.lift(CALLER, item.id, "again")) is Refusal.NOT_FOUND


async def test_a_revocation_of_a_signal_is_listed_and_lifted_and_not_counted(store: Store) -> None:
    item = await signal_item(store)
    subject = Revocations(store)
    assert await subject.list_revocations() == [item]
    assert await subject.lift(CALLER, item.id, "a mistake of the provider") == item
    assert await subject.list_revocations() == []
    assert await store.get(COUNT) is None
    assert (await events(store))[-1].detail["value"] == "bob"


@pytest.mark.parametrize(
    "revocation_id", ["", "op-1", "../grant/1", "op-" + "A" * 32, "op-" + "a" * 33, "op-" + "0" * 32, "x" * 600, "\n"]
)
async def test_what_was_never_revoked_can_not_be_lifted(store: Store, revocation_id: str) -> None:
    assert await refusal(Revocations(store).lift(CALLER, revocation_id, "x")) is Refusal.NOT_FOUND


async def test_a_revocation_ends_by_itself_and_its_end_is_recorded(store: Store, clock: Clock) -> None:
    subject, steps = Revocations(store), DueSteps(store)
    await revoke(subject, until=NOW + 60.0005)
    await signal_item(store, until=NOW + 90)
    kept = await revoke(subject, "carol")
    clock.now = NOW + 59
    await steps.do_due()
    assert len(await subject.list_revocations()) == 3
    clock.now = NOW + 61
    await steps.do_due()
    assert (await store.get(COUNT)).value == b"1"  # type: ignore[union-attr]
    clock.now = NOW + 90
    await steps.do_due()
    assert await subject.list_revocations() == [kept]
    assert (await kinds(store))[3:] == ["revocation.expired", "revocation.expired"]
    assert await store.scan(DUE) == []


async def test_a_revocation_that_was_prolonged_or_lifted_does_not_end_at_its_old_time(
    store: Store, clock: Clock
) -> None:
    subject, steps = Revocations(store), DueSteps(store)
    await revoke(subject, until=NOW + 60)
    prolonged = await revoke(subject, until=NOW + 600)
    lifted = await revoke(subject, "bob", until=NOW + 60)
    await subject.lift(CALLER, lifted.id, "x")
    again = await revoke(subject, "bob", until=NOW + 700)
    clock.now = NOW + 300
    await steps.do_due()
    assert {item.id for item in await subject.list_revocations()} == {prolonged.id, again.id}
    assert "revocation.expired" not in await kinds(store)
    assert len(await store.scan(DUE)) == 2


async def test_revocations_at_once_by_two_replicas_all_count(store: Store) -> None:
    replicas = Revocations(store), Revocations(store)
    await asyncio.gather(*(revoke(replicas[number % 2], f"user-{number % 20}") for number in range(40)))
    assert len(await replicas[0].list_revocations()) == 20
    assert (await store.get(COUNT)).value == b"20"  # type: ignore[union-attr]
    assert len(await events(store)) == 40


async def test_the_number_of_revocations_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REVOCATIONS", 2)
    subject = Revocations(store)
    first = await revoke(subject, "a")
    await revoke(subject, "b")
    assert await refusal(revoke(subject, "c")) is Refusal.TOO_MANY
    assert (await revoke(subject, "a", reason="INC-9")).id == first.id
    await subject.lift(CALLER, first.id, "x")
    await revoke(subject, "c")
    assert len(await store.scan(REVOCATION)) == 2


async def test_an_issuer_that_is_written_otherwise_than_in_tokens_is_refused(store: Store) -> None:
    subject = Revocations(store, issuers=lambda: (ISSUER, "spiffe://cluster.local"))
    for issuer in (ISSUER + "/", ISSUER.upper()):
        assert await refusal(revoke(subject, issuer=issuer)) is Refusal.INVALID
        assert await refusal(revoke(subject, issuer, what="issuer", issuer="")) is Refusal.INVALID
    await revoke(subject)
    await revoke(subject, issuer="https://of-another-decision-point.example")
    await revoke(subject, "laptop-1", what="device", issuer="default/fleet")
    await revoke(subject, "spiffe://cluster.local/ns/a", issuer="SPIFFE://Cluster.local")


async def test_the_number_of_prefixes_is_bounded_by_itself(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PREFIXES", 2)
    subject = Revocations(store)
    prefix = {"what": "spiffe-prefix", "issuer": ""}
    first = await revoke(subject, "spiffe://a/x/", **prefix)
    await revoke(subject, "spiffe://b/x/", until=NOW + 60, **prefix)
    assert await refusal(revoke(subject, "spiffe://c/x/", **prefix)) is Refusal.TOO_MANY
    await revoke(subject, "alice")
    await subject.lift(CALLER, first.id, "x")
    await revoke(subject, "spiffe://c/x/", **prefix)
    clock.now = NOW + 61
    await DueSteps(store).do_due()
    await revoke(subject, "spiffe://d/x/", **prefix)
    assert await refusal(revoke(subject, "spiffe://e/x/", **prefix)) is Refusal.TOO_MANY


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"reason": ""}, Refusal.REASON_REQUIRED),
        ({"reason": " "}, Refusal.REASON_REQUIRED),
        ({"reason": "a\nb"}, Refusal.INVALID),
        ({"reason": "\ud800"}, Refusal.INVALID),
        ({"reason": "x" * (MAX_REASON + 1)}, Refusal.INVALID),
        ({"before": NOW + 301}, Refusal.INVALID),
        ({"before": -1.0}, Refusal.INVALID),
        ({"before": float("nan")}, Refusal.INVALID),
        ({"before": float("inf")}, Refusal.INVALID),
        ({"until": NOW}, Refusal.INVALID),
        ({"until": -1.0}, Refusal.INVALID),
        ({"until": float("nan")}, Refusal.INVALID),
        ({"until": float("inf")}, Refusal.INVALID),
        ({"until": NOW + 11 * 366 * 86400}, Refusal.INVALID),
        ({"what": "certificate", "value": "0a", "issuer": "", "before": NOW}, Refusal.INVALID),
        ({"what": "device", "value": "a", "issuer": "", "before": NOW}, Refusal.INVALID),
        ({"what": "token", "before": NOW}, Refusal.INVALID),
        ({"what": "nobody"}, Refusal.INVALID),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    store: Store, changed: dict[str, Any], expected: Refusal
) -> None:
    assert await refusal(revoke(Revocations(store), **changed)) is expected
    assert (await store.head()).revision == 0

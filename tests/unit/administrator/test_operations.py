"""Operations of people: what happens to each while the access log can't be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.support.stores import SqlitePlace
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import Actor
from zta_authz.administrator.grants import Grants
from zta_authz.administrator.operations import Operations, Origin
from zta_authz.administrator.operator_authorization import AuthorizedCaller
from zta_authz.administrator.revocations import Revocations
from zta_authz.administrator.signals.held import HeldEvents
from zta_authz.model.access import Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from zta_authz.administrator.operator_authorization import Call, OperatorAuthorization
    from zta_authz.administrator.store.port import Store

ID = "0123456789abcdef"
OPERATOR = AuthorizedCaller((Subject(spiffe_id="spiffe://cluster.local/ops"),), cast("Any", None), Actor(), "")


class Door:
    """Authorizes everybody, unless it is closed, and remembers the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.closed = False

    def authorize(self, call: Call) -> AuthorizedCaller:
        """See `OperatorAuthorization`."""
        self.calls.append(f"{call.method} {call.path}")
        if self.closed:
            raise OperationRefused(Refusal.NOT_ALLOWED, "deny_policy")
        return OPERATOR


class Failing:
    """Operations on an empty store, and a log that fails."""

    def __init__(self, store: Store) -> None:
        self.failure = "No space left on device"
        self.door = Door()
        authorization = cast("OperatorAuthorization", self.door)
        grants, revocations, held = Grants(store, dict), Revocations(store), HeldEvents(store)
        self.operations = Operations(authorization, grants, revocations, held, lambda: self.failure)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    yield store
    await store.close()


@pytest.fixture
def failing(store: Store) -> Failing:
    return Failing(store)


async def refusal(operation: Awaitable[Any]) -> OperationRefused:
    with pytest.raises(OperationRefused) as caught:
        await operation
    return caught.value


def more_access(operations: Operations) -> list[Awaitable[Any]]:
    """The operations that give access, or prepare it."""
    who = Origin()
    return [
        operations.request_access(who, entitlement="default/db", duration=600, reason="INC-1"),
        operations.break_glass(who, entitlement="default/db", duration=600, reason="INC-1"),
        operations.approve_request(who, ID, scope_sha256="0" * 64),
        operations.lift_revocation(who, f"op-{'0' * 32}", reason="INC-1"),
    ]


async def test_nobody_gets_more_access_while_it_can_not_be_recorded(failing: Failing, store: Store) -> None:
    for operation in more_access(failing.operations):
        refused = await refusal(operation)
        assert refused.refusal is Refusal.UNAVAILABLE
        assert "access log" in str(refused)
    assert (await store.head()).revision == 0
    failing.failure = ""
    refusals = [(await refusal(operation)).refusal for operation in more_access(failing.operations)]
    assert refusals == [Refusal.NOT_ELIGIBLE] * 2 + [Refusal.NOT_FOUND] * 2, "each was tried"


async def test_access_is_taken_away_even_if_that_can_not_be_recorded_yet(failing: Failing, store: Store) -> None:
    operations, who = failing.operations, Origin()
    for operation in (
        operations.deny_request(who, ID),
        operations.withdraw_request(who, ID),
        operations.end_grant(who, ID),
        operations.revoke_grant(who, ID),
        operations.review_grant(who, ID, comment="seen"),
    ):
        assert (await refusal(operation)).refusal is Refusal.NOT_FOUND, "it was looked for"
    made = await operations.revoke(who, what="spiffe-id", value="spiffe://cluster.local/x", reason="stolen key")
    assert [item.id for item in (await operations.list_revocations(who)).items] == [made.id]
    assert len((await store.read_since(0))[-1].events) == 1


async def test_somebody_who_may_not_do_it_does_not_learn_the_state_of_the_log(failing: Failing) -> None:
    failing.door.closed = True
    for operation in more_access(failing.operations):
        assert (await refusal(operation)).refusal is Refusal.NOT_ALLOWED


async def test_each_operation_is_authorized_as_the_call_that_it_is(failing: Failing) -> None:
    failing.failure = ""
    for operation in more_access(failing.operations):
        await refusal(operation)
    await refusal(failing.operations.get_grant(Origin(), ID))
    await failing.operations.list_requests(Origin())
    assert failing.door.calls == [
        "POST /access/requests",
        "POST /access/break-glass",
        f"POST /access/requests/{ID}/approve",
        f"POST /revocations/op-{'0' * 32}/lift",
        f"GET /access/grants/{ID}",
        "GET /access/requests",
    ]


@pytest.mark.parametrize(
    "name", ["", "..", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef/approve", "%2e%2e"]
)
async def test_no_text_but_an_id_becomes_a_part_of_the_path(failing: Failing, name: str) -> None:
    for operation in (
        failing.operations.get_request(Origin(), name),
        failing.operations.deny_request(Origin(), name),
        failing.operations.lift_revocation(Origin(), name, reason="x"),
    ):
        assert (await refusal(operation)).refusal is Refusal.NOT_FOUND
    assert failing.door.calls == []

"""A request and a grant move only as the tables say; an approver counts once, and groups are filled if they can be."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from zta_authz.access.lifecycle import (
    GRANT_TRANSITIONS,
    REQUEST_TRANSITIONS,
    GrantState,
    OperationRefused,
    Refusal,
    RequestState,
    approvals_suffice,
    grant_state,
    move_grant,
    move_request,
    request_state,
    scope_digest,
)


def test_a_decided_request_is_never_decided_again() -> None:
    for state in RequestState:
        for to in RequestState:
            if state is RequestState.REQUESTED and to is not RequestState.REQUESTED:
                assert move_request(state, to) is to
                continue
            with pytest.raises(OperationRefused) as refused:
                move_request(state, to)
            assert refused.value.refusal is Refusal.ALREADY_DECIDED


def test_a_grant_that_is_over_stays_over() -> None:
    for state in (GrantState.EXPIRED, GrantState.REVOKED, GrantState.ENDED):
        for to in GrantState:
            with pytest.raises(OperationRefused):
                move_grant(state, to)
    assert move_grant(GrantState.SCHEDULED, GrantState.ACTIVE) is GrantState.ACTIVE
    assert move_grant(GrantState.ACTIVE, GrantState.REVOKED) is GrantState.REVOKED
    with pytest.raises(OperationRefused):
        move_grant(GrantState.SCHEDULED, GrantState.EXPIRED)


def test_the_tables_have_every_state() -> None:
    assert set(REQUEST_TRANSITIONS) == set(RequestState)
    assert set(GRANT_TRANSITIONS) == set(GrantState)


def test_a_grants_state_follows_from_the_time() -> None:
    for recorded in (GrantState.SCHEDULED, GrantState.ACTIVE):
        states = [grant_state(recorded, 10.0, 20.0, now) for now in (9.9, 10.0, 19.9, 20.0)]
        assert states == [GrantState.SCHEDULED, GrantState.ACTIVE, GrantState.ACTIVE, GrantState.EXPIRED]
    for recorded in (GrantState.REVOKED, GrantState.ENDED, GrantState.EXPIRED):
        assert {grant_state(recorded, 10.0, 20.0, now) for now in (9.9, 10.0, 20.0)} == {recorded}


def test_a_request_lapses_by_the_time() -> None:
    assert request_state(RequestState.REQUESTED, 10.0, 9.9) is RequestState.REQUESTED
    assert request_state(RequestState.REQUESTED, 10.0, 10.0) is RequestState.LAPSED
    assert request_state(RequestState.APPROVED, 10.0, 11.0) is RequestState.APPROVED


@pytest.mark.parametrize(
    ("needed", "approvals", "enough"),
    [
        ((1,), (), False),
        ((1,), ((0,),), True),
        ((1,), ((1,),), False),
        ((2,), ((0,),), False),
        ((2,), ((0,), (0,)), True),
        ((1, 1), ((0, 1),), False),
        ((1, 1), ((0, 1), (0,)), True),
        ((1, 1), ((0,), (0, 1)), True),
        ((1, 1), ((0,), (0,)), False),
        ((2, 1), ((0, 1), (0, 1), (0,)), True),
        ((), (), True),
    ],
)
def test_one_approver_counts_for_one_group(
    needed: tuple[int, ...], approvals: tuple[tuple[int, ...], ...], enough: bool
) -> None:
    assert approvals_suffice(needed, approvals) is enough


@given(
    st.lists(st.integers(1, 2), max_size=3),
    st.lists(st.lists(st.integers(0, 2), max_size=3, unique=True), max_size=5),
)
def test_groups_are_filled_exactly_if_some_distribution_fills_them(
    needed: list[int], approvals: list[list[int]]
) -> None:
    def fillable(left: tuple[int, ...], rest: tuple[tuple[int, ...], ...]) -> bool:
        if not any(left):
            return True
        if not rest:
            return False
        first, *others = rest
        choices = [left] + [
            tuple(count - (number == group) for number, count in enumerate(left))
            for group in first
            if group < len(left) and left[group]
        ]
        return any(fillable(choice, tuple(others)) for choice in choices)

    expected = fillable(tuple(needed), tuple(map(tuple, approvals)))
    assert approvals_suffice(needed, approvals) is expected


def test_the_digest_of_the_scope_changes_with_every_part() -> None:
    base = ("shop/db", ("ann",), 3600.0, 0.0, "INC-1", "d")
    changed = [("shop/other", *base[1:]), (base[0], ("bob",), *base[2:]), (*base[:2], 60.0, *base[3:])]
    changed += [(*base[:3], 1.0, *base[4:]), (*base[:4], "INC-2", base[5]), (*base[:5], "e")]
    digests = {scope_digest(*parts) for parts in (base, *changed)}
    assert len(digests) == 7
    assert all(len(digest) == 64 for digest in digests)

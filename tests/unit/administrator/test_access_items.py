"""Items of requests and grants: who counts as one person, and keys that no name can make collide."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from zta_authz.administrator.access_items import (
    DUE,
    Draft,
    GrantRecord,
    due_key,
    is_id,
    is_same_person,
    open_key,
    parse_due_key,
)
from zta_authz.administrator.store.port import check_change, check_key
from zta_authz.administrator.view_items import GrantItem, SubjectItem

ANN, BOB = SubjectItem("https://i", "ann"), SubjectItem("https://i", "bob")
OTHER_ANN = SubjectItem("https://j", "ann")
PAGE, CLI = SubjectItem(spiffe_id="spiffe://a/page"), SubjectItem(spiffe_id="spiffe://a/cli")

NAMES = st.builds(
    SubjectItem, st.sampled_from(["", "i", "ii"]), st.sampled_from(["", "s", "is"]), st.sampled_from(["", "p"])
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((ANN,), (ANN,), True),
        ((ANN, PAGE), (ANN, CLI), True),
        ((ANN,), (BOB,), False),
        ((ANN,), (OTHER_ANN,), False),
        ((ANN, PAGE), (BOB, PAGE), False),
        ((ANN, PAGE), (PAGE,), True),
        ((ANN, PAGE), (CLI,), False),
        ((PAGE,), (PAGE,), True),
        ((PAGE,), (CLI,), False),
    ],
)
def test_people_are_compared_by_their_tokens_and_otherwise_by_any_name(
    one: tuple[SubjectItem, ...], other: tuple[SubjectItem, ...], same: bool
) -> None:
    assert is_same_person(one, other) is same
    assert is_same_person(other, one) is same


@given(st.text("a/", max_size=4), NAMES, st.text("a/", max_size=4), NAMES)
def test_only_the_same_person_and_entitlement_share_what_is_open(
    entitlement: str, one: SubjectItem, another: str, other: SubjectItem
) -> None:
    keys = open_key(entitlement, one), open_key(another, other)
    assert (keys[0] == keys[1]) is ((entitlement, one) == (another, other))
    check_key(*keys)


def test_names_of_any_characters_have_a_key() -> None:
    check_key(open_key("\ud800", SubjectItem("\0", " " * 10_000, "ä")))


@given(st.floats(0.001, 4e9), st.floats(0.001, 4e9))
def test_due_keys_are_in_order_of_time_and_never_early(one: float, other: float) -> None:
    keys = due_key(one, "request", "0" * 16), due_key(other, "request", "0" * 16)
    assert (one < other) <= (keys[0] <= keys[1])
    at, kind, item_id = parse_due_key(keys[0])
    assert (kind, item_id) == ("request", "0" * 16)
    assert one <= at + 1e-6
    assert at < one + 0.002


@given(st.sampled_from([0.0, 10.0, 10.0002, 10.0004, 11.0]), st.sampled_from([0.0, 10.0, 10.0002, 10.0004, 11.0]))
def test_moving_a_due_time_by_less_than_a_key_can_tell_keeps_the_key(before: float, after: float) -> None:
    grant = GrantItem("0" * 16, "a/b", ANN, 1.0, 2.0)
    draft = Draft()
    draft.put_grant(GrantRecord(grant, (ANN,), after), GrantRecord(grant, (ANN,), before))
    check_change(draft.change())
    assert bool([key for key in draft.put if key.startswith(DUE)]) is bool(after)


@pytest.mark.parametrize(
    "text", ["", "0" * 15, "0" * 17, "G" * 16, "0" * 15 + "\n", "A" * 16, "\u0661" * 16, "../" * 6]
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert not is_id(text)
    assert is_id("0123456789abcdef")

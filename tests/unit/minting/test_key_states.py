"""The states of signing keys: published before they sign, and until their last token has expired."""

from __future__ import annotations

import json
from math import inf

import pytest

from tests.support.minting import signing_key
from zta_authz.minting.key_states import OVERLAP, KeyRing, KeyState, ScheduledKey

OLD, NEW, BRIEF = (signing_key("P-256", number) for number in range(3))


def states(ring: KeyRing, now: float) -> list[KeyState]:
    return list(ring.states(now).values())


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (0, [KeyState.CURRENT, KeyState.NEXT]),
        (999, [KeyState.CURRENT, KeyState.NEXT]),
        (1000, [KeyState.RETIRING, KeyState.CURRENT]),
        (1000 + OVERLAP - 1, [KeyState.RETIRING, KeyState.CURRENT]),
        (1000 + OVERLAP, [KeyState.RETIRED, KeyState.CURRENT]),
    ],
)
def test_a_key_is_published_before_it_signs_and_until_its_tokens_have_expired(
    now: float, expected: list[KeyState]
) -> None:
    ring = KeyRing([ScheduledKey(NEW, sign_from=1000), ScheduledKey(OLD)])
    assert states(ring, now) == expected
    published = [key["kid"] for key in json.loads(ring.published(now))["keys"]]
    assert published == [key_id for key_id, state in ring.states(now).items() if state is not KeyState.RETIRED]
    current = ring.current(now)
    assert current is not None
    assert ring.states(now)[current.key_id] is KeyState.CURRENT


def test_the_key_that_signs_changes_at_its_second_and_back_if_the_clock_goes_back() -> None:
    ring = KeyRing([ScheduledKey(OLD), ScheduledKey(NEW, 1000)])
    assert [ring.current(now) for now in (999.9, 1000.0, 5000.0, 999.9)] == [OLD, NEW, NEW, OLD]


def test_no_key_signs_before_the_first_and_after_the_last() -> None:
    ring = KeyRing([ScheduledKey(OLD, 100, 200), ScheduledKey(NEW, 300, 400)])
    assert [ring.current(now) for now in (99, 100, 199, 200, 300, 400)] == [None, OLD, OLD, None, NEW, None]
    assert ring.last_signature() == 400
    assert KeyRing().current(0) is None
    assert KeyRing().published(0) == b'{"keys":[]}'


def test_a_key_signs_again_after_a_brief_one() -> None:
    ring = KeyRing([ScheduledKey(OLD, 0, inf), ScheduledKey(BRIEF, 100, 200)])
    assert [ring.current(now) for now in (50, 150, 250)] == [OLD, BRIEF, OLD]
    assert states(ring, 150) == [KeyState.NEXT, KeyState.CURRENT]
    assert states(ring, 200 + OVERLAP) == [KeyState.CURRENT, KeyState.RETIRED]


def test_a_superseded_key_retires_although_it_has_no_end() -> None:
    ring = KeyRing([ScheduledKey(OLD), ScheduledKey(BRIEF, 100, 300), ScheduledKey(NEW, 200)])
    assert states(ring, 100 + OVERLAP) == [KeyState.RETIRED, KeyState.RETIRING, KeyState.CURRENT]

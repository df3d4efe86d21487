from __future__ import annotations

import pytest

from zta_authz.keys.refresh_schedule import Schedule, Timing

TIMING = Timing(refresh=300, min_refresh=10, max_refresh=86400, max_stale=3600, unknown_kid=30, retry=1, max_retry=60)


def late(_least: float, most: float) -> float:
    return most


def early(least: float, _most: float) -> float:
    return least


def due(jitter: object = late) -> Schedule:
    return Schedule(TIMING, 1000.0, jitter)  # type: ignore[arg-type]


def test_the_first_fetch_is_due_at_once_and_no_drop_is_scheduled() -> None:
    schedule = due()
    assert (schedule.next_at, schedule.drop_at) == (1000, None)


@pytest.mark.parametrize(
    ("stated", "lifetime"),
    [(None, 300), (600, 600), (0, 10), (9.9, 10), (86400, 86400), (2**31, 86400)],
)
def test_keys_are_fresh_for_the_stated_time_within_bounds(stated: float | None, lifetime: float) -> None:
    schedule = due()
    schedule.started(1000)
    schedule.succeeded(1001, stated)
    assert schedule.next_at == pytest.approx(1001 + 0.9 * lifetime)
    assert schedule.drop_at == 1001 + lifetime + 3600
    soonest = due(early)
    soonest.succeeded(1001, stated)
    assert soonest.next_at == pytest.approx(1001 + 0.75 * lifetime)


def test_failures_double_the_wait_up_to_a_limit_and_do_not_change_when_keys_expire() -> None:
    schedule = due()
    schedule.succeeded(1000, 100)
    waits = []
    for _ in range(9):
        schedule.failed(2000)
        waits.append(schedule.next_at - 2000)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert schedule.drop_at == 1000 + 100 + 3600
    schedule.succeeded(3000, 100)
    schedule.failed(3000)
    assert schedule.next_at == 3001


def test_a_thousand_failures_do_not_overflow_the_wait() -> None:
    schedule = due()
    for _ in range(5000):
        schedule.failed(2000)
    assert schedule.next_at == 2060


def test_an_unknown_key_causes_a_fetch_at_once_if_the_last_one_was_long_ago() -> None:
    schedule = due()
    schedule.started(1000)
    schedule.succeeded(1000, 600)
    schedule.key_unknown(1100)
    assert schedule.next_at == 1100


def test_unknown_keys_soon_after_a_fetch_wait_for_the_interval() -> None:
    schedule = due()
    schedule.started(1000)
    schedule.succeeded(1002, 600)
    for now in (1002, 1010, 1029):
        schedule.key_unknown(now)
    assert schedule.next_at == 1030


def test_an_unknown_key_never_postpones_a_fetch() -> None:
    schedule = due()
    schedule.started(1000)
    schedule.failed(1001)
    schedule.key_unknown(1001)
    assert schedule.next_at == 1002

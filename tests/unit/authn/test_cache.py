"""The cache keeps what is used and never more than it may."""

from __future__ import annotations

from zta_authz.authn.cache import BoundedCache


def test_what_is_put_in_comes_out_and_the_newest_value_counts() -> None:
    cache: BoundedCache[str, int] = BoundedCache(8)
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (2, None, 1)
    cache.discard("a")
    cache.discard("a")
    assert cache.get("a") is None


def test_it_never_holds_more_entries_than_it_may() -> None:
    cache: BoundedCache[int, int] = BoundedCache(8)
    for number in range(1000):
        cache.put(number, number)
        assert len(cache) <= 8
    assert cache.get(999) == 999


def test_an_entry_in_use_outlives_any_number_of_others() -> None:
    cache: BoundedCache[str, int] = BoundedCache(8)
    cache.put("used", 1)
    for number in range(1000):
        cache.put(str(number), number)
        assert cache.get("used") == 1


def test_weight_is_bounded_too_and_what_is_too_heavy_is_not_kept() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1000, max_weight=100)
    for number in range(100):
        cache.put(number, number, weight=20)
        assert len(cache) * 20 <= 100
    cache.put(-1, 0, weight=51)
    assert cache.get(-1) is None
    cache.put(99, 0, weight=51)
    assert cache.get(99) is None, "the value it replaced must not come back"


def test_forgetting_reaches_both_generations() -> None:
    cache: BoundedCache[int, int] = BoundedCache(4)
    for number in range(3):
        cache.put(number, number)
    for number in range(3):
        cache.discard(number)
    assert len(cache) == 0

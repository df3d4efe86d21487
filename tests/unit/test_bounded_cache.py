"""The cache keeps the entries in use, and stays within its limits."""

from __future__ import annotations

from zta_authz.bounded_cache import BoundedCache


def test_a_stored_value_is_returned_and_the_newest_one_counts() -> None:
    cache: BoundedCache[str, int] = BoundedCache(8)
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache["a"], cache["b"], len(cache)) == (2, None, 1)
    cache.discard("a")
    cache.discard("a")
    assert cache["a"] is None


def test_the_number_of_entries_is_limited() -> None:
    cache: BoundedCache[int, int] = BoundedCache(8)
    for number in range(1000):
        cache.put(number, number)
        assert len(cache) <= 8
    assert cache[999] == 999


def test_an_entry_in_use_outlives_any_number_of_others() -> None:
    cache: BoundedCache[str, int] = BoundedCache(8)
    cache.put("used", 1)
    for number in range(1000):
        cache.put(str(number), number)
        assert cache["used"] == 1


def test_the_weight_is_limited_and_a_value_that_is_too_heavy_is_not_stored() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1000, max_weight=100)
    for number in range(100):
        cache.put(number, number, weight=20)
        assert len(cache) * 20 <= 100
    cache.put(-1, 0, weight=51)
    assert cache[-1] is None
    cache.put(99, 0, weight=51)
    assert cache[99] is None, "the value it replaced must not come back"


def test_discarding_affects_both_generations() -> None:
    cache: BoundedCache[int, int] = BoundedCache(4)
    for number in range(3):
        cache.put(number, number)
    for number in range(3):
        cache.discard(number)
    assert len(cache) == 0


def test_get_reads_both_generations_as_the_subscript_does() -> None:
    cache: BoundedCache[str, int] = BoundedCache(4)
    cache.put("a", 1)
    for number in range(2):
        cache.put(str(number), number)
    assert dict.get(cache, "a") is None, "it is in the older generation"
    assert cache.get("a") == 1
    assert (cache.get("b"), cache.get("b", 7)) == (None, 7)


def test_an_entry_of_the_older_generation_keeps_its_weight() -> None:
    cache: BoundedCache[int, int] = BoundedCache(1000, max_weight=100)
    for number in range(1000):
        cache.put(number, number, weight=20)
        assert cache[max(0, number - 1)] is not None
        assert len(cache) * 20 <= 100


def test_clearing_empties_both_generations() -> None:
    cache: BoundedCache[int, int] = BoundedCache(4, max_weight=100)
    for number in range(3):
        cache.put(number, number, weight=40)
    cache.clear()
    assert (len(cache), cache[1], cache[2]) == (0, None, None)

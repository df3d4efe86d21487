"""A bounded cache for verification results: whatever is put in, at most so many entries and so much weight stay."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Two generations of entries: reading renews an entry, and the older generation goes when the younger is full.

    That is nearly least-recently-used at the price of one dictionary look-up, and nothing an outsider sends makes it
    hold more than `max_entries` entries or (about) `max_weight` of whatever unit the caller weighs in. `hits` and
    `misses` count what `get` found and did not.
    """

    __slots__ = ("_max_entries", "_max_weight", "_old", "_weight", "_young", "hits", "misses")

    def __init__(self, max_entries: int, max_weight: int = 0) -> None:
        """Hold `max_entries` entries in all; `max_weight` 0 means that weight does not matter."""
        self._max_entries = max(1, max_entries // 2)
        self._max_weight = max_weight // 2
        self._young: dict[K, tuple[V, int]] = {}
        self._old: dict[K, tuple[V, int]] = {}
        self._weight = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: K) -> V | None:
        """The value under `key`, None where there is none (any more)."""
        entry = self._young.get(key)
        if entry is not None:
            self.hits += 1
            return entry[0]
        entry = self._old.pop(key, None)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self.put(key, *entry)
        return entry[0]

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Keep `value` under `key`, or drop it if it alone weighs more than a generation may."""
        replaced = self._young.pop(key, None)
        if replaced is not None:
            self._weight -= replaced[1]
        if self._max_weight and weight > self._max_weight:
            return
        too_heavy = self._max_weight and self._weight + weight > self._max_weight
        if len(self._young) >= self._max_entries or too_heavy:
            self._old, self._young, self._weight = self._young, {}, 0
        self._young[key] = (value, weight)
        self._weight += weight

    def discard(self, key: K) -> None:
        """Forget `key`."""
        gone = self._young.pop(key, None)
        if gone is not None:
            self._weight -= gone[1]
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

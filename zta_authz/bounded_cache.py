"""The project's only cache class, limited in entries and in weight."""

from __future__ import annotations

from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, "V | None"]):
    """A cache of two generations: a read renews an entry, and the older generation is dropped when the younger is full.

    This approximates least-recently-used eviction. The cache never holds more than `max_entries` entries, nor a total
    weight above `max_weight`, in the owner's unit.

    `cache[key]` is the value or None. It reads the younger generation at the speed of a dictionary, and calls
    `__missing__` for the older one only if the key is missing. Each cache belongs to an owner that ends with a snapshot
    or a server: `docs/architecture.md` lists them. The owner counts `hits` and `misses`.
    """

    __slots__ = ("_max_entries", "_max_weight", "_old", "_old_weights", "_weight", "_weights", "hits", "misses")

    def __init__(self, max_entries: int, max_weight: int = 0) -> None:
        """Limit the cache to `max_entries` entries and `max_weight`; 0 is no limit of weight."""
        super().__init__()
        self._max_entries = max(1, max_entries // 2)
        self._max_weight = max_weight // 2
        self._old: dict[K, V | None] = {}
        self._weights: dict[K, int] = {}
        self._old_weights: dict[K, int] = {}
        self._weight = 0
        self.hits = 0
        self.misses = 0

    def __missing__(self, key: K) -> V | None:
        """Move the value from the older generation to the younger one and return it; None if absent."""
        value = self._old.pop(key, None)
        if value is not None:
            self.put(key, value, self._old_weights.pop(key, 0))
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """As `cache[key]`; the `get` of `dict` does not read the older generation."""
        value = self[key]
        return default if value is None else value

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Store `value` under `key`, unless it alone weighs more than a generation may."""
        self.discard(key)
        if self._max_weight and weight > self._max_weight:
            return
        too_heavy = self._max_weight and self._weight + weight > self._max_weight
        if super().__len__() >= self._max_entries or too_heavy:
            self._old, self._old_weights = self.copy(), self._weights
            super().clear()
            self._weights, self._weight = {}, 0
        self[key] = value
        if weight:
            self._weights[key] = weight
            self._weight += weight

    def discard(self, key: K) -> None:
        """Remove `key`."""
        if self.pop(key, None) is not None:
            self._weight -= self._weights.pop(key, 0)
        if self._old and self._old.pop(key, None) is not None:
            self._old_weights.pop(key, None)

    def clear(self) -> None:
        """Remove all entries."""
        super().clear()
        self._old, self._weights, self._old_weights, self._weight = {}, {}, {}, 0

    def __len__(self) -> int:
        return super().__len__() + len(self._old)

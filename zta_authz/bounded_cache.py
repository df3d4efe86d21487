"""The one cache of this project: at most so many entries, and so much weight, whatever is put in."""

from __future__ import annotations

from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, "V | None"]):
    """Two generations of entries: a read renews an entry, and the older generation goes when the younger is full.

    This is nearly least-recently-used. Nothing that an outsider sends makes it hold more than `max_entries` entries, or
    more than `max_weight` of the unit in which the owner weighs them.

    `cache[key]` is the value, or None. It reads the younger generation at the speed of a dictionary; only where that
    has no entry does `__missing__` look in the older one. Each cache has an owner, which ends with a snapshot or a
    server: `docs/architecture.md` lists all of them. `hits` and `misses` are the owner's to count.
    """

    __slots__ = ("_max_entries", "_max_weight", "_old", "_old_weights", "_weight", "_weights", "hits", "misses")

    def __init__(self, max_entries: int, max_weight: int = 0) -> None:
        """Hold `max_entries` entries in all; `max_weight` 0 means that weight does not matter."""
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
        """The value in the older generation, which moves to the younger one; else None."""
        value = self._old.pop(key, None)
        if value is not None:
            self.put(key, value, self._old_weights.pop(key, 0))
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """As `cache[key]`; a dictionary's own `get` would not look in the older generation."""
        value = self[key]
        return default if value is None else value

    def put(self, key: K, value: V, weight: int = 0) -> None:
        """Keep `value` under `key`, or drop it if it alone weighs more than a generation may."""
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
        """Forget `key`."""
        if self.pop(key, None) is not None:
            self._weight -= self._weights.pop(key, 0)
        if self._old and self._old.pop(key, None) is not None:
            self._old_weights.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._old, self._weights, self._old_weights, self._weight = {}, {}, {}, 0

    def __len__(self) -> int:
        return super().__len__() + len(self._old)

"""How much of the memory for used DPoP proofs one key may take: as many proofs as there is room left for others.

So one client alone fills half of the memory, two clients two thirds, and there is always room for the next one. Proofs
are counted, not listed: by the cell that their key falls into and by the time they were made, so that a count ends with
its proofs. Two keys in one cell share its count, and nobody can choose a cell who does not know how they are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

CELLS: Final = 16_384
BUCKET_SECONDS: Final = 16
_BUCKETS: Final = 8
"""128 seconds, and a proof counts for 90."""
_WIDTH: Final = CELLS + 2
"""Numbers of a bucket: which span of time it is for, all of its proofs, and those of each cell."""
SHARES_BYTES: Final = _BUCKETS * _WIDTH * 4


class KeyShares:
    """The counts of proofs, in memory that several processes may share.

    Nobody locks it: of two processes that count at once one may be forgotten, which makes a share a little larger.
    """

    __slots__ = ("_capacity", "_cell_of", "_numbers")

    def __init__(self, memory: memoryview, capacity: int, cell_of: Callable[[str], int]) -> None:
        """Count in `memory`, `SHARES_BYTES` long and zeros at first, of `capacity` proofs.

        `cell_of` draws a number for a thumbprint, the same in all processes.
        """
        self._numbers = memory.cast("I")
        self._capacity = capacity
        self._cell_of = cell_of

    def take(self, thumbprint: str, issued_at: float, seconds: float, now: float) -> None:
        """Count a proof that `thumbprint` made at `issued_at` and that counts for `seconds`.

        Raises `Refused`, and counts nothing, where the key's share is used up or there is no room at all.
        """
        numbers, cell = self._numbers, self._cell_of(thumbprint) % CELLS
        oldest, newest = int((now - seconds) // BUCKET_SECONDS), int(issued_at // BUCKET_SECONDS)
        mine = every = 0
        for start in range(0, len(numbers), _WIDTH):
            if numbers[start] >= oldest:
                every += numbers[start + 1]
                mine += numbers[start + 2 + cell]
        free = self._capacity - every
        if free <= 0:
            raise Refused(Reason.OVERLOADED, f"{self._capacity} DPoP proofs are remembered, and no more can be")
        if mine >= free:
            raise Refused(Reason.OVERLOADED, f"{mine} DPoP proofs of this key are remembered, and that is its share")
        start = newest % _BUCKETS * _WIDTH
        if numbers[start] != newest:
            numbers[start : start + _WIDTH] = _EMPTY
            numbers[start] = newest
        numbers[start + 1] += 1
        numbers[start + 2 + cell] += 1


_EMPTY: Final = memoryview(bytes(_WIDTH * 4)).cast("I")

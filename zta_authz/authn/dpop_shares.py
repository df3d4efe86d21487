"""Fair shares of the memory for used DPoP proofs: a key may use as many entries as are still free.

So one client alone fills half of the memory, two clients two thirds, and there is always space for the next one. Proofs
are counted by the cell that their key hashes to and by their time, so that a count expires with its proofs. Two keys in
one cell share its count. Nobody can aim for a cell without knowledge of the hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

CELLS: Final = 16_384
BUCKET_SECONDS: Final = 16
_BUCKETS: Final = 8
"""128 seconds in all; a proof is valid for 90."""
_WIDTH: Final = CELLS + 2
"""The numbers in a bucket: its span of time, the count of its proofs, and the count of each cell."""
SHARES_BYTES: Final = _BUCKETS * _WIDTH * 4


class KeyShares:
    """Counts of proofs, in memory that several processes may share.

    There is no lock. If two processes count at the same time, one count may be lost, and a share is a little larger.
    """

    __slots__ = ("_capacity", "_cell_of", "_numbers")

    def __init__(self, memory: memoryview, capacity: int, cell_of: Callable[[str], int]) -> None:
        """Use `memory`, which has `SHARES_BYTES` and starts as zeros, for shares of `capacity` proofs.

        `cell_of` hashes a thumbprint to a number, the same in all processes.
        """
        self._numbers = memory.cast("I")
        self._capacity = capacity
        self._cell_of = cell_of

    def count(self, thumbprint: str, issued_at: float, seconds: float, now: float) -> None:
        """Count a proof of `thumbprint` that was made at `issued_at` and is valid for `seconds`.

        Raises `Refused`, and counts nothing, if the key's share is used up or the memory is full.
        """
        numbers, cell = self._numbers, self._cell_of(thumbprint) % CELLS
        oldest, newest = int((now - seconds) // BUCKET_SECONDS), int(issued_at // BUCKET_SECONDS)
        used_by_key = used = 0
        for start in range(0, len(numbers), _WIDTH):
            if numbers[start] >= oldest:
                used += numbers[start + 1]
                used_by_key += numbers[start + 2 + cell]
        free = self._capacity - used
        if free <= 0:
            raise Refused(Reason.OVERLOADED, f"the memory for {self._capacity} used DPoP proofs is full")
        if used_by_key >= free:
            raise Refused(
                Reason.OVERLOADED, f"{used_by_key} used DPoP proofs of this key are remembered, which is its full share"
            )
        start = newest % _BUCKETS * _WIDTH
        if numbers[start] != newest:
            numbers[start : start + _WIDTH] = _EMPTY
            numbers[start] = newest
        numbers[start + 1] += 1
        numbers[start + 2 + cell] += 1


_EMPTY: Final = memoryview(bytes(_WIDTH * 4)).cast("I")

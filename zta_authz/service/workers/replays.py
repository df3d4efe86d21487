"""Which DPoP proofs were used, for all workers of a supervisor: one table in memory that each of them maps.

The supervisor makes it and keeps it, so it outlives every worker, and a proof that one of them took counts nowhere
else (RFC 9449, section 11.1). Nothing of it reaches a disk.

The table is a header, buckets of `WAYS` places, and counts of the places that each key has (`authn.dpop_shares`). A
proof has one bucket. A bucket is read and written under a POSIX lock on its first byte, which the kernel takes from a
process that dies. Such locks are a process's, and gone as soon as it closes any descriptor of the file: each has one
and keeps it, and its threads take a lock of their own first.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
import tempfile
import threading
import time
from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING, Final

from zta_authz.authn.dpop import NAME_BYTES, WINDOW_SECONDS, proof_name
from zta_authz.authn.dpop_shares import SHARES_BYTES, KeyShares
from zta_authz.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.authn.dpop import Proof

WAYS: Final = 64
BUCKETS: Final = 8192
"""Places for 524,288 proofs, of which half are used: so no bucket is full. 12.6 MB, of which counts what is used."""
LOCK_SECONDS = 0.02
"""How long a bucket is waited for: whoever has it needs microseconds, unless it was stopped in between."""

_MAGIC: Final = b"ztadpop2"  # another layout has another number
_KEY_BYTES: Final = 32
_HEADER_BYTES: Final = 64
_ENDS: Final = Struct(f"<{WAYS}d")  # until when each place is taken, seconds since the epoch
_END: Final = Struct("<d")
_BUCKET_BYTES: Final = _ENDS.size + WAYS * NAME_BYTES
_PAUSE_SECONDS: Final = 0.0002


def new_table(buckets: int = BUCKETS) -> int:
    """An empty table; its descriptor, which is passed on to workers."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("zta-dpop-proofs")
    else:
        with tempfile.TemporaryFile() as file:  # has no name
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _HEADER_BYTES + buckets * _BUCKET_BYTES + SHARES_BYTES)
    os.pwrite(descriptor, _MAGIC + secrets.token_bytes(_KEY_BYTES), 0)
    return descriptor


class SharedReplays:
    """As `authn.dpop.ReplayMemory`, in the table that `new_table` made. One object in a process."""

    __slots__ = ("_buckets", "_descriptor", "_key", "_map", "_mine", "_shares")

    def __init__(self, descriptor: int) -> None:
        """Take over the descriptor. Raises ValueError for what is no table of this version's."""
        self._map = mmap.mmap(descriptor, 0)
        self._buckets, rest = divmod(len(self._map) - _HEADER_BYTES - SHARES_BYTES, _BUCKET_BYTES)
        if self._map[: len(_MAGIC)] != _MAGIC or self._buckets < 1 or rest:
            raise ValueError("not a table of used DPoP proofs, or of another version")
        self._key = self._map[len(_MAGIC) : len(_MAGIC) + _KEY_BYTES]
        self._descriptor = descriptor
        self._mine = threading.Lock()
        counts = memoryview(self._map)[-SHARES_BYTES:]
        self._shares = KeyShares(counts, self._buckets * WAYS // 2, self._draw)

    def remember(self, proof: Proof, now: float) -> None:
        """Note that `proof` was used at `now`. Raises `Refused` where it was before, or where there is no room left.

        Where the process dies in between, the proof may be refused when it is presented again; it is never forgotten.
        """
        name = proof_name(proof)
        start = self._bucket(name)
        names = start + _ENDS.size
        with self._locked(start):
            ends = _ENDS.unpack_from(self._map, start)
            place = self._find(name, names)
            if place is not None and ends[place] >= now:
                raise Refused(Reason.DPOP_REPLAYED, "the proof was used before")
            if place is None:
                place = next((number for number, end in enumerate(ends) if end < now), None)
            if place is None:
                raise Refused(Reason.OVERLOADED, "no more DPoP proofs can be remembered")
            self._shares.take(proof.thumbprint, proof.issued_at, WINDOW_SECONDS, now)
            # first what keeps others out of the place: were we to die then, it is only taken in vain
            _END.pack_into(self._map, start + place * _END.size, proof.issued_at + WINDOW_SECONDS)
            at = names + place * NAME_BYTES
            self._map[at : at + NAME_BYTES] = name

    def _bucket(self, name: bytes) -> int:
        """Where its bucket begins: by a key that nobody knows, so that nobody can choose proofs that fill one."""
        return _HEADER_BYTES + self._drawn(name) % self._buckets * _BUCKET_BYTES

    def _draw(self, thumbprint: str) -> int:
        return self._drawn(thumbprint.encode())

    def _drawn(self, content: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(content, key=self._key, digest_size=8).digest(), "little")

    def _find(self, name: bytes, names: int) -> int | None:
        """Its place in the bucket whose names begin at `names`."""
        found = names - 1
        while (found := self._map.find(name, found + 1, names + WAYS * NAME_BYTES)) >= 0:
            place, rest = divmod(found - names, NAME_BYTES)
            if not rest:
                return place
        return None

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        """Have the bucket alone. Raises `Refused` where that takes too long."""
        until = time.monotonic() + LOCK_SECONDS
        with self._mine:
            while True:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
                    break
                except (BlockingIOError, PermissionError):  # either may be said (fcntl(2))
                    if time.monotonic() >= until:
                        raise Refused(Reason.OVERLOADED, "used DPoP proofs can't be looked up") from None
                    time.sleep(_PAUSE_SECONDS)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, start)

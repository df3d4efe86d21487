"""The used DPoP proofs of all workers of a supervisor, in one table in shared memory.

The supervisor creates and keeps the table, so it outlives every worker, and a proof used at one worker is refused by
all (RFC 9449, section 11.1). Nothing is written to disk.

The table has a header, buckets of `WAYS` slots, and counts of the slots used by each key (`authn.dpop_shares`). Each
proof belongs to one bucket. A bucket is read and written under a POSIX lock on its first byte, which the kernel
releases if the process dies. A process loses such locks when it closes any descriptor of the file, so each process
keeps a single one, and its threads first take a lock of their own.
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
"""Slots for 524,288 proofs, half of which are used, so that no bucket fills up. 12.6 MB, allocated as it is used."""
LOCK_SECONDS = 0.02
"""How long to wait for a bucket. Its holder needs microseconds unless it was stopped meanwhile."""

_MAGIC: Final = b"ztadpop2"  # each layout has its own number
_KEY_BYTES: Final = 32
_HEADER_BYTES: Final = 64
_ENDS: Final = Struct(f"<{WAYS}d")  # expiry of each slot, epoch seconds
_END: Final = Struct("<d")
_BUCKET_BYTES: Final = _ENDS.size + WAYS * NAME_BYTES
_PAUSE_SECONDS: Final = 0.0002


def new_table(buckets: int = BUCKETS) -> int:
    """Create an empty table and return its descriptor, which workers inherit."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("zta-dpop-proofs")
    else:
        with tempfile.TemporaryFile() as file:  # has no name
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _HEADER_BYTES + buckets * _BUCKET_BYTES + SHARES_BYTES)
    os.pwrite(descriptor, _MAGIC + secrets.token_bytes(_KEY_BYTES), 0)
    return descriptor


class SharedReplays:
    """Like `authn.dpop.ReplayMemory`, in the table from `new_table`. Create one per process."""

    __slots__ = ("_buckets", "_descriptor", "_key", "_map", "_shares", "_thread_lock")

    def __init__(self, descriptor: int) -> None:
        """Take ownership of the descriptor. Raises ValueError if it is not a table of this version."""
        self._map = mmap.mmap(descriptor, 0)
        self._buckets, rest = divmod(len(self._map) - _HEADER_BYTES - SHARES_BYTES, _BUCKET_BYTES)
        if self._map[: len(_MAGIC)] != _MAGIC or self._buckets < 1 or rest:
            raise ValueError("not a table of used DPoP proofs of this version")
        self._key = self._map[len(_MAGIC) : len(_MAGIC) + _KEY_BYTES]
        self._descriptor = descriptor
        self._thread_lock = threading.Lock()
        counts = memoryview(self._map)[-SHARES_BYTES:]
        self._shares = KeyShares(counts, self._buckets * WAYS // 2, self._keyed_hash_of)

    def remember(self, proof: Proof, now: float) -> None:
        """Record `proof` as used at `now`. Raises `Refused` if it was used before or no slot is free.

        If the process dies midway, the proof may be refused when presented again; a used proof is never
        forgotten.
        """
        name = proof_name(proof)
        start = self._bucket(name)
        names = start + _ENDS.size
        with self._locked(start):
            ends = _ENDS.unpack_from(self._map, start)
            slot = self._find(name, names)
            if slot is not None and ends[slot] >= now:
                raise Refused(Reason.DPOP_REPLAYED, "the proof was used before")
            if slot is None:
                slot = next((number for number, end in enumerate(ends) if end < now), None)
            if slot is None:
                raise Refused(Reason.OVERLOADED, "no more DPoP proofs can be remembered")
            self._shares.count(proof.thumbprint, proof.issued_at, WINDOW_SECONDS, now)
            # the expiry first: if we die in between, the slot is merely wasted
            _END.pack_into(self._map, start + slot * _END.size, proof.issued_at + WINDOW_SECONDS)
            at = names + slot * NAME_BYTES
            self._map[at : at + NAME_BYTES] = name

    def _bucket(self, name: bytes) -> int:
        """Return the offset of the bucket of `name`.

        It depends on a secret key, so that nobody can choose proofs that fill one bucket.
        """
        return _HEADER_BYTES + self._keyed_hash(name) % self._buckets * _BUCKET_BYTES

    def _keyed_hash_of(self, thumbprint: str) -> int:
        return self._keyed_hash(thumbprint.encode())

    def _keyed_hash(self, content: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(content, key=self._key, digest_size=8).digest(), "little")

    def _find(self, name: bytes, names: int) -> int | None:
        """Return the slot of `name` in the bucket whose names begin at `names`."""
        offset = names - 1
        while (offset := self._map.find(name, offset + 1, names + WAYS * NAME_BYTES)) >= 0:
            slot, rest = divmod(offset - names, NAME_BYTES)
            if not rest:
                return slot
        return None

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        """Lock the bucket. Raises `Refused` if that takes too long."""
        deadline = time.monotonic() + LOCK_SECONDS
        with self._thread_lock:
            while True:
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
                    break
                except (BlockingIOError, PermissionError):  # fcntl(2) permits either
                    if time.monotonic() >= deadline:
                        raise Refused(Reason.OVERLOADED, "used DPoP proofs can't be looked up") from None
                    time.sleep(_PAUSE_SECONDS)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, start)

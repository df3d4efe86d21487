"""How both stores encode an entry of the stream. A checksum finds data that was damaged, not data that was forged."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from zta_authz.administrator.store.port import Commit, StoreUnavailable

if TYPE_CHECKING:
    from zta_authz.administrator.store.port import Change

CHECKSUM_BYTES: Final = 8
PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page of items or commits ends after so many bytes."""
_EPOCH_BYTES: Final = 16


class _Entry(msgspec.Struct, array_like=True, frozen=True):
    events: tuple[bytes, ...]
    put: dict[str, bytes]
    deleted: tuple[str, ...]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Entry).decode


def encode_entry(change: Change) -> bytes:
    """Encode what a change does, without its revision and time."""
    return _encode(_Entry(tuple(change.events), dict(change.put), tuple(change.delete)))


def decode_entry(revision: int, time: float, data: bytes) -> Commit:
    """Decode an entry of the stream. Raises `StoreUnavailable` if it is damaged."""
    try:
        entry = _decode(data)
    except msgspec.MsgspecError as error:
        raise damaged(f"commit {revision}") from error
    return Commit(revision, time, entry.events, entry.put, entry.deleted)


def checksum(*parts: str | int | float | bytes) -> bytes:
    """Return the checksum of a row."""
    state = blake2b(digest_size=CHECKSUM_BYTES)
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        state.update(b"%d:" % len(data))
        state.update(data)
    return state.digest()


def new_epoch() -> str:
    """Return a random epoch: 32 hexadecimal digits."""
    return secrets.token_hex(_EPOCH_BYTES)


def damaged(what: str) -> StoreUnavailable:
    """Return the error for data that is not what was written."""
    return StoreUnavailable(f"the store is damaged: {what} is not what was written; restore a backup")

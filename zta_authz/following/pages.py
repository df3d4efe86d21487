"""Updates of a view in pages: small enough that a decision point applies one between two decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz._proto.administrator_pb2 import ViewUpdate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Entry = tuple[str, bytes | None]
"""An item's key and its serialized `Item`, None for one that is removed."""

PAGE_ITEMS: Final = 64
PAGE_BYTES: Final = 128 * 1024
_PUT_TAG: Final = bytes((ViewUpdate.PUT_FIELD_NUMBER << 3 | 2,))


def pages(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Split `entries` into pages of at most `PAGE_ITEMS` and about `PAGE_BYTES`."""
    start = size = 0
    for number, (key, value) in enumerate(entries):
        more = len(key) if value is None else len(value)
        if number > start and (number - start == PAGE_ITEMS or size + more > PAGE_BYTES):
            yield entries[start:number]
            start, size = number, 0
        size += more
    if entries:
        yield entries[start:]


def serialized(update: ViewUpdate, page: Iterable[Entry]) -> bytes:
    """Serialize `update` with the entries of `page`: concatenated messages are merged by protobuf."""
    parts: list[bytes] = []
    for key, value in page:
        if value is None:
            update.removed.append(key)
        else:
            parts += (_PUT_TAG, _varint(len(value)), value)
    return b"".join((update.SerializeToString(), *parts))


def _varint(number: int) -> bytes:
    """Encode a length as protobuf does (base 128, the lowest group first)."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

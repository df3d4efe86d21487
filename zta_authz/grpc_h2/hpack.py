"""Header blocks to fields: an HPACK decoder (RFC 7541) with bounded work and memory.

Fields are text, one character a byte (Latin-1), so that sizes are the RFC's.

What a proxy's client chose may be among the fields (`tracestate`), and a client must not be able to make a call fail.
So a field past a bound is left out, and the rest is read as if it had not been there: one with a string that the
dynamic table has no room for, whose string is not decoded either, and those past the list's bound, but for the names
that the protocol needs. Only a block that costs more than any proxy's does ends the connection.

There is no encoder: what we send are constants that use no dynamic table (`messages`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpack.table import HeaderTable

from zta_authz.grpc_h2 import huffman
from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection

Field = tuple[str, str]
"""Name and value."""

FIELD_OVERHEAD_BYTES: Final = 32
_MAX_INTEGER_OCTETS: Final = 5  # after the prefix: 2^35, far past any length or index that can be meant
_MAX_SIZE_UPDATES: Final = 2  # an encoder has reason for two at most: the smallest size, then the last (section 4.2)
_MOST_FIELDS: Final = 4096
"""A block with more is an attack: one-byte references cost the peer nothing."""
_MOST_CODED_BYTES: Final = 32 * 1024
"""Huffman strings of one block past that many bytes, together, are not decoded: each byte costs some 70 ns."""
_KEPT_STRINGS: Final = 64
_KEPT_STRING_BYTES: Final = 128

_STATIC: Final[tuple[Field, ...]] = (
    ("", ""),  # there is no index 0
    *((name.decode("latin-1"), value.decode("latin-1")) for name, value in HeaderTable.STATIC_TABLE),
)
_DYNAMIC: Final = len(_STATIC)


def _wrong(what: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, what)


class Decoder:
    """One connection's decoding state.

    `version` changes with the dynamic table: the same block decodes to the same fields while it is the same.
    """

    __slots__ = (
        "_coded",
        "_limit",
        "_list_limit",
        "_needed",
        "_size",
        "_strings",
        "_table",
        "_table_limit",
        "version",
    )

    def __init__(self, table_bytes: int, list_bytes: int, needed: Collection[str] = ()) -> None:
        """`table_bytes` bounds the dynamic table and each string, `list_bytes` a list but for the `needed` names."""
        self._table: list[Field] = []  # the newest first
        self._size = 0
        self._limit = self._table_limit = table_bytes
        self._list_limit = list_bytes
        self._needed = frozenset(needed)
        self._coded = 0
        self._strings: dict[bytes, str] = {}
        self.version = 0

    def decode(self, block: bytes) -> list[Field]:
        """The fields in order, without those past a bound. Raises `ConnectionFault` for a malformed or costly block."""
        fields: list[Field] = []
        room, left = self._list_limit, _MOST_FIELDS
        self._coded = 0
        at, end = self._size_updates(block), len(block)
        field: Field | None
        while at < end:
            left -= 1
            if left < 0:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many fields in a header block")
            byte = block[at]
            if byte & 0x80:
                index, at = (byte & 0x7F, at + 1) if byte != 0xFF else _integer(block, at, 0x7F)
                field = self._at(index)
            elif byte & 0x40:
                field, at = self._literal(block, at, 0x3F, kept=True)
                self._add(field)
            elif byte & 0x20:
                raise _wrong("a table size update after a field")
            else:
                field, at = self._literal(block, at, 0x0F, kept=False)
            if field is None:
                continue
            room -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
            if room >= 0 or field[0] in self._needed:
                fields.append(field)
        return fields

    def _size_updates(self, block: bytes) -> int:
        """Apply the table size updates that begin `block`; where the fields begin."""
        at = updates = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size, at = _integer(block, at, 0x1F)
            updates += 1
            if size > self._table_limit or updates > _MAX_SIZE_UPDATES:
                raise _wrong("a table size that we did not offer")
            self._limit = size
            self._evict(size)
            self.version += 1
        return at

    def _at(self, index: int) -> Field:
        if 0 < index < _DYNAMIC:
            return _STATIC[index]
        if index >= _DYNAMIC and index - _DYNAMIC < len(self._table):
            return self._table[index - _DYNAMIC]
        raise _wrong("an index without an entry")

    def _literal(self, block: bytes, at: int, mask: int, *, kept: bool) -> tuple[Field | None, int]:
        """The field, None if it is left out, and where it ends. `kept`: the table takes it, if it has room."""
        index, at = _integer(block, at, mask)
        name: str | None
        if index:
            name = self._at(index)[0]
        else:
            name, at = self._string(block, at, kept=kept)
        value, at = self._string(block, at, kept=kept)
        return (None if name is None or value is None else (name, value)), at

    def _string(self, block: bytes, at: int, *, kept: bool) -> tuple[str | None, int]:
        """The string, None if it is left out, and where it ends."""
        if at >= len(block):
            raise _wrong("a truncated field")
        coded = block[at] & 0x80
        length, at = _integer(block, at, 0x7F)
        stop = at + length
        if stop > len(block):
            raise _wrong("a truncated string")
        if length > (huffman.MOST_CODED * self._table_limit if coded else self._table_limit):
            return None, stop
        raw = block[at:stop]
        if not coded:
            return raw.decode("latin-1"), stop
        return self._strings.get(raw) or self._huffman(raw, kept=kept), stop

    def _huffman(self, raw: bytes, *, kept: bool) -> str | None:
        """Huffman strings repeat (paths, authorities); the last few short ones are kept."""
        self._coded += len(raw)
        if self._coded > _MOST_CODED_BYTES:
            if not kept:
                return None
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too much Huffman coding for the header table")
        decoded = huffman.decode(raw, self._table_limit)
        if decoded is None:
            return None
        text = decoded.decode("latin-1")
        if len(raw) <= _KEPT_STRING_BYTES:
            if len(self._strings) >= _KEPT_STRINGS:
                self._strings.clear()
            self._strings[raw] = text
        return text

    def _add(self, field: Field | None) -> None:
        """Make `field` the newest entry. One that is larger than the table empties it; those left out are."""
        self.version += 1
        if field is None:
            self._evict(0)
            return
        size = len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
        self._evict(self._limit - size)
        if size <= self._limit:
            self._table.insert(0, field)
            self._size += size

    def _evict(self, room: int) -> None:
        """Drop the oldest until the table has at most `room` bytes."""
        while self._table and self._size > room:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + FIELD_OVERHEAD_BYTES


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A prefixed integer (section 5.1) and where it ends."""
    value = block[at] & mask
    at += 1
    if value != mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER_OCTETS, 7):
        if at >= len(block):
            raise _wrong("a truncated integer")
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _wrong("an integer that is too long")

"""An HPACK decoder (RFC 7541) with bounded work and memory.

Fields are text, one character for each byte (Latin-1), so that lengths are those of the RFC.

A proxy copies some fields from its client (`tracestate`), and a client must not be able to make a call fail. So a field
above a limit is dropped, and the other fields are read as if it were absent. The limits: a string must fit the dynamic
table (a longer one is not decoded), and fields after the list's limit are dropped unless the protocol needs them. Only
a block that costs more than any proxy's ends the connection.

There is no encoder: the blocks that we send are constants that don't use the dynamic table (`messages`).
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
_MAX_INTEGER_OCTETS: Final = 5  # after the prefix: 2^35, far above any useful length or index
_MAX_SIZE_UPDATES: Final = 2  # an encoder needs at most two: the smallest size, then the final one (section 4.2)
_MAX_FIELDS: Final = 4096
"""A block with more is an attack: a one-byte reference costs the peer nothing."""
_MAX_CODED_BYTES: Final = 32 * 1024
"""The limit of Huffman-coded bytes that are decoded in one block: each byte costs some 70 ns."""
_CACHED_STRINGS: Final = 64
_CACHED_STRING_BYTES: Final = 128

_STATIC: Final[tuple[Field, ...]] = (
    ("", ""),  # index 0 is invalid
    *((name.decode("latin-1"), value.decode("latin-1")) for name, value in HeaderTable.STATIC_TABLE),
)
_DYNAMIC: Final = len(_STATIC)


def _compression_error(message: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, message)


class Decoder:
    """One connection's decoding state.

    `version` changes with the dynamic table. While it is the same, an equal block decodes to equal fields.
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
        """`table_bytes` limits the dynamic table and each string, `list_bytes` the fields except the `needed` names."""
        self._table: list[Field] = []  # newest first
        self._size = 0
        self._limit = self._table_limit = table_bytes
        self._list_limit = list_bytes
        self._needed = frozenset(needed)
        self._coded = 0
        self._strings: dict[bytes, str] = {}
        self.version = 0

    def decode(self, block: bytes) -> list[Field]:
        """Decode the fields in order. Raises `ConnectionFault` for a malformed or costly block."""
        fields: list[Field] = []
        list_bytes_left, fields_left = self._list_limit, _MAX_FIELDS
        self._coded = 0
        at, end = self._size_updates(block), len(block)
        field: Field | None
        while at < end:
            fields_left -= 1
            if fields_left < 0:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many fields in a header block")
            byte = block[at]
            if byte & 0x80:
                index, at = (byte & 0x7F, at + 1) if byte != 0xFF else _integer(block, at, 0x7F)
                field = self._entry(index)
            elif byte & 0x40:
                field, at = self._literal(block, at, 0x3F, indexed=True)
                self._add(field)
            elif byte & 0x20:
                raise _compression_error("a table size update after a field")
            else:
                field, at = self._literal(block, at, 0x0F, indexed=False)
            if field is None:
                continue
            list_bytes_left -= len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
            if list_bytes_left >= 0 or field[0] in self._needed:
                fields.append(field)
        return fields

    def _size_updates(self, block: bytes) -> int:
        """Apply the table size updates at the start of `block`; return where the fields begin."""
        at = updates = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size, at = _integer(block, at, 0x1F)
            updates += 1
            if size > self._table_limit or updates > _MAX_SIZE_UPDATES:
                raise _compression_error("a table size that we did not offer")
            self._limit = size
            self._evict(size)
            self.version += 1
        return at

    def _entry(self, index: int) -> Field:
        if 0 < index < _DYNAMIC:
            return _STATIC[index]
        if index >= _DYNAMIC and index - _DYNAMIC < len(self._table):
            return self._table[index - _DYNAMIC]
        raise _compression_error("an index without an entry")

    def _literal(self, block: bytes, at: int, mask: int, *, indexed: bool) -> tuple[Field | None, int]:
        """Return the field, None if it is dropped, and where it ends. `indexed`: it enters the table if it fits."""
        index, at = _integer(block, at, mask)
        name: str | None
        if index:
            name = self._entry(index)[0]
        else:
            name, at = self._string(block, at, indexed=indexed)
        value, at = self._string(block, at, indexed=indexed)
        return (None if name is None or value is None else (name, value)), at

    def _string(self, block: bytes, at: int, *, indexed: bool) -> tuple[str | None, int]:
        """Return the string, None if it is dropped, and where it ends."""
        if at >= len(block):
            raise _compression_error("a truncated field")
        coded = block[at] & 0x80
        length, at = _integer(block, at, 0x7F)
        stop = at + length
        if stop > len(block):
            raise _compression_error("a truncated string")
        if length > (huffman.MAX_EXPANSION * self._table_limit if coded else self._table_limit):
            return None, stop
        raw = block[at:stop]
        if not coded:
            return raw.decode("latin-1"), stop
        return self._strings.get(raw) or self._huffman(raw, indexed=indexed), stop

    def _huffman(self, raw: bytes, *, indexed: bool) -> str | None:
        """Decode a Huffman string. Short ones are cached, because paths and authorities repeat."""
        self._coded += len(raw)
        if self._coded > _MAX_CODED_BYTES:
            if not indexed:
                return None
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too much Huffman coding for the header table")
        decoded = huffman.decode(raw, self._table_limit)
        if decoded is None:
            return None
        text = decoded.decode("latin-1")
        if len(raw) <= _CACHED_STRING_BYTES:
            if len(self._strings) >= _CACHED_STRINGS:
                self._strings.clear()
            self._strings[raw] = text
        return text

    def _add(self, field: Field | None) -> None:
        """Make `field` the newest entry. One larger than the table empties it, and dropped fields are larger."""
        self.version += 1
        if field is None:
            self._evict(0)
            return
        size = len(field[0]) + len(field[1]) + FIELD_OVERHEAD_BYTES
        self._evict(self._limit - size)
        if size <= self._limit:
            self._table.insert(0, field)
            self._size += size

    def _evict(self, max_bytes: int) -> None:
        """Evict the oldest entries until the table has at most `max_bytes`."""
        while self._table and self._size > max_bytes:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + FIELD_OVERHEAD_BYTES


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Decode a prefixed integer (section 5.1); return it and where it ends."""
    value = block[at] & mask
    at += 1
    if value != mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER_OCTETS, 7):
        if at >= len(block):
            raise _compression_error("a truncated integer")
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _compression_error("an integer that is too long")

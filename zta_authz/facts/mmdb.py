"""A reader of the MaxMind DB format (mmdb): no byte of a file can crash it, and each look-up is bounded in cost.

The C reader of `maxminddb` 3.2 takes any value for the text of a map's key: a damaged file makes it read memory at an
address that the file gives. A file of facts can be damaged on its way, so it is read in Python here. Records are kept
by their place, so a usual look-up is a walk of at most 128 steps in the tree.
Source: MaxMind DB File Format Specification, version 2.0.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from zta_authz.bounded_cache import BoundedCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.addresses import Ip

MAX_KEPT_RECORDS: Final = 4096
MAX_VALUES: Final = 2048
"""Values in one record, keys included, counted each time that a pointer leads to them. Large real records have 300."""
MAX_TEXT: Final = 65_536
"""Bytes of texts in one record, counted likewise."""
_MAX_DEPTH: Final = 16
_MARKER: Final = b"\xab\xcd\xefMaxMind.com"
_METADATA_BYTES: Final = 128 * 1024
_SEPARATOR: Final = 16
_SEARCHED_NODES: Final = 100_000
_POINTER, _TEXT, _DOUBLE, _BYTES, _MAP, _INT32, _ARRAY, _BOOLEAN, _FLOAT = 1, 2, 3, 4, 7, 8, 11, 14, 15
_UNSIGNED: Final = {5: 2, 6: 4, 9: 8, 10: 16}
_POINTER_OFFSETS: Final = (0, 2048, 526_336, 0)


class InvalidDatabaseError(ValueError):
    """The bytes are not a database, or a record is damaged."""


class Reader:
    """One database. Its records are immutable by convention: they are kept, and given to several callers."""

    __slots__ = ("_content", "_data", "_ipv4_start", "_kept", "_node", "_nodes", "_size", "_version", "metadata")

    def __init__(self, content: bytes) -> None:
        """Read the metadata. Raises InvalidDatabaseError."""
        at = content.rfind(_MARKER, max(0, len(content) - _METADATA_BYTES))
        if at < 0:
            raise InvalidDatabaseError("has no metadata of a database")
        metadata = _Decoder(memoryview(content)[at + len(_MARKER) :]).record(0)
        if not isinstance(metadata, dict):
            raise InvalidDatabaseError("has metadata that are no map")
        self.metadata: dict[str, Any] = metadata
        if self._number("binary_format_major_version", 0, 0xFFFF) != 2:
            raise InvalidDatabaseError("has another version of the format than 2")
        bits = self._number("record_size", 0, 0xFFFF)
        self._version = self._number("ip_version", 0, 0xFFFF)
        if bits not in _NODES or self._version not in (4, 6):
            raise InvalidDatabaseError("has an unknown layout")
        self._size, self._node = bits // 4, _NODES[bits]
        self._nodes = self._number("node_count", 0, 2**32 - 1)
        start = self._nodes * self._size + _SEPARATOR
        if start > at:
            raise InvalidDatabaseError("ends before its tree does")
        self._content = content
        self._data = _Decoder(memoryview(content)[start:at])
        self._kept: BoundedCache[int, tuple[Any, str]] = BoundedCache(MAX_KEPT_RECORDS)
        self._ipv4_start = self._walk(0, 0, 96) if self._version == 6 else 0

    def _number(self, name: str, least: int, most: int) -> int:
        """A number of the metadata."""
        value = self.metadata.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InvalidDatabaseError(f"has metadata without `{name}`")
        return value

    @property
    def build_epoch(self) -> int:
        """When the database was built (seconds since the epoch). Raises InvalidDatabaseError."""
        return self._number("build_epoch", 0, 2**64 - 1)

    def get(self, address: Ip) -> Any:
        """The record of `address`, None if it is not listed.

        Raises InvalidDatabaseError for a damaged record, and for an IPv6 address in a database for IPv4.
        """
        if address.version == 6 and self._version == 4:
            raise InvalidDatabaseError("a database for IPv4 says nothing about IPv6")
        start = self._ipv4_start if address.version == 4 else 0
        value = self._walk(start, int(address), 32 if address.version == 4 else 128)
        if value == self._nodes:
            return None
        if value < self._nodes:
            raise InvalidDatabaseError("the tree is deeper than an address has bits")
        kept = self._kept[value]
        if kept is None:
            kept = self._decoded(value - self._nodes - _SEPARATOR)
            self._kept.put(value, kept)
        record, problem = kept
        if problem:
            raise InvalidDatabaseError(problem)
        return record

    def _decoded(self, at: int) -> tuple[Any, str]:
        """The record at an offset, and what is wrong with it: a damaged one is not decoded again either."""
        try:
            return self._data.record(at) if at >= 0 else None, "" if at >= 0 else "a record lies in the separator"
        except InvalidDatabaseError as error:
            return None, str(error)

    def _walk(self, node: int, bits: int, count: int) -> int:
        """The value in the tree that `count` bits lead to from `node`, the highest bit first."""
        content, size, nodes, value_of = self._content, self._size, self._nodes, self._node
        while count and node < nodes:
            count -= 1
            node = value_of(content, node * size, bits >> count & 1)
        return node

    def lists_anything(self) -> bool:
        """Whether the tree has a record. True for a very large tree, which is not searched."""
        nodes = self._nodes
        if nodes > _SEARCHED_NODES:
            return True
        places = ((node * self._size, bit) for node in range(nodes) for bit in (0, 1))
        return any(self._node(self._content, at, bit) > nodes for at, bit in places)


def _node_24(content: bytes, at: int, bit: int) -> int:
    at += 3 * bit
    return content[at] << 16 | content[at + 1] << 8 | content[at + 2]


def _node_28(content: bytes, at: int, bit: int) -> int:
    middle = content[at + 3]
    high = middle & 0xF if bit else middle >> 4
    at += 4 * bit
    return high << 24 | content[at] << 16 | content[at + 1] << 8 | content[at + 2]


def _node_32(content: bytes, at: int, bit: int) -> int:
    return int.from_bytes(content[at + 4 * bit : at + 4 * bit + 4], "big")


_NODES: Final[dict[int, Callable[[bytes, int, int], int]]] = {24: _node_24, 28: _node_28, 32: _node_32}
"""By the bits of a record: reads the left (0) or right (1) record of the node at a place."""


class _Decoder:
    """Decodes the values of one section. Raises InvalidDatabaseError for damaged ones, and for more than the bounds."""

    __slots__ = ("_data", "_text_left", "_values_left")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._values_left = self._text_left = 0

    def record(self, at: int) -> Any:
        """The value at an offset."""
        self._values_left, self._text_left = MAX_VALUES, MAX_TEXT
        return self._value(at, 0)[0]

    def _bytes(self, at: int, size: int) -> memoryview:
        if at + size > len(self._data):
            raise InvalidDatabaseError("a value goes on after the end")
        return self._data[at : at + size]

    def _value(self, at: int, depth: int, *, pointed: bool = False) -> tuple[Any, int]:
        """The value at an offset, and the offset behind it."""
        self._values_left -= 1
        if self._values_left < 0 or depth > _MAX_DEPTH:
            raise InvalidDatabaseError("a record is too large or too deep")
        kind, size, at = self._control(at)
        if kind == _POINTER:
            if pointed:
                raise InvalidDatabaseError("a pointer leads to a pointer")
            return self._value(size, depth + 1, pointed=True)[0], at
        if kind == _MAP:
            return self._map(at, size, depth + 1)
        if kind == _ARRAY:
            items = []
            for _ in range(size):
                item, at = self._value(at, depth + 1)
                items.append(item)
            return items, at
        if kind == _BOOLEAN:
            return self._boolean(size), at
        return self._scalar(kind, self._bytes(at, size)), at + size

    def _map(self, at: int, size: int, depth: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        for _ in range(size):
            name, at = self._value(at, depth)
            if not isinstance(name, str):
                raise InvalidDatabaseError("the key of a map is not a text")
            members[name], at = self._value(at, depth)
        return members, at

    def _control(self, at: int) -> tuple[int, int, int]:
        """The type of a value, its size (the offset that a pointer leads to), and where it begins."""
        first = self._bytes(at, 1)[0]
        kind, size, at = first >> 5, first & 0x1F, at + 1
        if kind == _POINTER:
            length = (size >> 3) + 1
            high = 0 if length == 4 else size & 7
            low = int.from_bytes(self._bytes(at, length), "big")
            return kind, (high << 8 * length | low) + _POINTER_OFFSETS[length - 1], at + length
        if kind == 0:
            kind, at = self._bytes(at, 1)[0] + 7, at + 1
        if size > 28:
            length = size - 28
            size = int.from_bytes(self._bytes(at, length), "big") + (29, 285, 65_821)[length - 1]
            at += length
        return kind, size, at

    def _boolean(self, size: int) -> bool:
        if size > 1:
            raise InvalidDatabaseError("a boolean is neither true nor false")
        return bool(size)

    def _scalar(self, kind: int, data: memoryview) -> Any:
        size = len(data)
        if kind in (_TEXT, _BYTES):
            self._text_left -= size
            if self._text_left < 0:
                raise InvalidDatabaseError("a record has too much text")
            try:
                return str(data, "utf-8") if kind == _TEXT else bytes(data)
            except UnicodeDecodeError:
                raise InvalidDatabaseError("a text is not UTF-8") from None
        if size <= _UNSIGNED.get(kind, -1):
            return int.from_bytes(data, "big")
        if kind == _INT32 and size <= 4:
            return int.from_bytes(data, "big", signed=size == 4)
        if (kind, size) in ((_DOUBLE, 8), (_FLOAT, 4)):
            return struct.unpack(">d" if kind == _DOUBLE else ">f", data)[0]
        raise InvalidDatabaseError("a value has an unknown type or a wrong size")

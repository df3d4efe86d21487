"""Hand-written protobuf encoding. Pure. Source: protobuf.dev/programming-guides/encoding.

Joins messages that are already encoded by writing their lengths. Building them from objects would cost several times
as much.
"""

from __future__ import annotations

from typing import Final

_LENGTH_DELIMITED: Final = 2  # the wire type of texts and messages


def field_tag(number: int) -> int:
    """Return the tag of the length-delimited field `number` (1 to 15)."""
    return number << 3 | _LENGTH_DELIMITED


def field(tag: int, content: bytes) -> bytes:
    """Encode a length-delimited field: `tag`, length, content."""
    size = len(content)
    return (bytes((tag, size)) if size < 0x80 else bytes((tag,)) + varint(size)) + content


def varint(number: int) -> bytes:
    """Encode a non-negative number: seven bits per byte, lowest first; the eighth bit says that more bytes follow."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)

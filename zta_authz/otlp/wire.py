"""Protobuf's wire as far as we write it ourselves. Pure. Source: protobuf.dev/programming-guides/encoding.

Messages that are made of others already encoded are written by their lengths: building them anew from objects costs
several times as much.
"""

from __future__ import annotations

from typing import Final

_LENGTH_DELIMITED: Final = 2  # the wire type of texts and messages


def field_tag(number: int) -> int:
    """The tag of field `number`, 1 to 15, as a text or a message is written: with its length before it."""
    return number << 3 | _LENGTH_DELIMITED


def field(tag: int, content: bytes) -> bytes:
    """A text or a message inside another: what it is, in one byte, how long, and itself."""
    size = len(content)
    return (bytes((tag, size)) if size < 0x80 else bytes((tag,)) + varint(size)) + content


def varint(number: int) -> bytes:
    """A number, not negative: seven bits a byte, the lowest first, and the eighth where more follow."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)

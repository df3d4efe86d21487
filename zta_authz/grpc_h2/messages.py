"""gRPC's length-prefixed messages, and the answers: all that does not depend on the call is made beforehand.

Header blocks are literals without indexing (RFC 7541, section 6.2.2), so that they are the same whatever the peer's
table holds.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import Status
from zta_authz.grpc_h2.frames import DATA, END_HEADERS, END_STREAM, HEADER, HEADERS

if TYPE_CHECKING:
    from zta_authz.grpc_h2.request import Failed

PREFIX_BYTES: Final = 5
_MAX_STATUS_MESSAGE_BYTES: Final = 1024

TABLE_SIZE_ZERO: Final = b"\x20"
"""Begins the first header block after the peer made its table smaller (RFC 7541, section 4.2); we never use it."""


def _literal(name: bytes, value: bytes) -> bytes:
    """A field without indexing, name and value as they are; both are ours, and shorter than 127 bytes but for texts."""
    length = bytes((len(value),)) if len(value) < 127 else _long(len(value))
    return b"\0" + bytes((len(name),)) + name + length + value


def _long(length: int) -> bytes:
    """A string length past the 7-bit prefix."""
    rest = length - 127
    octets = bytearray((127,))
    while rest >= 128:
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    octets.append(rest)
    return bytes(octets)


_STATUS_200: Final = b"\x88"
_GRPC: Final = _literal(b"content-type", b"application/grpc")

HEAD_BLOCK: Final = _STATUS_200 + _GRPC
OK_BLOCK: Final = _literal(b"grpc-status", b"0")

_HEAD_START: Final = HEADER.pack(0, len(HEAD_BLOCK), HEADERS, END_HEADERS, 0)[:5]
_OK_START: Final = HEADER.pack(0, len(OK_BLOCK), HEADERS, END_HEADERS | END_STREAM, 0)[:5]
_BETWEEN: Final = Struct(">BHBBLBL")
"""The header of the DATA frame and the prefix of its message."""


def prefixed(message: bytes) -> bytes:
    """The message with its prefix: not compressed, its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole_answer(stream: int, message: bytes) -> bytes:
    """HEADERS, one DATA frame and the trailers of a call that went well. The message fits a frame and the windows."""
    size = len(message)
    number = stream.to_bytes(4, "big")
    between = _BETWEEN.pack(size + 5 >> 16, size + 5 & 0xFFFF, DATA, 0, stream, 0, size)
    return b"".join((_HEAD_START, number, HEAD_BLOCK, between, message, _OK_START, number, OK_BLOCK))


def _percent_encoded(text: str) -> bytes:
    """The form of `grpc-message`: printable ASCII as it is, everything else and `%` byte by byte."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )


def failure_block(failed: Failed) -> bytes:
    """The only header block of a call that went wrong ("Trailers-Only")."""
    block = _STATUS_200 + _GRPC + _literal(b"grpc-status", str(int(failed.status)).encode())
    if failed.status is Status.UNIMPLEMENTED:
        block += _literal(b"grpc-accept-encoding", b"identity")
    text = _percent_encoded(failed.message)[:_MAX_STATUS_MESSAGE_BYTES]
    return block + _literal(b"grpc-message", text) if text else block


def http_block(status: int) -> bytes:
    """The header block of an answer to what is no gRPC call; `NOT_GRPC_TEXT` follows it."""
    return (
        _literal(b":status", str(status).encode())
        + _literal(b"content-type", b"text/plain")
        + (_literal(b"allow", b"POST") if status == 405 else b"")
    )


NOT_GRPC_TEXT: Final = b"this port speaks gRPC\n"

"""gRPC's length-prefixed messages and answers. Everything that does not depend on the call is precomputed.

Header blocks are literals without indexing (RFC 7541, section 6.2.2), so that they don't depend on the peer's dynamic
table.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import Status
from zta_authz.grpc_h2.frames import DATA, END_HEADERS, END_STREAM, HEADER, HEADERS

if TYPE_CHECKING:
    from zta_authz.grpc_h2.request import GrpcFailure

PREFIX_BYTES: Final = 5
_MAX_STATUS_MESSAGE_BYTES: Final = 1024

TABLE_SIZE_ZERO: Final = b"\x20"
"""Starts the first header block after the peer shrank its table (RFC 7541, section 4.2), which we never use."""


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a field without indexing or Huffman coding. `name` is shorter than 127 bytes."""
    length = bytes((len(value),)) if len(value) < 127 else _long(len(value))
    return b"\0" + bytes((len(name),)) + name + length + value


def _long(length: int) -> bytes:
    """Encode a string length that exceeds the 7-bit prefix."""
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
"""The header of the DATA frame, and the prefix of its message."""


def prefixed(message: bytes) -> bytes:
    """Prepend the gRPC prefix: not compressed, and the length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole_answer(stream: int, message: bytes) -> bytes:
    """Encode a successful answer: HEADERS, one DATA frame, trailers. The message must fit a frame and the windows."""
    size = len(message)
    number = stream.to_bytes(4, "big")
    between = _BETWEEN.pack(size + 5 >> 16, size + 5 & 0xFFFF, DATA, 0, stream, 0, size)
    return b"".join((_HEAD_START, number, HEAD_BLOCK, between, message, _OK_START, number, OK_BLOCK))


def _percent_encoded(text: str) -> bytes:
    """Encode text for `grpc-message`: printable ASCII stays, `%` and all other bytes are percent-encoded."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte < 0x7F and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()
    )


def failure_block(failure: GrpcFailure) -> bytes:
    """Encode the only header block of a failed call ("Trailers-Only")."""
    block = _STATUS_200 + _GRPC + _literal(b"grpc-status", str(int(failure.status)).encode())
    if failure.status is Status.UNIMPLEMENTED:
        block += _literal(b"grpc-accept-encoding", b"identity")
    text = _percent_encoded(failure.message)[:_MAX_STATUS_MESSAGE_BYTES]
    return block + _literal(b"grpc-message", text) if text else block


def http_block(status: int) -> bytes:
    """Encode the header block of the answer to a request that is not gRPC; `NOT_GRPC_TEXT` follows it."""
    return (
        _literal(b":status", str(status).encode())
        + _literal(b"content-type", b"text/plain")
        + (_literal(b"allow", b"POST") if status == 405 else b"")
    )


NOT_GRPC_TEXT: Final = b"this port speaks gRPC\n"

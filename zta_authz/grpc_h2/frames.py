"""HTTP/2 frames (RFC 9113, sections 4 and 6): numbers, layouts, and constructors of the frames that we send."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from zta_authz.grpc_h2.errors import ConnectionFault, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
HEADER: Final = Struct(">BHBBL")
"""Length (8 and 16 bits), type, flags, stream (the first bit is reserved)."""
MAX_WINDOW: Final = 2**31 - 1
STREAM_MASK: Final = 2**31 - 1
DEFAULT_WINDOW: Final = 65_535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_ENABLE_PUSH: Final = 2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4
SETTINGS_MAX_FRAME_SIZE: Final = 5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 6
SETTING: Final = Struct(">HL")

SETTINGS_ACK: Final = bytes((0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Encode a frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Encode a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(name, value) for name, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE: the peer may send `increment` more bytes on the stream; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Encode a RST_STREAM, which ends one stream."""
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def goaway(last_stream: int, code: ErrorCode, message: str = "") -> bytes:
    """Encode a GOAWAY: no stream after `last_stream` is processed; `message` is for the peer's log."""
    return frame(GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + message.encode())


def wrong_size(message: str) -> ConnectionFault:
    """Return the fault for a frame of the wrong length."""
    return ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, message)


def unpad(payload: bytes) -> bytes:
    """Strip the padding from a DATA or HEADERS payload. Raises `ConnectionFault` if it is longer than the payload."""
    if not payload:
        raise wrong_size("a padded frame without its padding's length")
    padding = payload[0]
    if padding >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - padding]


def without_priority(payload: bytes, stream: int) -> bytes:
    """Strip the five bytes of priority from a HEADERS payload; they are ignored (RFC 9113, section 5.3.2).

    Raises `ConnectionFault` if they are missing, or name the stream itself (RFC 7540, section 5.3.1).
    """
    if len(payload) < 5:
        raise wrong_size("HEADERS too short for its priority")
    check_priority(payload, stream)
    return payload[5:]


def check_priority(payload: bytes, stream: int) -> None:
    """Raise `ConnectionFault` if the stream depends on itself."""
    if int.from_bytes(payload[:4], "big") & STREAM_MASK == stream:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")

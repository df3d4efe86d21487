"""What supervisor and worker say to each other, over a pair of sockets that nobody else can reach.

First the supervisor says what to serve with. Then it asks for pages of the health listener, and the worker answers one
after the other. The end of either side is the end of the connection. A frame is four bytes of length and its bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    import socket

LENGTH: Final = struct.Struct(">I")
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker begins with: its number from 1, the settings file, all settings, the TCP ports.

    `replays` is the descriptor of the table of used DPoP proofs; a supervisor of an earlier version has none.
    """

    number: int
    config: str | None
    settings: str
    ports: dict[str, str]
    replays: int | None = None

    def encode(self) -> bytes:
        """As a frame's content."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, content: bytes) -> Orders:
        """The reverse of `encode`; both sides are this program."""
        fields: dict[str, Any] = json.loads(content)
        return cls(**fields)


def frame(content: bytes) -> bytes:
    """`content` as it is sent."""
    return LENGTH.pack(len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame's content. Raises EOFError (`IncompleteReadError`) at the end, ValueError if it is too large."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ValueError("a frame that is too large")
    return await reader.readexactly(length)


def receive_frame(connection: socket.socket) -> bytes:
    """The same on a blocking socket."""
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ValueError("a frame that is too large")
    return _receive(connection, length)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            raise EOFError("the supervisor has ended")
        received += more
    return bytes(received)

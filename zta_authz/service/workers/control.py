"""Messages between supervisor and worker, over a socket pair that no other process can reach.

The supervisor first sends what to serve with. Then it requests pages of the health listener, which the worker answers
in order. The connection ends when either side does. A frame is four bytes of length and its content.
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
class StartMessage:
    """What a worker starts with: its number (from 1), the settings file, all settings, and the TCP ports.

    `replays` is the descriptor of the table of used DPoP proofs, and `relay` that of the socket over which the
    supervisor passes on the administrator's view; supervisors of earlier versions send none.
    """

    number: int
    config: str | None
    settings: str
    ports: dict[str, str]
    replays: int | None = None
    relay: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that the worker inherits."""
        return tuple(number for number in (self.replays, self.relay) if number is not None)

    def encode(self) -> bytes:
        """Return the content of the frame."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, content: bytes) -> StartMessage:
        """Decode what `encode` returned. The content is trusted: both sides are this program."""
        fields: dict[str, Any] = json.loads(content)
        return cls(**fields)


def frame(content: bytes) -> bytes:
    """Return `content` as a frame."""
    return LENGTH.pack(len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Return the next frame's content. Raises EOFError (`IncompleteReadError`) at the end, ValueError if too large."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ValueError("the frame is too large")
    return await reader.readexactly(length)


def receive_frame(connection: socket.socket) -> bytes:
    """Like `read_frame`, on a blocking socket."""
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise ValueError("the frame is too large")
    return _receive(connection, length)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            raise EOFError("the supervisor has ended")
        received += more
    return bytes(received)

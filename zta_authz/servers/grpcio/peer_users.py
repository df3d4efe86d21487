"""Which local user calls on a Unix socket. gRPC's own server can't find out, so a relay in front of it does.

The relay accepts a connection, asks the kernel for the user of its peer (SO_PEERCRED, unix(7)), and connects to gRPC's
socket. gRPC reports the name that the connecting end is bound to: each relayed connection has a random one in Linux's
abstract namespace. Only our own user can connect to gRPC's socket, and a connection with another name has no user.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from zta_authz.sockets import peer_uid

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

MAX_CONNECTIONS: Final = 256
MAX_CONNECTIONS_OF_A_USER: Final = 64
_PART_BYTES: Final = 64 * 1024
_PREFIX: Final = "unix-abstract:"


class PeerUsers:
    """The connections of one server's Unix sockets, and the user of each."""

    def __init__(self, name_user: Callable[[int], str]) -> None:
        """`name_user` returns what methods get as the caller, for a user ID."""
        self._name_user = name_user
        self._users: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def relay(self, listening: socket.socket, target: str) -> None:
        """Accept connections of the Unix socket `listening`, and relay them to gRPC's socket at the path `target`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            try:
                await self._serve(reader, writer, target)
            except (OSError, asyncio.CancelledError):  # the stop cancels it
                pass
            finally:
                writer.close()

        self._servers.append(await asyncio.start_unix_server(serve, sock=listening, limit=_PART_BYTES))

    def caller(self, peer: str) -> str | None:
        """The caller on a connection whose peer gRPC calls `peer`. None if it did not come through a relay."""
        uid = self._users.get(peer)
        return None if uid is None else self._name_user(uid)

    def close(self) -> None:
        """Accept no more connections. Those that are open go on."""
        for server in self._servers:
            server.close()

    async def stop(self) -> None:
        """End all connections."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
        uid = peer_uid(writer.get_extra_info("socket"))
        if len(self._users) >= MAX_CONNECTIONS or Counter(self._users.values())[uid] >= MAX_CONNECTIONS_OF_A_USER:
            return
        name = f"zta-authz-{secrets.token_hex(16)}"
        self._users[_PREFIX + name] = uid
        try:
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=_connected(name, target))
            try:
                await _until_one_ends(_pump(reader, inner_writer), _pump(inner_reader, writer))
            finally:
                inner_writer.close()
        finally:
            del self._users[_PREFIX + name]


def _connected(name: str, target: str) -> socket.socket:
    """A socket that is bound to an abstract name and connected to a path. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.bind(f"\0{name}")
        connection.connect(target)  # does not wait: it fails if gRPC's backlog is full
    except OSError:
        connection.close()
        raise
    return connection


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_PART_BYTES):
            writer.write(data)
            await writer.drain()


async def _until_one_ends(*pumps: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

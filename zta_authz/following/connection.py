"""The connections to the administrator that gRPC uses: a Unix socket, or a TLS tunnel.

gRPC's Python API can't verify a server by its SPIFFE ID: it wants a host name in the certificate. So asyncio makes the
TLS connection, and gRPC speaks through it over an abstract Unix socket that only this process can use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Protocol

from zta_authz.following.tls import TlsProblem
from zta_authz.sockets import peer_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from zta_authz.following.tls import AdministratorTls

CONNECT_SECONDS: Final = 10.0
"""Time limit for the TCP connection and its handshake."""
LONGEST_SECONDS: Final = 3600.0
"""A tunnel is replaced at this age at the latest, so that a withdrawn authority stops counting."""
SHORTEST_SECONDS: Final = 30.0
_CHUNK_BYTES: Final = 64 * 1024
_LOG = logging.getLogger(__name__)


class Connection(Protocol):
    """A way to the administrator."""

    @property
    def name(self) -> str:
        """The address, for the log."""
        ...

    @property
    def replaced(self) -> bool:
        """Whether the last connection ended to be replaced by one with newer certificates."""
        ...

    def open(self) -> AbstractAsyncContextManager[str]:
        """The gRPC target to use meanwhile. Entering raises `TlsProblem` or OSError."""
        ...


class UnixConnection:
    """A Unix socket, which gRPC connects to itself. Its mode and the administrator's list of users protect it."""

    def __init__(self, path: str) -> None:
        self.name = f"unix:{path}"
        self.replaced = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """See `Connection`."""
        yield self.name


class TlsTunnel:
    """A TCP connection with mutual TLS. It is replaced at half of the time that its certificates have left."""

    def __init__(self, host: str, port: int, tls: AdministratorTls, clock: Callable[[], float] = time.time) -> None:
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.replaced = False
        self._host = host
        self._port = port
        self._tls = tls
        self._clock = clock

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """See `Connection`."""
        self.replaced = False
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer, seconds = await self._connect()
        address = "zta-authz-" + secrets.token_hex(16)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            listener.bind("\0" + address)
            listener.listen(1)
            serving = asyncio.create_task(
                self._serve(listener, reader, writer, seconds), name="tunnel to the administrator"
            )
            try:
                yield f"unix-abstract:{address}"
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, float]:
        """Connect, check the administrator, and say for how many seconds the connection may be used."""
        context, our_end = await asyncio.to_thread(self._tls.context)
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context, limit=_CHUNK_BYTES)
        except ssl.SSLError as error:
            raise TlsProblem(f"the TLS handshake failed ({error.reason or 'closed'})") from None
        try:
            end = min(our_end, self._tls.check(writer.get_extra_info("ssl_object")))
        except TlsProblem:
            writer.transport.abort()
            raise
        left = end - self._clock()
        if left <= 0:
            writer.transport.abort()
            raise TlsProblem("our certificate has expired")
        half = left / 2 * random.uniform(0.8, 1.0)  # noqa: S311  spreads reconnections
        return reader, writer, min(left, max(SHORTEST_SECONDS, min(LONGEST_SECONDS, half)))

    async def _serve(
        self, listener: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
    ) -> None:
        """Pass bytes between gRPC and the administrator until one of them closes, or for `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await _relay(listener, reader, writer)
        except TimeoutError:
            self.replaced = True
        except OSError as error:
            _LOG.info("the connection to the administrator broke: %s", error.strerror or type(error).__name__)
        finally:
            writer.transport.abort()


async def _relay(listener: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    own_reader, own_writer = await asyncio.open_connection(sock=await _accept(listener), limit=_CHUNK_BYTES)
    tasks = [asyncio.create_task(way) for way in (_copy(own_reader, writer), _copy(reader, own_writer))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        own_writer.transport.abort()


async def _accept(listener: socket.socket) -> socket.socket:
    """Accept the connection of this process. Abstract sockets have no permissions, so others are turned away."""
    loop = asyncio.get_running_loop()
    while True:
        accepted, _ = await loop.sock_accept(listener)
        pid, uid = peer_process(accepted)
        if (pid, uid) == (os.getpid(), os.geteuid()):
            return accepted
        accepted.close()
        _LOG.error("another process tried to use the connection to the administrator", extra={"pid": pid, "uid": uid})


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()

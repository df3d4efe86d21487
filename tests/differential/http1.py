"""A raw HTTP/1.1 client: every byte goes out as given, which no well-behaved library allows."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.differential.credentials import certificate_pem, key_pem

if TYPE_CHECKING:
    from tests.differential.case import Connection, Peer, Request

_TIMEOUT_SECONDS = 30.0
_MAX_HEAD_BYTES = 256 * 1024


@cache
def _context(peer: Peer | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if peer is not None:
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder, "peer.pem")
            pem.write_text(certificate_pem(peer) + key_pem())
            context.load_cert_chain(pem)
    return context


class Client:
    """One connection at a time to one listener; sequential requests, reopened when the proxy closes it."""

    def __init__(self, address: str, connection: Connection) -> None:
        """Nothing is opened before the first request."""
        self._address = address
        self._connection = connection
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request, more: tuple[tuple[str, str], ...]) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer to `request` with the headers `more` after its own.

        Header names are in lower case; a value's characters stand for its bytes (latin-1).
        """
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*request.headers, *more)]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            try:
                return await self._exchange(data, request.method)
            except (asyncio.IncompleteReadError, ConnectionError):
                await self.close()  # kept alive too long: once more on a fresh connection
                return await self._exchange(data, request.method)

    async def _exchange(self, data: bytes, method: str) -> tuple[int, dict[str, str]]:
        if self._streams is None:
            self._streams = await self._open()
        reader, writer = self._streams
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        lines = (line.partition(":") for line in head.split("\r\n")[1:] if ":" in line)
        fields = {name.lower(): value.removeprefix(" ") for name, _, value in lines}
        if method != "HEAD":
            await reader.readexactly(int(fields.get("content-length", "0")))
        if fields.get("connection", "").strip() == "close":
            await self.close()
        return status, fields

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        link = self._connection
        local = (link.source_ip, 0)
        if not link.tls:
            return await asyncio.open_connection(self._address, link.port, local_addr=local, limit=_MAX_HEAD_BYTES)
        return await asyncio.open_connection(
            self._address,
            link.port,
            local_addr=local,
            limit=_MAX_HEAD_BYTES,
            ssl=_context(link.peer),
            server_hostname=link.sni or self._address,  # an IP address is not sent as SNI
        )

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

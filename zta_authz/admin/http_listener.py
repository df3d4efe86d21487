"""The health listener's connections: HTTP/1.1, one request each, with limits on time, bytes and number.

A connection reads one request head, ignores any body, answers and closes. It may last for `TIMEOUT_SECONDS` and is then
aborted, even if the peer has not read the answer, because closing would wait for the peer forever. A connection past
`MAX_CONNECTIONS` replaces another one: of the address with most connections, the least useful (no request yet, refused,
or reading its answer slowly), the oldest first. So clients that send nothing or read nothing can't keep a probe out.

aiohttp's server, which is installed for fetching keys, is no alternative: it limits neither the number of connections,
nor the time for a request head, nor the time for a peer that does not read, and it closes instead of aborting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from zta_authz.errors import Fault, SettingsErrors
from zta_authz.sockets import bound_socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_HEAD_BYTES: Final = 8 * 1024
HEAD_SECONDS: Final = 1.0
"""Time limit for the whole request head."""
TIMEOUT_SECONDS: Final = 5.0
"""Time limit for a connection from accept to close."""
LINGER_SECONDS: Final = 0.5
"""Time for a refused client to read the answer. Up to `MAX_LATE_BYTES` that it still sends are dropped."""
MAX_LATE_BYTES: Final = 128 * 1024
MAX_CONNECTIONS: Final = 64
_BACKLOG: Final = 128
_TEXT: Final = "text/plain; charset=utf-8"
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP response. It may be cached for `max_age` seconds, 0 for not at all."""

    status: HTTPStatus
    content_type: str
    body: bytes
    max_age: int = 0


class ConnectionState(IntEnum):
    """The state of a connection. The higher the number, the less useful the connection."""

    ANSWER = 0  # the answer is being prepared
    READING = 1  # the peer reads the answer
    LINGERING = 2  # refused
    ASKING = 3  # the head is incomplete


class Listener:
    """Listens at one address. `answer` returns the page for a path; it may wait and does not raise."""

    def __init__(self, host: str, port: int, answer: Callable[[bytes], Awaitable[Page]]) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self.answer = answer
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()

    async def start(self) -> str:
        """Listen and return the address with its actual port. Raises `SettingsErrors` if it is unavailable."""
        loop = asyncio.get_running_loop()
        try:
            bound = bound_socket(self._host, self._port)
            self._server = await loop.create_server(lambda: Connection(self), sock=bound, backlog=_BACKLOG)
        except OSError as error:
            source = f"listener {self._host}:{self._port}"
            fault = Fault(source, 0, 0, f"cannot listen: {error.strerror}", "choose another address in `health.listen`")
            raise SettingsErrors([fault]) from error
        port = self._server.sockets[0].getsockname()[1]
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            await self.empty.wait()

    def add(self, connection: Connection) -> None:
        """Add a connection. If there are too many, it replaces the least useful one."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._least_useful_connection().abort()
        self.connections.add(connection)
        self.empty.clear()

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def _least_useful_connection(self) -> Connection:
        counts = Counter(connection.address for connection in self.connections)
        return max(self.connections, key=lambda peer: (counts[peer.address], peer.state, -peer.started_at))


class Connection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._late = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.state = ConnectionState.ASKING
        self.address = ""
        self.started_at = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timers."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._listener.add(self)
        self._timers = [
            self._loop.call_later(HEAD_SECONDS, self._expect_head),
            self._loop.call_later(TIMEOUT_SECONDS, self.abort),
        ]

    def data_received(self, data: bytes) -> None:
        """Collect the head. Later bytes are dropped."""
        if self.state is not ConnectionState.ASKING:
            self._late += len(data)
            if self._late > MAX_LATE_BYTES:
                self.abort()
            return
        self._head += data
        if _END in self._head[:MAX_HEAD_BYTES]:
            self.state = ConnectionState.ANSWER
            self._task = self._loop.create_task(self._answer(bytes(self._head.partition(b"\r\n")[0])))
        elif len(self._head) >= MAX_HEAD_BYTES:
            self._send(error_page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def eof_received(self) -> bool:
        """Keep the connection open after the client's last byte if its request is complete."""
        return self.state in (ConnectionState.ANSWER, ConnectionState.READING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        del exc
        for timer in self._timers:
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._listener.remove(self)

    def end(self) -> None:
        """Close the connection, with a short time for the client to read the answer."""
        self._transport.close()
        self._timers.append(self._loop.call_later(LINGER_SECONDS, self.abort))

    def abort(self) -> None:
        """Abort the connection at once and drop unread data."""
        self._listener.remove(self)  # not in `connection_lost`, so that it no longer counts and is not chosen again
        self._transport.abort()

    def _expect_head(self) -> None:
        if self.state is ConnectionState.ASKING:
            self.abort()

    async def _answer(self, line: bytes) -> None:
        parts = line.split(b" ")
        if len(parts) != 3 or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            self._send(error_page(HTTPStatus.BAD_REQUEST))
        elif parts[0] not in (b"GET", b"HEAD"):
            self._send(error_page(HTTPStatus.METHOD_NOT_ALLOWED))
        else:
            page = await self._listener.answer(parts[1].partition(b"?")[0])
            self._send(page, with_body=parts[0] == b"GET")

    def _send(self, page: Page, *, with_body: bool = True) -> None:
        transport = self._transport
        if transport.is_closing():
            return
        transport.write(_encode(page, with_body=with_body))
        if page.status < HTTPStatus.BAD_REQUEST or page.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.state = ConnectionState.READING
            transport.close()
            return
        # closing with unread bytes resets the connection, and the client might lose the answer
        self.state = ConnectionState.LINGERING
        transport.write_eof()
        self._timers.append(self._loop.call_later(LINGER_SECONDS, self.abort))


def error_page(status: HTTPStatus) -> Page:
    """Return a page with the status's phrase."""
    return Page(status, _TEXT, f"{status.phrase}\n".encode())


def _encode(page: Page, *, with_body: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if page.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        f"Cache-Control: {f'max-age={page.max_age}' if page.max_age else 'no-store'}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{allow}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (page.body if with_body else b"")

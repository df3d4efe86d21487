"""The health listener's connections: HTTP/1.1, one request each, every one bounded in time, bytes and number.

It reads one request head, ignores any body, answers and closes. From its first byte to its end a connection has
`TIMEOUT_SECONDS`; then it is aborted, whether or not the peer has read what was sent: closing would wait for that, for
ever. A connection past `MAX_CONNECTIONS` takes the place of another: of the address that has most of them, and there of
one that is good for least (it has not asked, was refused, or reads its answer slowly), the oldest first. So neither
clients that say nothing nor those that read nothing keep a probe out.

Why not aiohttp's server, which is installed for the keys' client: it bounds neither the number of connections, nor the
time of a request head, nor that of a peer that does not read, and closes where this aborts.
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
"""For the whole head of the request."""
TIMEOUT_SECONDS: Final = 5.0
"""For everything, from accepting the connection to its end."""
LINGER_SECONDS: Final = 0.5
"""For a refused client to take the answer and end; what it sends meanwhile is dropped, up to `MAX_LATE_BYTES`."""
MAX_LATE_BYTES: Final = 128 * 1024
MAX_CONNECTIONS: Final = 64
_BACKLOG: Final = 128
_TEXT: Final = "text/plain; charset=utf-8"
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


class State(IntEnum):
    """What a connection waits for; those that are good for least have the highest number."""

    ANSWER = 0
    READING = 1  # its answer is on its way
    LINGERING = 2  # it was refused
    ASKING = 3  # there is no whole head yet


class Listener:
    """Listens at one address. `answer` gives the page for a path; it may wait, and does not raise."""

    def __init__(self, host: str, port: int, answer: Callable[[bytes], Awaitable[Page]]) -> None:
        self._host = host
        self._port = port
        self._server: asyncio.Server | None = None
        self.answer = answer
        self.connections: set[Connection] = set()
        self.empty = asyncio.Event()
        self.empty.set()

    async def start(self) -> str:
        """Listen; the address, with the port that was chosen. Raises `SettingsErrors` if it can't be had."""
        loop = asyncio.get_running_loop()
        try:
            bound = bound_socket(self._host, self._port)
            self._server = await loop.create_server(lambda: Connection(self), sock=bound, backlog=_BACKLOG)
        except OSError as error:
            place = f"listener {self._host}:{self._port}"
            fault = Fault(place, 0, 0, f"cannot listen: {error.strerror}", "choose another address in `health.listen`")
            raise SettingsErrors([fault]) from error
        port = self._server.sockets[0].getsockname()[1]
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.end()
        if self.connections:
            await self.empty.wait()

    def add(self, connection: Connection) -> None:
        """Take a connection, in another's place if there are too many."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self._least_useful().abort()
        self.connections.add(connection)
        self.empty.clear()

    def remove(self, connection: Connection) -> None:
        """A connection is over."""
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def _least_useful(self) -> Connection:
        number = Counter(each.address for each in self.connections)
        return max(self.connections, key=lambda each: (number[each.address], each.state, -each.began))


class Connection(asyncio.Protocol):
    """One client, from its first byte to the end of the transport."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._late = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.state = State.ASKING
        self.address = ""
        self.began = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The time runs."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self._listener.add(self)
        self._timers = [
            self._loop.call_later(HEAD_SECONDS, self._expect_head),
            self._loop.call_later(TIMEOUT_SECONDS, self.abort),
        ]

    def data_received(self, data: bytes) -> None:
        """A part of the head; after it, anything is dropped."""
        if self.state is not State.ASKING:
            self._late += len(data)
            if self._late > MAX_LATE_BYTES:
                self.abort()
            return
        self._head += data
        if _END in self._head[:MAX_HEAD_BYTES]:
            self.state = State.ANSWER
            self._task = self._loop.create_task(self._answer(bytes(self._head.partition(b"\r\n")[0])))
        elif len(self._head) >= MAX_HEAD_BYTES:
            self._send(error_page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def eof_received(self) -> bool:
        """The client sends no more: one that has asked gets its answer, any other is done."""
        return self.state in (State.ANSWER, State.READING)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        del exc
        for timer in self._timers:
            timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._listener.remove(self)

    def end(self) -> None:
        """End it: what was sent may still be read, for a moment."""
        self._transport.close()
        self._timers.append(self._loop.call_later(LINGER_SECONDS, self.abort))

    def abort(self) -> None:
        """End it now, whatever was not read."""
        self._listener.remove(self)  # at once: it must not count, nor be chosen again
        self._transport.abort()

    def _expect_head(self) -> None:
        if self.state is State.ASKING:
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
            self.state = State.READING
            transport.close()
            return
        # closing on bytes that were not read resets the connection, and the client might lose the answer
        self.state = State.LINGERING
        transport.write_eof()
        self._timers.append(self._loop.call_later(LINGER_SECONDS, self.abort))


def error_page(status: HTTPStatus) -> Page:
    """What a status says, as a page."""
    return Page(status, _TEXT, f"{status.phrase}\n".encode())


def _encode(page: Page, *, with_body: bool) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if page.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{allow}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (page.body if with_body else b"")

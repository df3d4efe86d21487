"""An HTTP/1.1 listener of the administrator: aiohttp's server with limits on time, bytes and the number of connections.

aiohttp alone limits neither the number of connections nor how long one lasts, and it writes parts of a malformed
request, such as a token, to its answer and to the log. `admin.http_listener` answers probes: it reads no bodies.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from zta_authz.servers.fast.accept import TlsAcceptor
from zta_authz.servers.fast.registry import Limits
from zta_authz.servers.listeners import (
    Endpoint,
    SocketAccess,
    SocketClaim,
    bind_error,
    bound_unix_socket,
    umask_for_bind,
)
from zta_authz.sockets import bound_socket, peer_uid

if TYPE_CHECKING:
    import ssl

MAX_CONNECTIONS: Final = 256
MAX_HANDSHAKES: Final = 64
HANDSHAKE_SECONDS: Final = 5.0
MAX_HEADER_BYTES: Final = 8 * 1024
"""The limit of the request line and of each header."""
MAX_HEADERS: Final = 48
IDLE_SECONDS: Final = 10.0
"""Time limit for the head of a request, from the accept or from the previous answer."""
REUSE_SECONDS: Final = 30.0
"""A connection that is older than this closes with its next answer."""
CONNECTION_SECONDS: Final = 75.0
"""Time limit of a connection from accept to close, whatever it does."""
LINGER_SECONDS: Final = 1.0
"""How long the rest of a refused body is read and dropped, so that the client reads the answer."""
_BACKLOG: Final = 128
_LOG_INTERVAL_SECONDS: Final = 1.0
_LOG = logging.getLogger(__name__)


class HttpListener:
    """Serves an application at one address. A connection past `MAX_CONNECTIONS` replaces another one.

    That is the oldest connection of the address (or local user) that has the most.
    """

    def __init__(
        self,
        application: web.Application,
        endpoint: Endpoint,
        *,
        tls: ssl.SSLContext | None = None,
        access: SocketAccess = SocketAccess(),  # noqa: B008  frozen
    ) -> None:
        """`access` is for a Unix socket, `tls` for a TCP address."""
        self.limits = Limits(max_handshakes=MAX_HANDSHAKES, handshake_seconds=HANDSHAKE_SECONDS)
        self.is_full = False
        self.connections: dict[HttpConnection, str] = {}
        self._endpoint = endpoint
        self._tls = tls
        self._access = access
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._server: asyncio.Server | TlsAcceptor | None = None
        self._claim: SocketClaim | None = None
        self._quiet_until = 0.0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        return asyncio.get_running_loop()

    async def start(self) -> Endpoint:
        """Listen, and return the address with its actual port. Raises `SettingsErrors` if it is unavailable."""
        await self._runner.setup()
        try:
            return await self._listen(self._endpoint)
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, endpoint: Endpoint) -> Endpoint:
        if endpoint.is_unix:
            bound = self._bind_unix()
            self._server = await self.loop.create_unix_server(self._connection, sock=bound, backlog=_BACKLOG)
            return endpoint
        bound = _bind_tcp(endpoint)
        address = Endpoint(host=endpoint.host, port=bound.getsockname()[1])
        if self._tls is None:
            self._server = await self.loop.create_server(self._connection, sock=bound, backlog=_BACKLOG)
        else:
            self._server = TlsAcceptor(self, bound, self._tls, self._connection)
        return address

    def _bind_unix(self) -> socket.socket:
        claim = SocketClaim(self._endpoint, self._access)
        claim.acquire()
        self._claim = claim
        with umask_for_bind():
            bound = bound_unix_socket(claim.private_path, self._endpoint)
        try:
            bound.listen(_BACKLOG)
            claim.publish()
        except BaseException:
            bound.close()
            raise
        return bound

    async def stop(self, grace: float = 1.0) -> None:
        """Stop listening, and close every connection, those with a request in progress after up to `grace` seconds."""
        if self._server is not None:
            self._server.close()
        if self._claim is not None:
            self._claim.release()
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(grace)
        await self._runner.cleanup()

    def _connection(self) -> HttpConnection:
        server = self._runner.server
        if server is None:
            raise AssertionError("the listener has not started")
        return HttpConnection(
            server, loop=self.loop, listener=self, access_log=None, keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_HEADER_BYTES, max_field_size=MAX_HEADER_BYTES, max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS, auto_decompress=False,
        )  # fmt: skip

    def add(self, connection: HttpConnection, address: str) -> None:
        """Add a connection that is open now, and end another one if there are too many."""
        self.connections[connection] = address
        if len(self.connections) > MAX_CONNECTIONS:
            most = Counter(self.connections.values()).most_common(1)[0][0]
            oldest = next(other for other, peer in self.connections.items() if peer == most)
            self.refused("there are too many connections; the oldest of the address with the most is closed")
            oldest.abort()

    def refused(self, reason: str) -> None:
        """Log a refused connection or request, at most once a second."""
        now = self.loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _LOG_INTERVAL_SECONDS
            _LOG.warning("the listener %s refused: %s", self._endpoint, reason)


class HttpConnection(web.RequestHandler):
    """A connection with a time limit, which repeats nothing of a malformed request."""

    __slots__ = ("_listener", "_made_at", "_timer")

    def __init__(self, server: web.Server, *, listener: HttpListener, **options: Any) -> None:
        super().__init__(server, **options)
        self._listener = listener
        self._made_at = listener.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the time limit."""
        super().connection_made(transport)
        self._timer = self._listener.loop.call_later(CONNECTION_SECONDS, self.abort)
        self._listener.add(self, _address(transport))

    def connection_lost(self, exc: BaseException | None) -> None:
        """Clean up."""
        if self._timer is not None:
            self._timer.cancel()
        self._listener.connections.pop(self, None)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close at once, even if the peer has not read an answer."""
        self._listener.connections.pop(self, None)
        if self.transport is not None:  # uvloop's transports are no instances of asyncio's
            with suppress(OSError):
                self.transport.abort()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Close after this answer if the connection is old, or the request was refused and may have more to send."""
        if resp.status >= 400 or self._listener.loop.time() - self._made_at > REUSE_SECONDS:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a malformed request, or a failure that no handler caught, without any part of either."""
        del request, message
        self.log_exception(exc_info=exc)
        response = web.Response(status=status, headers={"Cache-Control": "no-store", "Server": "zta-authz"})
        response.force_close()
        return response

    def log_exception(self, *_args: Any, **fields: Any) -> None:
        """Log the kind of an error: its text may have a part of the request."""
        self._listener.refused(f"a request failed ({type(fields.get('exc_info')).__name__})")


def _bind_tcp(endpoint: Endpoint) -> socket.socket:
    try:
        bound = bound_socket(endpoint.host, endpoint.port)
    except OSError as error:
        raise bind_error(endpoint, error) from error
    try:
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise bind_error(endpoint, error) from error
    return bound


def _address(transport: asyncio.BaseTransport) -> str:
    """Whose connection this is: an IP address, or the user of a Unix socket."""
    peer = transport.get_extra_info("socket")
    if peer is not None and peer.family == socket.AF_UNIX:
        return f"user {peer_uid(peer)}"
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""

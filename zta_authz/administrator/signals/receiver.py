"""Push delivery of SETs (RFC 8935): a transmitter posts each SET, and gets 202 once it is durable and in force.

The transmitter sends the `Authorization` header that the stream was created with. It is compared before anything else
of a request is read, in constant time. Errors are JSON objects with `err` and `description`. The answer for a subject
that nobody here knows is the same as for any other.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

from zta_authz.administrator.signals.intake import NotNow
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.security_events.set_verifier import MAX_SET_BYTES, MEDIA_TYPE, SetError, SetErrorCode
from zta_authz.sockets import bound_socket

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from zta_authz.administrator.signals.runtime import SourceRuntime

MAX_CONNECTIONS: Final = 256
MAX_RUNNING: Final = 64
"""SETs that are taken in at the same time. More get 503."""
BODY_SECONDS: Final = 10.0
"""Time limit for the body of a request."""
CONNECTION_SECONDS: Final = 60.0
"""Time limit of a connection from accept to close."""
RETRY_SECONDS: Final = 5
_IDLE_SECONDS: Final = 15.0
_BACKLOG: Final = 128
_MAX_HEADER: Final = 8 * 1024

_LOG = logging.getLogger(__name__)


class PushSource:
    """A source that pushes: its runtime, and the value of its `Authorization` header."""

    def __init__(self, runtime: SourceRuntime, authorization: str) -> None:
        self.runtime = runtime
        self._authorization = authorization.encode()

    def authorizes(self, values: list[str]) -> bool:
        """Whether these are the header's values: exactly one, and the right one."""
        given = values[0].encode("utf-8", "surrogateescape") if len(values) == 1 else b""
        return hmac.compare_digest(given, self._authorization)


class PushReceiver:
    """Listens for pushed SETs at `/signals/NAMESPACE/NAME`. `sources` may change while it runs."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.sources: Mapping[str, PushSource] = {}
        self._host = host
        self._port = port
        self._tls = tls
        self._running = 0
        application = web.Application(client_max_size=MAX_SET_BYTES)
        application.router.add_post("/signals/{namespace}/{name}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, keepalive_timeout=_IDLE_SECONDS,
            max_line_size=_MAX_HEADER, max_field_size=_MAX_HEADER, auto_decompress=False, shutdown_timeout=1.0,
        )  # fmt: skip
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen, and return the port. Raises `SettingsErrors` if the address is unavailable."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            bound = bound_socket(self._host, self._port)
            self._server = await loop.create_server(self._protocol, sock=bound, backlog=_BACKLOG, ssl=self._tls)
        except OSError as error:
            source = f"listener {self._host}:{self._port}"
            fault = Fault(
                source, 0, 0, f"cannot listen: {error.strerror}", "choose another address in `signals.listen`"
            )
            raise SettingsErrors([fault]) from error
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection, which may last for `CONNECTION_SECONDS`."""
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _Refusing()
        protocol = server()
        asyncio.get_running_loop().call_later(CONNECTION_SECONDS, _abort, protocol)
        return protocol

    async def _handle(self, request: web.Request) -> web.Response:
        name = f"{request.match_info['namespace']}/{request.match_info['name']}"
        source = self.sources.get(name)
        if source is None or not source.authorizes(request.headers.getall("Authorization", [])):
            return _error(401, SetErrorCode.AUTHENTICATION_FAILED, "the `Authorization` header is not the stream's")
        if request.content_type != MEDIA_TYPE:
            return _error(400, SetErrorCode.INVALID_REQUEST, f"the content type is not `{MEDIA_TYPE}`")
        if self._running >= MAX_RUNNING:
            return _unavailable()
        self._running += 1
        try:
            async with asyncio.timeout(BODY_SECONDS):
                data = await request.read()
            await source.runtime.receive(data)
        except SetError as error:
            _LOG.warning(
                "a security event is refused: %s", error.description, extra={"source": name, "error": str(error.code)}
            )
            return _error(400, error.code, error.description)
        except web.HTTPRequestEntityTooLarge:
            return _error(400, SetErrorCode.INVALID_REQUEST, f"a SET has at most {MAX_SET_BYTES} bytes")
        except TimeoutError:
            return _error(408, SetErrorCode.INVALID_REQUEST, "the body did not arrive in time")
        except NotNow as error:
            _LOG.warning("a security event can't be taken in: %s", error, extra={"source": name})
            return _unavailable()
        finally:
            self._running -= 1
        return web.Response(status=202)


class _Refusing(asyncio.Protocol):
    """Closes its connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Abort."""
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _abort(protocol: web.RequestHandler) -> None:
    transport = protocol.transport
    if isinstance(transport, asyncio.Transport):
        with suppress(OSError):
            transport.abort()


def _error(status: int, code: SetErrorCode, description: str) -> web.Response:
    body = json.dumps({"err": code, "description": description})
    return web.Response(
        status=status, body=body.encode(), content_type="application/json", headers={"Content-Language": "en"}
    )


def _unavailable() -> web.Response:
    """The answer after which the transmitter sends the SET again."""
    return web.Response(status=503, headers={"Retry-After": str(RETRY_SECONDS)})

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
from typing import TYPE_CHECKING, Final

from aiohttp import web

from zta_authz.administrator.http_listener import HttpListener
from zta_authz.administrator.signals.intake import NotNow
from zta_authz.security_events.set_verifier import MAX_SET_BYTES, MEDIA_TYPE, SetError, SetErrorCode
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from zta_authz.administrator.signals.runtime import SourceRuntime

MAX_RUNNING: Final = 64
"""SETs that are taken in at the same time. More get 503."""
BODY_SECONDS: Final = 10.0
"""Time limit for the body of a request."""
RETRY_SECONDS: Final = 5

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
        self._running = 0
        application = web.Application(client_max_size=MAX_SET_BYTES)
        application.router.add_post("/signals/{namespace}/{name}", self._handle)
        self._listener = HttpListener(application, Endpoint(host=host, port=port), tls=tls)

    async def start(self) -> int:
        """Listen, and return the port. Raises `SettingsErrors` if the address is unavailable."""
        return (await self._listener.start()).port

    async def stop(self) -> None:
        """Stop listening, and close every connection."""
        await self._listener.stop()

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


def _error(status: int, code: SetErrorCode, description: str) -> web.Response:
    body = json.dumps({"err": code, "description": description})
    return web.Response(
        status=status, body=body.encode(), content_type="application/json", headers={"Content-Language": "en"}
    )


def _unavailable() -> web.Response:
    """The answer after which the transmitter sends the SET again."""
    return web.Response(status=503, headers={"Retry-After": str(RETRY_SECONDS)})

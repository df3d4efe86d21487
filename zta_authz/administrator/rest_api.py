"""The administrator's HTTP API: the operations as JSON over HTTP/1.1, on a Unix socket or under TLS.

Nothing that a browser sends by itself is enough to call it: there are no cookies, changes need `POST` with
`content-type: application/json`, which a page of another site can't send without permission (CORS), and no answer gives
that permission. A link in a mail, which is a GET, shows a request and never decides it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qsl

import msgspec
from aiohttp import HttpVersion10, web

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.http_listener import HttpListener
from zta_authz.administrator.local_callers import HttpCallers
from zta_authz.administrator.operations import Origin
from zta_authz.administrator.problems import (
    NOT_EXCHANGED,
    OK,
    RETRY_SECONDS,
    ApiReason,
    CallCounts,
    CallRefused,
    RunningCalls,
    problem_of,
)
from zta_authz.administrator.rest_routes import ROUTES, RestCall
from zta_authz.servers.fast.tls import UnauthorizedPeer
from zta_authz.servers.listeners import SocketAccess, listener_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.administrator.operations import Operations
    from zta_authz.administrator.problems import Problem
    from zta_authz.administrator.rest_routes import Route
    from zta_authz.servers.listeners import Endpoint
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls

MAX_BODY_BYTES: Final = 32 * 1024
BODY_SECONDS: Final = 10.0
"""Time limit for the body of a request."""
MAX_QUERY_FIELDS: Final = 8
MAX_FORM_FIELDS: Final = 32
_API: Final = "http"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Server": "zta-authz",
    "X-Content-Type-Options": "nosniff",
}
_SAME_SITE: Final = ("same-origin", "none")


class TokenReply(msgspec.Struct, frozen=True):
    """An answer of the token endpoint (RFC 6749, sections 5.1 and 5.2): a status and a JSON object."""

    status: int
    fields: dict[str, Any]


class TokenEndpoint(Protocol):
    """Exchanges tokens at `POST /token`."""

    async def exchange(self, origin: Origin, form: Mapping[str, str]) -> TokenReply:
        """Answer a form. Raises what operations raise."""
        ...


class RestApi:
    """Serves the operations at one address. A `Server` of a `ServerGroup`."""

    def __init__(
        self,
        operations: Operations,
        endpoint: Endpoint,
        trust_domain: str,
        *,
        tls: MutualTls | SvidTls | None = None,
        access: SocketAccess = SocketAccess(),  # noqa: B008  frozen
        token: TokenEndpoint | None = None,
        counts: CallCounts | None = None,
    ) -> None:
        """`tls`, which admits `local_callers.operators`, is for TCP. `token` also answers `POST /token`.

        Raises:
            SettingsErrors: The address is reachable from other machines, and there is no TLS; or TLS can't be used.
        """
        if tls is None and not endpoint.is_local:
            hint = "set `tls`, or listen on a Unix socket or on a loopback address"
            raise listener_error(endpoint, "other machines could read the tokens of its callers on the way", hint)
        self.addresses: tuple[Endpoint, ...] = ()
        """The address that it listens on, with the port chosen; empty before the start."""
        self._operations = operations
        self._token = token
        self._callers = HttpCallers(trust_domain, None if endpoint.is_unix else tls)
        self._calls = RunningCalls()
        self._counts = CallCounts() if counts is None else counts
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._answer])
        for route in ROUTES:
            application.router.add_route(route.method, route.path, self._handler(route))
        if token is not None:
            application.router.add_post("/token", self._exchange)
        self._listener = HttpListener(application, endpoint, tls=self._callers.context, access=access)

    async def start(self) -> None:
        """Listen. Raises `SettingsErrors` if the address is unavailable."""
        self.addresses = (await self._listener.start(),)

    async def stop(self, grace: float) -> None:
        """Accept no new calls, and wait up to `grace` seconds for those in flight."""
        await self._listener.stop(grace)

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            origin = self._origin(request)
            data = b"" if route.body is None else await _body(request, _JSON)
            call = RestCall(
                origin, request.match_info.get("id", ""), read_query(request.rel_url.raw_query_string), data
            )
            return _response(200, await self._calls.run(route.handler(self._operations, call)))

        return handle

    async def _exchange(self, request: web.Request) -> web.Response:
        if self._token is None:
            raise CallRefused(ApiReason.NO_SUCH_PATH, "there is no such path")
        origin = self._origin(request)
        form = read_form(await _body(request, _FORM))
        reply = await self._calls.run(self._token.exchange(origin, form))
        return _response(reply.status, reply.fields)

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer errors by problems, and count the call."""
        allow = ""
        try:
            if request.version < HttpVersion10:
                raise CallRefused(ApiReason.MALFORMED, "this version of HTTP is too old")
            response = await handler(request)
        except web.HTTPException as error:
            problem, allow = problem_of(_as_refusal(error)), error.headers.get("Allow", "")
        except Exception as error:  # noqa: BLE001  a client gets no exception, whatever it is
            problem = problem_of(error)
        else:
            self._counts.add(_API, OK if response.status < HTTPStatus.BAD_REQUEST else NOT_EXCHANGED)
            return response
        self._counts.add(_API, problem.reason)
        return _refusal(problem, allow)

    def _origin(self, request: web.Request) -> Origin:
        """Who calls. Raises `OperationRefused` and `CallRefused`."""
        _check_site(request)
        try:
            principal = self._callers.principal(request.transport)
        except UnauthorizedPeer:
            raise OperationRefused(Refusal.UNAUTHENTICATED, "the client certificate is not accepted") from None
        tokens = request.headers.getall("Authorization", [])
        if len(tokens) > 1 or not all(token.isascii() for token in tokens):
            raise OperationRefused(
                Refusal.UNAUTHENTICATED, "the request has several authorization headers, or a bad one"
            )
        return Origin(principal, tokens[0] if tokens else "")


def _as_refusal(error: web.HTTPException) -> CallRefused:
    if isinstance(error, web.HTTPNotFound):
        return CallRefused(ApiReason.NO_SUCH_PATH, "there is no such path")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return CallRefused(ApiReason.METHOD_NOT_ALLOWED, f"use {', '.join(sorted(error.allowed_methods))}")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return CallRefused(ApiReason.TOO_LARGE, f"a body has at most {MAX_BODY_BYTES} bytes")
    return CallRefused(ApiReason.MALFORMED, error.reason)


def _check_site(request: web.Request) -> None:
    """Refuse what a page of another site sends (Fetch Metadata; RFC 6454, section 7). Raises `CallRefused`."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    own = f"{request.scheme}://{request.headers.get('Host', '')}"
    if site not in _SAME_SITE or (origin is not None and origin != own):
        raise CallRefused(ApiReason.CROSS_SITE, "this API does not answer pages of other sites")


async def _body(request: web.Request, media_type: str) -> bytes:
    """The body. Raises `CallRefused`."""
    if request.content_type != media_type or len(request.headers.getall("Content-Type", [])) != 1:
        raise CallRefused(ApiReason.UNSUPPORTED_MEDIA_TYPE, f"the content type has to be `{media_type}`")
    if "Content-Encoding" in request.headers:
        raise CallRefused(ApiReason.UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not read")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise CallRefused(ApiReason.MALFORMED, "the body did not arrive in time") from None
    except (web.RequestPayloadError, OSError):  # malformed chunks; the client went away
        raise CallRefused(ApiReason.MALFORMED, "the body is not complete") from None


def read_query(text: str) -> list[tuple[str, str]]:
    """The fields of a query. Raises `CallRefused`."""
    return _pairs(text, MAX_QUERY_FIELDS)


def read_form(data: bytes) -> dict[str, str]:
    """The fields of a form, none of which may be repeated (RFC 6749, section 3.2). Raises `CallRefused`."""
    pairs = _pairs(data.decode("latin-1"), MAX_FORM_FIELDS)
    form = dict(pairs)
    if len(form) != len(pairs):
        raise CallRefused(ApiReason.MALFORMED, "a field is repeated")
    return form


def _pairs(text: str, most: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=most)
    except ValueError:  # includes UnicodeError
        raise CallRefused(ApiReason.MALFORMED, "the query or the form can't be read") from None


def _response(status: int, fields: Mapping[str, Any]) -> web.Response:
    passing = {"Retry-After": str(RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    body = msgspec.json.encode(fields)
    return web.Response(status=status, body=body, content_type=_JSON, headers=_HEADERS | passing)


def _refusal(problem: Problem, allow: str = "") -> web.Response:
    headers = dict(_HEADERS)
    if problem.is_passing:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if problem.challenge:
        headers["WWW-Authenticate"] = problem.challenge
    if allow:
        headers["Allow"] = allow
    body = msgspec.json.encode(problem.members())
    return web.Response(status=problem.kind.status, body=body, content_type="application/problem+json", headers=headers)

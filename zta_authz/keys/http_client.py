"""A bounded HTTP client for keys and transmitters: https, checked addresses, same-origin redirects, limited size.

The client resolves names itself and connects only to the addresses that it checked, so DNS rebinding has no effect.
It ignores proxies, cookies and credentials of the environment.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from zta_authz import __version__
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.addresses import PUBLIC_ONLY, AddressRules, literal_address
from zta_authz.keys.freshness import max_age
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_BYTES: Final = 256 * 1024
MAX_WIRE_BYTES: Final = 2 * MAX_BYTES
"""Limit for all bytes of a connection: 1xx responses and chunk framing would otherwise be unbounded."""
MAX_SECONDS: Final = 60.0
MAX_REDIRECTS: Final = 3
MAX_ADDRESS: Final = 2048
"""Characters of a URL. Metadata and redirects supply URLs too, and the cost of parsing grows faster than the length."""
MAX_HOST_ADDRESSES: Final = 64
"""Checked addresses per host: a name server can return thousands."""
MAX_LOOKUPS: Final = 4
"""Concurrent name look-ups. Each blocks a thread for as long as the system's resolver takes."""

_PIECE_BYTES: Final = 16 * 1024
"""Approximate size of the receive buffer and so of one read: nothing else runs while a read is parsed."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_RETRY_AFTER: Final = re.compile(r"[0-9]{1,6}")
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    "Accept-Encoding": "identity",  # the size of compressed content can't be limited
    "User-Agent": f"zta-authz/{__version__}",
}


@dataclass(frozen=True, slots=True)
class HttpDocument:
    """A fetched document, and for how many seconds it stays fresh (None: its sender does not say)."""

    body: bytes
    max_age: float | None


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer of any status. `retry_after` is in seconds, None if the header is absent or a date."""

    status: int
    body: bytes
    retry_after: float | None = None


def trusted_authorities(ca_file: str | None) -> ssl.SSLContext:
    """Create a TLS context that verifies names and chains with the system's authorities and those in `ca_file` (PEM).

    Raises `SettingsErrors` if the file can't be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # includes ssl.SSLError
        no_pem = isinstance(error, ssl.SSLError)
        message = "contains no certificate in PEM format" if no_pem else f"cannot be read: {error.strerror}"
        raise SettingsErrors([Fault(ca_file, 0, 0, message, "correct `jwks.ca_file`")]) from error
    return context


def checked_address(address: str, rules: AddressRules, *, allow_http: bool) -> URL:
    """Parse `address` as a URL that may be fetched. Its host name is checked again when it is resolved.

    Raises `FetchFailed`.
    """
    schemes = ("https", "http") if allow_http else ("https",)
    if len(address) > MAX_ADDRESS:
        raise FetchFailed(FetchOutcome.REFUSED_URL, f"the URL has more than {MAX_ADDRESS} characters")
    try:
        url = URL(address)
        host = url.raw_host  # the form that is resolved and connected to
        port = url.port
    except ValueError:
        raise FetchFailed(FetchOutcome.REFUSED_URL, "not a URL") from None
    if url.scheme not in schemes:
        raise FetchFailed(FetchOutcome.REFUSED_URL, f"the URL's scheme must be {' or '.join(schemes)}")
    if not host or not port or url.raw_user is not None or url.raw_password is not None:
        raise FetchFailed(FetchOutcome.REFUSED_URL, "the URL must have a host, and neither a user nor a password")
    literal = literal_address(host)
    if literal is None and not _NAME.fullmatch(host):
        raise FetchFailed(FetchOutcome.REFUSED_URL, "the host is neither a name nor an IP address in standard form")
    if literal is not None and not rules.permit(host, literal):
        raise FetchFailed(FetchOutcome.REFUSED_ADDRESS, "connecting to the host's address is not permitted")
    return url


class HttpClient:
    """Fetches small documents. `resolve` maps a name and port to addresses (default: the system's resolver)."""

    def __init__(
        self,
        rules: AddressRules = PUBLIC_ONLY,
        *,
        allow_http: bool = False,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._rules = rules
        self._allow_http = allow_http
        self._tls = tls
        self._lookups = ThreadPoolExecutor(MAX_LOOKUPS, "key-lookup")
        self._resolve = resolve or self._resolve_by_system
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections. Name look-ups in progress end on their own."""
        self._lookups.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()

    async def get(self, address: str) -> HttpDocument:
        """Fetch the document at `address`. The caller limits the time. Raises `FetchFailed`."""
        url = self._check(address)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with AsyncExitStack() as stack:
                    session = await self._open_session()
                    response = await stack.enter_async_context(session.get(url, allow_redirects=False))
                    if response.status not in _REDIRECTS:
                        return await _document_of(response)
                    url = self._redirect_target(url, response.headers.get("Location", ""))
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise _failure(error) from error
        raise FetchFailed(FetchOutcome.REFUSED_REDIRECT, f"more than {MAX_REDIRECTS} redirects")

    async def send(
        self, method: str, address: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> HttpReply:
        """Send a request and return the answer, whatever its status. The caller limits the time. Raises `FetchFailed`.

        A redirect is a failure: it would take the request's credentials and body elsewhere.
        """
        url = self._check(address)
        try:
            session = await self._open_session()
            async with session.request(method, url, headers=headers, data=body, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    raise FetchFailed(FetchOutcome.REFUSED_REDIRECT, "redirected, although this request must not be")
                seconds = response.headers.get("Retry-After", "")
                retry_after = float(seconds) if _RETRY_AFTER.fullmatch(seconds) else None
                return HttpReply(response.status, await _body_of(response), retry_after)
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise _failure(error) from error

    def _check(self, address: str) -> URL:
        return checked_address(address, self._rules, allow_http=self._allow_http)

    def _redirect_target(self, url: URL, location: str) -> URL:
        if len(location) > MAX_ADDRESS:
            raise FetchFailed(
                FetchOutcome.REFUSED_REDIRECT, f"redirected to a URL of more than {MAX_ADDRESS} characters"
            )
        try:
            target = url.join(URL(location))
            other_origin = not location or target.origin() != url.origin()
        except ValueError:
            raise FetchFailed(FetchOutcome.REFUSED_REDIRECT, "redirected to an invalid URL") from None
        if other_origin:
            raise FetchFailed(FetchOutcome.REFUSED_REDIRECT, "redirected to another host, port or scheme")
        return self._check(str(target))

    async def _open_session(self) -> aiohttp.ClientSession:
        # in a thread: loading the system's authorities would block requests for too long
        if self._tls is None:
            self._tls = await asyncio.to_thread(trusted_authorities, None)
        if self._session is None:
            connector = _BoundedConnector(_CheckingResolver(self._permitted), self._tls)
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def _permitted(self, host: str, port: int) -> list[str]:
        """Resolve `host` to the addresses that may be connected to. Raises `FetchFailed` if none may."""
        resolved = await self._resolve(host, port)
        permitted = []
        for text in dict.fromkeys(resolved[:MAX_HOST_ADDRESSES]):
            address = literal_address(text)
            if address is not None and self._rules.permit(host, address):
                permitted.append(text)
        if not permitted:
            raise FetchFailed(
                FetchOutcome.REFUSED_ADDRESS, f"none of the host's {len(resolved)} addresses is permitted"
            )
        return permitted

    async def _resolve_by_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lookups, _look_up, host, port)


def _look_up(host: str, port: int) -> list[str]:
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(entry[4][0]) for entry in entries]


class _BoundedProtocol(ResponseHandler):
    """Closes its connection after `MAX_WIRE_BYTES`."""

    _left = MAX_WIRE_BYTES

    def data_received(self, data: bytes) -> None:
        """Parse received bytes within the limit."""
        self._left -= len(data)
        if self._left >= 0:
            super().data_received(data)
        elif self.transport is not None:
            self.set_exception(OSError(errno.EMSGSIZE, f"the server sent more than {MAX_WIRE_BYTES // 1024} KiB"))
            self.transport.abort()


class _BoundedConnector(aiohttp.TCPConnector):
    """Makes connections that read small pieces and at most `MAX_WIRE_BYTES`."""

    def __init__(self, resolver: AbstractResolver, tls: ssl.SSLContext) -> None:
        super().__init__(
            resolver=resolver, ssl=tls, use_dns_cache=False, force_close=True, socket_factory=_small_buffer_socket
        )
        bounded = partial(_BoundedProtocol, loop=asyncio.get_running_loop())
        # not public API: `tests/attack/test_key_servers.py` checks that it still takes effect
        self._factory = cast("partial[ResponseHandler]", bounded)


def _small_buffer_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE_BYTES)
    return sock


class _CheckingResolver(AbstractResolver):
    """Gives aiohttp only checked addresses. aiohttp connects to exactly these."""

    def __init__(self, permitted: Resolve) -> None:
        self._permitted = permitted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._permitted(host, port)
        ]

    async def close(self) -> None:
        """Do nothing: the resolver keeps no state."""


async def _document_of(response: aiohttp.ClientResponse) -> HttpDocument:
    if response.status != 200:
        raise FetchFailed(FetchOutcome.STATUS, f"the response status is {response.status}")
    body = await _body_of(response)
    cache_control = ",".join(response.headers.getall("Cache-Control", ()))
    return HttpDocument(body, max_age(cache_control, response.headers.get("Age", "")))


async def _body_of(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchFailed(FetchOutcome.WRONG_CONTENT, "the response is compressed although `identity` was requested")
    body = bytearray()
    if (response.content_length or 0) <= MAX_BYTES:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BYTES:
                break
        else:
            return bytes(body)
    raise FetchFailed(FetchOutcome.TOO_LARGE, f"the response has more than {MAX_BYTES // 1024} KiB")


def _failure(error: Exception) -> FetchFailed:
    """Describe `error` without its own text, which may contain data from the server."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "refused"
        return FetchFailed(FetchOutcome.TLS, f"the server's certificate does not verify: {why}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FetchFailed(FetchOutcome.TLS, "the TLS handshake failed")
    if isinstance(error, aiohttp.InvalidURL):
        return FetchFailed(FetchOutcome.REFUSED_URL, "not a URL")
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return FetchFailed(FetchOutcome.UNREACHABLE, "the host name does not resolve")
    if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
        return FetchFailed(FetchOutcome.TOO_LARGE, f"the server sent more than {MAX_WIRE_BYTES // 1024} KiB")
    if isinstance(error, OSError) and error.strerror:
        return FetchFailed(FetchOutcome.UNREACHABLE, f"can't connect: {error.strerror}")
    message = f"the connection broke, or the server does not speak HTTP ({type(error).__name__})"
    return FetchFailed(FetchOutcome.UNREACHABLE, message)

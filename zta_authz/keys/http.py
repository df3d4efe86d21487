"""One bounded GET for key material: https, checked addresses, no foreign redirects, a limit in bytes and in time.

Names are resolved here, and the connection goes to the very addresses that were checked: a name that changes its
address in between (DNS rebinding) changes nothing. Proxies, cookies and credentials of the environment are not used.
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
from zta_authz.keys.outcomes import FetchFailed, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_BYTES: Final = 256 * 1024
MAX_WIRE_BYTES: Final = 2 * MAX_BYTES
"""Of one connection, whatever they are: answers before the answer (1xx), and what frames content, have no end else."""
MAX_SECONDS: Final = 60.0
MAX_REDIRECTS: Final = 3
MAX_ADDRESS: Final = 2048
"""Characters of an address. Issuer metadata and redirects name them too, and reading one costs more than its length."""
MAX_HOST_ADDRESSES: Final = 64
"""Of one host, that are looked at: a name server can answer with thousands."""
MAX_LOOKUPS: Final = 4
"""Name look-ups at once. They block a thread each, for as long as the system's resolver likes."""

_PIECE_BYTES: Final = 16 * 1024
"""What the system keeps for us at most, about, and what is read at once: nothing else runs while it is parsed."""
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    "Accept-Encoding": "identity",  # what is compressed has no size that could be limited
    "User-Agent": f"zta-authz/{__version__}",
}


@dataclass(frozen=True, slots=True)
class HttpDocument:
    """What was fetched, and for how many seconds its sender says that it holds (None: does not say)."""

    body: bytes
    max_age: float | None


def trusted_authorities(ca_file: str | None) -> ssl.SSLContext:
    """TLS that verifies names and chains with the system's authorities and those in `ca_file` (PEM).

    Raises `SettingsErrors` where the file can't be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:  # ssl.SSLError is one
        said = "holds no certificate in PEM" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise SettingsErrors([Fault(ca_file, 0, 0, said, "mend `jwks.ca_file`")]) from error
    return context


def checked_address(address: str, rules: AddressRules, *, allow_http: bool) -> URL:
    """The address, if it is one that may be asked; names are checked again as they are resolved.

    Raises `FetchFailed`.
    """
    schemes = ("https", "http") if allow_http else ("https",)
    if len(address) > MAX_ADDRESS:
        raise FetchFailed(Outcome.REFUSED_URL, f"an address of more than {MAX_ADDRESS} characters")
    try:
        url = URL(address)
        host = url.raw_host  # as it is looked up and connected to
        port = url.port
    except ValueError:
        raise FetchFailed(Outcome.REFUSED_URL, "not an address") from None
    if url.scheme not in schemes:
        raise FetchFailed(Outcome.REFUSED_URL, f"only {' and '.join(schemes)} may be used")
    if not host or not port or url.raw_user is not None or url.raw_password is not None:
        raise FetchFailed(Outcome.REFUSED_URL, "an address has a host and no user")
    literal = literal_address(host)
    if literal is None and not _NAME.fullmatch(host):
        raise FetchFailed(Outcome.REFUSED_URL, "the host is neither a name nor a plain address")
    if literal is not None and not rules.permit(host, literal):
        raise FetchFailed(Outcome.REFUSED_ADDRESS, "the host is an address that may not be asked")
    return url


class HttpClient:
    """Fetches small documents. `resolve` (name and port to addresses) is the system's where none is given."""

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
        self._resolve = resolve or self._ask_system
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close what is open. Look-ups under way are left to end by themselves."""
        self._lookups.shutdown(wait=False, cancel_futures=True)
        if self._session is not None:
            await self._session.close()

    async def get(self, address: str) -> HttpDocument:
        """The document at `address`. Raises `FetchFailed`; the caller limits the time."""
        url = self._check(address)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with AsyncExitStack() as stack:
                    session = await self._open_session()
                    response = await stack.enter_async_context(session.get(url, allow_redirects=False))
                    if response.status not in _REDIRECTS:
                        return await _document_of(response)
                    url = self._redirected(url, response.headers.get("Location", ""))
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            raise _failure(error) from error
        raise FetchFailed(Outcome.REFUSED_REDIRECT, f"more than {MAX_REDIRECTS} redirects")

    def _check(self, address: str) -> URL:
        return checked_address(address, self._rules, allow_http=self._allow_http)

    def _redirected(self, url: URL, location: str) -> URL:
        if len(location) > MAX_ADDRESS:
            raise FetchFailed(Outcome.REFUSED_REDIRECT, f"redirected to more than {MAX_ADDRESS} characters")
        try:
            target = url.join(URL(location))
            elsewhere = not location or target.origin() != url.origin()
        except ValueError:
            raise FetchFailed(Outcome.REFUSED_REDIRECT, "redirected to what is no address") from None
        if elsewhere:
            raise FetchFailed(Outcome.REFUSED_REDIRECT, "redirected to another host, port or scheme")
        return self._check(str(target))

    async def _open_session(self) -> aiohttp.ClientSession:
        # in a thread: the system's authorities take longer to read than a request may wait
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
        """The addresses of `host` that may be asked. Raises `FetchFailed` where there are none."""
        found = await self._resolve(host, port)
        permitted = []
        for text in dict.fromkeys(found[:MAX_HOST_ADDRESSES]):
            address = literal_address(text)
            if address is not None and self._rules.permit(host, address):
                permitted.append(text)
        if not permitted:
            raise FetchFailed(Outcome.REFUSED_ADDRESS, f"none of the host's {len(found)} addresses may be asked")
        return permitted

    async def _ask_system(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._lookups, _look_up, host, port)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(entry[4][0]) for entry in found]


class _BoundedProtocol(ResponseHandler):
    """Takes `MAX_WIRE_BYTES` from its connection; more ends it."""

    _left = MAX_WIRE_BYTES

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._left -= len(data)
        if self._left >= 0:
            super().data_received(data)
        elif self.transport is not None:
            self.set_exception(OSError(errno.EMSGSIZE, f"more than {MAX_WIRE_BYTES // 1024} KiB were sent"))
            self.transport.abort()


class _BoundedConnector(aiohttp.TCPConnector):
    """Reads from each connection in small pieces, and no more than there may be."""

    def __init__(self, resolver: AbstractResolver, tls: ssl.SSLContext) -> None:
        super().__init__(
            resolver=resolver, ssl=tls, use_dns_cache=False, force_close=True, socket_factory=_socket_of_small_pieces
        )
        bounded = partial(_BoundedProtocol, loop=asyncio.get_running_loop())
        # not public: `tests/attack/test_key_servers.py` sees whether it still counts
        self._factory = cast("partial[ResponseHandler]", bounded)


def _socket_of_small_pieces(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE_BYTES)
    return made


class _CheckingResolver(AbstractResolver):
    """Gives aiohttp nothing but addresses that were checked; it connects to what it is given."""

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
        """Nothing is held."""


async def _document_of(response: aiohttp.ClientResponse) -> HttpDocument:
    if response.status != 200:
        raise FetchFailed(Outcome.STATUS, f"the answer's status is {response.status}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise FetchFailed(Outcome.WRONG_CONTENT, "the answer is compressed, which was not asked for")
    body = bytearray()
    if (response.content_length or 0) <= MAX_BYTES:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_BYTES:
                break
        else:
            cache_control = ",".join(response.headers.getall("Cache-Control", ()))
            return HttpDocument(bytes(body), max_age(cache_control, response.headers.get("Age", "")))
    raise FetchFailed(Outcome.TOO_LARGE, f"the answer has more than {MAX_BYTES // 1024} KiB")


def _failure(error: Exception) -> FetchFailed:
    """What went wrong in our own words: exceptions' texts may hold what the other side sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else "not accepted"
        return FetchFailed(Outcome.TLS, f"the server's certificate does not verify: {why}")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FetchFailed(Outcome.TLS, "no TLS connection can be made")
    if isinstance(error, aiohttp.InvalidURL):
        return FetchFailed(Outcome.REFUSED_URL, "not an address")
    if isinstance(error, aiohttp.ClientConnectorDNSError | socket.gaierror):
        return FetchFailed(Outcome.UNREACHABLE, "the host's name does not resolve")
    if isinstance(error, OSError) and error.errno == errno.EMSGSIZE:
        return FetchFailed(Outcome.TOO_LARGE, f"more than {MAX_WIRE_BYTES // 1024} KiB were sent")
    if isinstance(error, OSError) and error.strerror:
        return FetchFailed(Outcome.UNREACHABLE, f"no connection: {error.strerror}")
    return FetchFailed(Outcome.UNREACHABLE, f"the connection broke, or it is not HTTP ({type(error).__name__})")

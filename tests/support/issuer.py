"""A token issuer's web server on loopback, programmed path by path; in the test's own loop, or in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.pki import jwks, pem, private_key, root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.support.pki import Signer

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

KEYS = "/keys.json"
METADATA = "/.well-known/openid-configuration"
HOST = "issuer.test"


class IssuerServer:
    """What it answers is in `answers`, by path; `asked` are the paths it was asked for, `headers` those of the last."""

    def __init__(self, scheme: str = "http") -> None:
        self.answers: dict[str, Handler] = {}
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.scheme = scheme
        self.port = 0

    def url(self, path: str = "", host: str = "127.0.0.1") -> str:
        """The address of `path`."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def say(self, path: str, body: str | bytes, status: int = 200, **headers: str) -> None:
        """Answer `path` with these; `_` in a header's name stands for `-`."""
        content = body if isinstance(body, bytes) else body.encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=content, status=status, headers=named)

        self.answers[path] = answer

    def publish(self, *signers: Signer, **headers: str) -> None:
        """Answer `KEYS` with the keys of `signers`."""
        self.say(KEYS, jwks(signers), **headers)

    def describe(self, issuer: str, **more: Any) -> None:
        """Answer `METADATA` as `issuer` whose keys are at `KEYS`; `more` are other members."""
        self.say(METADATA, json.dumps({"issuer": issuer, "jwks_uri": self.url(KEYS)} | more))

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        """Redirect requests for `path` to `to`."""
        self.say(path, b"", status, Location=to)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return the programmed response, otherwise 404."""
        self.asked.append(request.path)
        self.headers = dict(request.headers)
        handler = self.answers.get(request.path)
        return web.Response(status=404) if handler is None else await handler(request)


@asynccontextmanager
async def issuer_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[IssuerServer]:
    """A server in this loop, over TLS where a context is given."""
    server = IssuerServer("http" if tls is None else "https")
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", server.answer)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()


@contextmanager
def issuer_in_thread(tls: ssl.SSLContext | None = None) -> Iterator[IssuerServer]:
    """The same for tests that are not coroutines."""
    started: list[IssuerServer] = []
    loops: list[asyncio.AbstractEventLoop] = []
    ready = threading.Event()
    done = asyncio.Event()

    async def serve() -> None:
        async with issuer_server(tls) as server:
            started.append(server)
            loops.append(asyncio.get_running_loop())
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield started[0]
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join(10)


def server_tls(directory: Path, *hosts: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for `hosts` (`HOST` unless given) from an authority of its own, and that authority's file."""
    validity = {"not_before": time.time() - 60, "not_after": time.time() + 3600}
    authority = root("issuers' authority", **validity)
    key = private_key("P-256", 4711)
    certificate = authority.issue(uris=(), dns=hosts or (HOST,), key=key, **validity)
    chain = directory / "server.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(pem(certificate).encode() + secret)
    ca = directory / "authority.pem"
    ca.write_text(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context, ca

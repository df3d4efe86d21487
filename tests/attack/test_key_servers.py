"""Key servers that send content that is slow to parse, while the service answers in the same event loop.

Each document has the maximum size. The measurement is the longest time for which nothing else ran, the minimum of
three tries, because test machines are slow and shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.support.issuer import KEYS, METADATA, issuer_in_thread
from tests.support.pki import Signer, jwks
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.bundle_endpoint import BundleEndpoint, BundleEndpointRefresher
from zta_authz.keys.bundle_store import BundleStore
from zta_authz.keys.http_client import MAX_BYTES, HttpClient
from zta_authz.keys.jwks import JwksLoader, KeySource
from zta_authz.keys.outcomes import FetchFailed
from zta_authz.model.spiffe import TrustDomain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.issuer import IssuerServer

    Fetch = Callable[[], Awaitable[object]]

MAX_STALL_SECONDS = 0.2
"""The proxy's timeout."""
TICK_SECONDS = 0.002
MAX_CONTENT_BYTES = MAX_BYTES - 4096


async def longest_stall(fetch: Fetch) -> float:
    """The longest time for which the event loop ran nothing else during `fetch`, in seconds."""
    longest = 0.0
    over = False

    async def tick() -> None:
        nonlocal longest
        while not over:
            begun = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, time.monotonic() - begun - TICK_SECONDS)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        await fetch()
    except FetchFailed:
        pass  # refused: only the cost matters
    finally:
        await asyncio.sleep(0)
        over = True
        await ticking
    return longest


async def least_stall(fetch: Fetch) -> float:
    return min([await longest_stall(fetch) for _ in range(3)])


def client() -> HttpClient:
    """A client for http on loopback, without the system's certificate authorities."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return HttpClient(AddressRules(allow_private=True), allow_http=True, tls=tls)


def fetch_keys(server: IssuerServer, *, discovered: bool) -> Fetch:
    async def fetch() -> object:
        loader = JwksLoader(client())
        try:
            return await loader.load(KeySource(server.url("" if discovered else KEYS), discovered), 20)
        finally:
            await loader.close()

    return fetch


def slow_headers(value: str) -> Callable[[IssuerServer], None]:
    return lambda server: server.publish(Signer(), Cache_Control=value)


def metadata(server: IssuerServer, **members: object) -> str:
    return json.dumps({"issuer": server.url(), "jwks_uri": server.url(KEYS)} | members, ensure_ascii=False)


def describe(**members: object) -> Callable[[IssuerServer], None]:
    def programme(server: IssuerServer) -> None:
        server.say(METADATA, metadata(server, **members))
        server.publish(Signer())

    return programme


HEADERS: dict[str, Callable[[IssuerServer], None]] = {
    "blanks after a directive": slow_headers("a" + " " * 8000 + ";"),
    "a directive without end": slow_headers("a" * 8000 + ";"),
    "a quotation without end": slow_headers('a="' + "\\a" * 3990),
    "a redirect to a long host": lambda server: server.redirect(KEYS, "https://" + "ü." * 2600),
}
DOCUMENTS: dict[str, Callable[[IssuerServer], None]] = {
    "many lists": describe(more=[[]] * (MAX_CONTENT_BYTES // 4)),
    "many objects": describe(more=[{}] * (MAX_CONTENT_BYTES // 4)),
    "many numbers": describe(more=[0.1] * (MAX_CONTENT_BYTES // 6)),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_a_key_servers_headers_do_not_block_the_event_loop(name: str) -> None:
    with issuer_in_thread() as server:
        HEADERS[name](server)
        assert await least_stall(fetch_keys(server, discovered=False)) < MAX_STALL_SECONDS


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_an_issuers_metadata_does_not_block_the_event_loop(name: str) -> None:
    with issuer_in_thread() as server:
        DOCUMENTS[name](server)
        assert await least_stall(fetch_keys(server, discovered=True)) < MAX_STALL_SECONDS


async def test_a_long_address_in_the_metadata_does_not_block_the_event_loop() -> None:
    """Each address has new labels, which no cache contains."""
    with issuer_in_thread() as server:

        async def fetch() -> object:
            labels = "".join(f"ü{secrets.token_hex(3)}." for _ in range(MAX_CONTENT_BYTES // 12))
            server.say(METADATA, metadata(server, jwks_uri=f"https://{labels}example"))
            return await fetch_keys(server, discovered=True)()

        assert await least_stall(fetch) < MAX_STALL_SECONDS


async def test_key_sets_and_bundles_do_not_block_the_event_loop() -> None:
    slow = json.dumps({"keys": [[]] * (MAX_CONTENT_BYTES // 4)})
    with issuer_in_thread() as server:
        server.say(KEYS, slow)
        assert await least_stall(fetch_keys(server, discovered=False)) < MAX_STALL_SECONDS

    async def endpoint(_endpoint: object, _bundles: object) -> bytes:
        return slow.encode()

    async def try_once() -> None:
        domain = TrustDomain("example.org")
        keeper = BundleEndpointRefresher(
            BundleEndpoint(domain, "https://bundles.example"), BundleStore({}), fetch=endpoint
        )
        running = asyncio.create_task(keeper.run())
        await keeper.tried.wait()
        running.cancel()

    assert await least_stall(try_once) < MAX_STALL_SECONDS


async def test_the_measurement_detects_a_stall_and_finds_none_in_an_ordinary_fetch() -> None:
    """The control: an ordinary fetch by metadata, and a deliberately blocked loop."""
    with issuer_in_thread() as server:
        describe()(server)
        server.say(KEYS, jwks([Signer()]), Cache_Control="public, max-age=600, must-revalidate")
        fetched = await fetch_keys(server, discovered=True)()
        assert getattr(fetched, "max_age") == 600  # noqa: B009
        assert await least_stall(fetch_keys(server, discovered=True)) < MAX_STALL_SECONDS

    async def block_loop() -> None:
        time.sleep(2 * MAX_STALL_SECONDS)  # noqa: ASYNC251  on purpose

    assert await least_stall(block_loop) > MAX_STALL_SECONDS


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE_SECONDS = 20.0


@contextlib.asynccontextmanager
async def sending(first: bytes, again: bytes = b"") -> AsyncIterator[str]:
    """Start a server that sends `first`, then `again` endlessly; yield its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            while again:
                writer.write(again)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("first", "again"),
    [(b"", EARLY * 100), (CHUNKED, b"1;" + b"a" * 4000 + b"\r\n \r\n")],
    ids=["answers before the answer", "long extensions of chunks"],
)
def test_bytes_around_the_content_are_limited(
    first: bytes, again: bytes, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def fetch() -> None:
        async with sending(first, again) as address:
            http_client = client()
            with pytest.raises(FetchFailed):  # without the limit it would be TimeoutError
                await asyncio.wait_for(http_client.get(address), PATIENCE_SECONDS)
            await http_client.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(fetch())


async def test_control_an_answer_may_follow_interim_responses() -> None:
    body = jwks().encode()
    async with sending(EARLY * 3 + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as address:
        http_client = client()
        assert (await http_client.get(address)).body == body
        await http_client.close()

"""The limits of the administrator's HTTP listener, and what it answers to malformed requests."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from zta_authz.administrator import http_listener
from zta_authz.administrator.http_listener import MAX_HEADER_BYTES, MAX_HEADERS, HttpListener
from zta_authz.errors import SettingsErrors
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ON_UVLOOP = True
ANYWHERE = Endpoint(host="127.0.0.1")
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"
ONE = GET + b"Connection: close\r\n\r\n"


async def echo(request: web.Request) -> web.Response:
    if request.path == "/fail":
        raise ValueError("the secret of the handler")
    return web.Response(body=await request.read() or b"answer")


@asynccontextmanager
async def listening(endpoint: Endpoint = ANYWHERE) -> AsyncIterator[tuple[HttpListener, Endpoint]]:
    application = web.Application(client_max_size=1024)
    application.router.add_route("*", "/{path}", echo)
    listener = HttpListener(application, endpoint)
    yield listener, await listener.start()
    await listener.stop()


async def exchange(endpoint: Endpoint, data: bytes) -> bytes:
    reader, writer = (
        await asyncio.open_unix_connection(endpoint.path)
        if endpoint.is_unix
        else await asyncio.open_connection(endpoint.host, endpoint.port)
    )
    writer.write(data)
    answer = await rest(reader)
    writer.close()
    return answer


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed or reset."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


async def test_a_request_is_answered_over_tcp_and_over_a_unix_socket(tmp_path: Path) -> None:
    for endpoint in (ANYWHERE, Endpoint(path=str(tmp_path / "http.sock"))):
        async with listening(endpoint) as (_, address):
            assert (await exchange(address, ONE)).endswith(b"\r\n\r\nanswer")
    assert os.listdir(tmp_path) == []


async def test_connections_past_the_limit_replace_the_oldest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 2)
    async with listening() as (listener, address):
        oldest, *others = [await asyncio.open_connection(address.host, address.port) for _ in range(3)]
        assert await rest(oldest[0]) == b""
        assert (await exchange(address, ONE)).endswith(b"answer")
        assert len(listener.connections) <= 2
        for _, writer in (oldest, *others):
            writer.close()


async def test_a_connection_ends_whether_or_not_it_sends_or_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "CONNECTION_SECONDS", 0.05)
    async with listening() as (listener, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(GET)  # without its end
        assert await rest(reader) == b""
        assert not listener.connections
        writer.close()


async def test_an_old_connection_closes_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "REUSE_SECONDS", -1.0)
    async with listening() as (_, address):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(GET + b"\r\n")
        assert b"Connection: close" in await asyncio.wait_for(reader.read(), 10)
        writer.close()


MALFORMED = {
    "a header with a control character": GET + b"Authorization: Bearer s3cret\x01\r\n\r\n",
    "a header without a colon": GET + b"Bearer s3cret\r\n\r\n",
    "a long header": GET + b"Authorization: s3cret" + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
    "a long line": b"GET /s3cret" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n",
    "too many headers": GET + b"a: s3cret\r\n" * MAX_HEADERS + b"\r\n",
    "two lengths": GET + b"Content-Length: 6\r\nContent-Length: 7\r\n\r\ns3cret!",
    "a length and chunks": GET + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\ns3cret",
    "another encoding last": GET + b"Transfer-Encoding: chunked, gzip\r\n\r\ns3cret",
    "a signed length": GET + b"Content-Length: +6\r\n\r\ns3cret",
    "a space before the colon": GET + b"Content-Length : 6\r\n\r\ns3cret",
    "a folded header": GET + b"a: b\r\n s3cret\r\n\r\n",
    "a bare line feed": b"GET /x HTTP/1.1\nHost: s3cret\n\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ns3cret",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01s3cret\r\n\r\n",
    "a chunk's size that is no number": GET + b"Transfer-Encoding: chunked\r\n\r\ns3cret\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_request_is_refused_and_appears_nowhere(data: bytes, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    async with listening() as (_, address):
        answer = await exchange(address, data)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
        assert b"s3cret" not in answer
        assert answer.count(b"HTTP/1.") <= 1, "what follows is not another request"
        assert "s3cret" not in caplog.text
        assert (await exchange(address, ONE)).endswith(b"answer")


async def test_a_failure_is_not_described_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (_, address):
        answer = await exchange(address, b"GET /fail HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_an_address_that_is_in_use_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    for endpoint in (ANYWHERE, Endpoint(path=str(tmp_path / "http.sock"))):
        async with listening(endpoint) as (_, address):
            with pytest.raises(SettingsErrors, match="listen"):
                await HttpListener(web.Application(), address).start()

"""The fast server's own side: who may ask, how many, in what order, and its life."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import hpack
import pytest
from hyperframe.frame import GoAwayFrame, HeadersFrame

from tests.integration.test_servers import EchoingChecks, ask, names_in, replace_with_a_file
from tests.support.h2_peer import PATH, block, call_with, frames_of, message
from zta_authz.errors import Reason, SettingsErrors
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, ErrorCode, Event
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.servers.fast.connection import FastConnection
from zta_authz.servers.fast.registry import Limits
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.methods import AUTHORIZATION_SERVICE, authorization_methods, unread_checks

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hyperframe.frame import Frame


@asynccontextmanager
async def serving(checks: EchoingChecks, *endpoints: Endpoint, **options: Any) -> AsyncIterator[FastServer]:
    server = FastServer(authorization_methods(checks), endpoints, SocketAccess(), **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.mark.parametrize("whole", [True, False], ids=["sent whole", "announced only"])
async def test_a_check_that_is_too_large_leaves_a_record(endpoint: Endpoint, whole: bool) -> None:
    checks = EchoingChecks()
    bounds = Bounds(max_message_bytes=1000)
    async with serving(checks, endpoint, bounds=bounds, unread=unread_checks(checks)), connected(endpoint) as raw:
        content = message(b"x" * 1001)
        head = PREFACE + settings(()) + frame(1, 4, 1, block())
        raw.writer.write(head + (frame(0, 1, 1, content) if whole else frame(0, 0, 1, content[:5])))
        other = frame(1, 4, 3, block(call_with((":path", "/grpc.health.v1.Health/Check")))) + frame(0, 1, 3, content)
        raw.writer.write(other + whole_call(5))
        async with asyncio.timeout(10):
            await checks.entered.wait()
    assert checks.reasons == [Reason.REQUEST_TOO_LARGE]


@pytest.mark.parametrize("size", [5 * 1024 * 1024, 40 * 1024 * 1024])
async def test_a_message_past_the_bound_is_a_denial_and_the_server_goes_on(endpoint: Endpoint, size: int) -> None:
    checks = EchoingChecks()
    async with serving(checks, endpoint, unread=unread_checks(checks)):
        assert await ask(endpoint, bytes(size)) == b"refused request_too_large"
        assert await ask(endpoint) == b"echo x"


async def test_a_streaming_method_is_unimplemented_at_once(endpoint: Endpoint) -> None:
    """Its client says nothing and waits."""
    async with serving(EchoingChecks(), endpoint), grpc.aio.insecure_channel(f"unix:{endpoint.path}") as channel:
        call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(timeout=5)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(path=str(tmp_path / "authz.sock"))


class Raw:
    """A connection that writes bytes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def until_closed(self) -> list[Frame]:
        async with asyncio.timeout(10):
            return frames_of(await self.reader.read())


@asynccontextmanager
async def connected(endpoint: Endpoint, context: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    if endpoint.is_unix:
        reader, writer = await asyncio.open_unix_connection(endpoint.path)
    else:
        name = "authz.test" if context else None
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=name)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def whole_call(stream: int, content: bytes = b"x", *changes: tuple[str, str | None]) -> bytes:
    return frame(1, 4, stream, block(call_with(*changes))) + frame(0, 1, stream, message(content))


# life


async def test_it_listens_on_several_sockets_and_addresses(tmp_path: Path) -> None:
    wanted = (Endpoint(path=str(tmp_path / "a")), Endpoint(host="127.0.0.1"), Endpoint(host="::1"))
    async with serving(EchoingChecks(), *wanted) as server:
        assert [await ask(address) for address in server.addresses] == [b"echo x"] * 3


async def test_sockets_are_ours_alone_and_gone_afterwards(tmp_path: Path, endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):
        with pytest.raises(SettingsErrors, match="another server holds this socket"):
            async with serving(EchoingChecks(), endpoint):
                pass
        assert await ask(endpoint) == b"echo x"
        assert os.stat(endpoint.path).st_mode & 0o777 == 0o660
    assert names_in(tmp_path) == []


async def test_a_stale_socket_is_replaced_and_a_file_of_others_left(tmp_path: Path, endpoint: Endpoint) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(endpoint.path)
    async with serving(EchoingChecks(), endpoint):
        assert await ask(endpoint) == b"echo x"
        replace_with_a_file(tmp_path / "authz.sock")
    assert names_in(tmp_path) == ["authz.sock"]


async def test_a_port_in_use_and_a_directory_that_is_missing_are_faults_and_leave_nothing(tmp_path: Path) -> None:
    async with serving(EchoingChecks(), Endpoint(host="127.0.0.1")) as server:
        wanted = (server.addresses[0], Endpoint(path=str(tmp_path / "none" / "x")), Endpoint(path=str(tmp_path / "ok")))
        with pytest.raises(SettingsErrors) as caught:
            async with serving(EchoingChecks(), *wanted):
                pass
    assert [
        "Address already in use" in str(fault) or "does not exist" in str(fault) for fault in caught.value.faults
    ] == [True, True]
    assert names_in(tmp_path) == []


async def test_stopping_ends_idle_connections_soon(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint) as server, grpc.aio.insecure_channel(str(endpoint)) as channel:
        assert await channel.unary_unary(PATH)(b"x", timeout=5) == b"echo x"
        await asyncio.wait_for(server.stop(10), 3)


async def test_stopping_waits_no_longer_for_a_client_that_says_nothing(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint) as server, connected(endpoint) as peer:
        peer.writer.write(PREFACE + settings(()))
        await peer.reader.readexactly(9)
        await asyncio.wait_for(server.stop(10), 5)


async def test_a_connection_that_has_ended_leaves_nothing_for_the_garbage_collector(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):

        async def come_and_go() -> None:
            async with connected(endpoint) as peer:
                peer.writer.write(PREFACE + settings(()) + whole_call(1))
                await peer.reader.read(100)
            await asyncio.sleep(0.05)

        await come_and_go()
        gc.collect()
        gc.disable()
        try:
            await come_and_go()
            left = [each for each in gc.get_objects() if isinstance(each, Connection | FastConnection)]
        finally:
            gc.enable()
    assert left == []


# calls


async def test_the_calls_metadata_reaches_the_servicer(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    async with serving(checks, endpoint):
        await ask(endpoint, metadata=(("traceparent", "00-1-2-01"),))
    assert ("traceparent", "00-1-2-01") in checks.metadata[0]


async def test_a_deadline_that_has_passed_already_is_a_denial_without_work(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    async with serving(checks, endpoint), connected(endpoint) as peer:
        peer.writer.write(PREFACE + settings(()) + whole_call(1, b"x", ("grpc-timeout", "0m")))
        answer = b""
        while b"grpc-status" not in answer:
            answer += await asyncio.wait_for(peer.reader.read(1000), 5)
    assert b"refused deadline_exceeded" in answer
    assert b"grpc-status\x010" in answer
    assert checks.metadata == []


async def test_thousands_of_calls_in_one_piece_are_all_answered(endpoint: Endpoint) -> None:
    count = 1000
    async with serving(EchoingChecks(), endpoint), connected(endpoint) as peer:
        hello = PREFACE + settings(((4, 2**30),)) + frame(8, 0, 0, (2**30).to_bytes(4, "big"))
        peer.writer.write(hello + b"".join(whole_call(2 * number + 1) for number in range(count)))
        answer = b""
        async with asyncio.timeout(30):
            while answer.count(b"grpc-status\x010") < count:
                answer += await peer.reader.read(1 << 16)
    assert answer.count(b"echo x") == count


async def test_stopping_answers_what_was_read_before_it(endpoint: Endpoint) -> None:
    count = 1000
    checks = EchoingChecks()
    async with serving(checks, endpoint) as server, connected(endpoint) as peer:
        hello = PREFACE + settings(((4, 2**30),)) + frame(8, 0, 0, (2**30).to_bytes(4, "big"))
        peer.writer.write(hello + b"".join(whole_call(2 * number + 1) for number in range(count)))
        await checks.entered.wait()
        assert len(checks.metadata) < count
        stopping = asyncio.create_task(server.stop(10))
        answer = b""
        async with asyncio.timeout(30):
            while more := await peer.reader.read(1 << 16):
                answer += more
            await stopping
    assert answer.count(b"echo x") == answer.count(b"grpc-status\x010") == count


async def test_a_large_piece_of_input_is_read_in_turns(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []
    receive = Connection.receive

    def noted(connection: Connection, data: bytes, now: float) -> list[Event]:
        pieces.append(len(data))
        return receive(connection, data, now)

    monkeypatch.setattr(Connection, "receive", noted)
    content = bytes(300_000)
    async with serving(EchoingChecks(), endpoint):
        assert await ask(endpoint, content) == b"echo " + content
    assert max(pieces) <= 16 * 1024
    assert sum(pieces) > len(content)


async def test_of_connections_that_hold_too_much_together_the_heaviest_ends(endpoint: Endpoint) -> None:
    def begun(size: int) -> bytes:
        start = frame(1, 4, 1, block()) + frame(0, 0, 1, b"\0" + (10**6).to_bytes(4, "big"))
        return PREFACE + settings(()) + start + frame(0, 0, 1, bytes(size)) * 8

    async with (
        serving(EchoingChecks(), endpoint, limits=Limits(max_held_bytes=150_000)),
        connected(endpoint) as heavy,
        connected(endpoint) as light,
    ):
        heavy.writer.write(begun(12_000))
        await asyncio.sleep(0.1)
        light.writer.write(begun(10_000))
        ended = (await heavy.until_closed())[-1]
        assert (ended.error_code, ended.additional_data) == (
            ErrorCode.ENHANCE_YOUR_CALM,
            b"the server buffers too much",
        )
        light.writer.write(whole_call(3))
        assert await asyncio.wait_for(light.reader.readuntil(b"echo x"), 5)


async def test_health_is_told_before_anything_else_is_ready(endpoint: Endpoint) -> None:
    health = Health((AUTHORIZATION_SERVICE,))
    async with serving(EchoingChecks(), endpoint, health=health):
        answer = await ask(endpoint, b"", "/grpc.health.v1.Health/Check")
        assert answer == b"\x08\x02"  # NOT_SERVING


async def test_a_health_request_that_is_no_message_fails(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint, health=Health(())):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(endpoint, b"\xff", "/grpc.health.v1.Health/Check")
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_one_connection_more_than_may_be_is_closed_and_the_others_go_on(endpoint: Endpoint) -> None:
    async with (
        serving(EchoingChecks(), endpoint, limits=Limits(max_connections=2)),
        connected(endpoint) as one,
        connected(endpoint),
    ):
        await one.reader.readexactly(9)
        async with connected(endpoint) as third:
            assert await third.until_closed() == []
        one.writer.write(PREFACE + settings(()) + whole_call(1))
        assert b"echo x" in await asyncio.wait_for(one.reader.readuntil(b"echo x"), 5)


# who may ask


async def test_a_peer_of_a_listed_user_may_ask(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint, peer_uids=[os.getuid()]):
        assert await ask(endpoint) == b"echo x"


def statuses(replies: list[Frame]) -> list[str]:
    """What each answer among them says."""
    decoder = hpack.Decoder()
    heads = [dict(decoder.decode(reply.data)) for reply in replies if isinstance(reply, HeadersFrame)]
    return [str(head["grpc-status"]) for head in heads if "grpc-status" in head]


async def test_a_peer_of_another_user_is_turned_away_unread(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with serving(checks, endpoint, peer_uids=[os.getuid() + 1]):
            await ask(endpoint)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "caller_not_allowed"
    assert checks.metadata == []


async def test_a_peer_that_may_not_ask_is_told_so_for_its_calls_and_drained_after_a_while(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    limits = Limits(stranger_seconds=1.0)
    async with serving(checks, endpoint, peer_uids=[os.getuid() + 1], limits=limits), connected(endpoint) as peer:
        peer.writer.write(PREFACE + settings(()) + b"".join(whole_call(2 * n + 1) for n in range(1000)))
        replies = await peer.until_closed()
    assert statuses(replies) == ["7"] * 1000
    assert [reply.error_code for reply in replies if isinstance(reply, GoAwayFrame)] == [0, 0]
    assert checks.metadata == []


async def test_of_too_many_peers_that_may_not_ask_the_oldest_goes(endpoint: Endpoint) -> None:
    limits = Limits(max_strangers=2)
    async with (
        serving(EchoingChecks(), endpoint, peer_uids=[os.getuid() + 1], limits=limits),
        connected(endpoint) as first,
        connected(endpoint) as second,
    ):
        await first.reader.readexactly(9)
        await second.reader.readexactly(9)
        async with connected(endpoint) as third:
            await third.reader.readexactly(9)
            await first.until_closed()
            for peer in (second, third):
                peer.writer.write(PREFACE + settings(()) + whole_call(1))
                await asyncio.wait_for(peer.reader.readuntil(b"caller_not_allowed"), 5)


async def test_an_old_connection_is_drained(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint, bounds=Bounds(max_age_seconds=0.5)), connected(endpoint) as peer:
        peer.writer.write(PREFACE + settings(()))
        replies = await peer.until_closed()
    assert [getattr(reply, "last_stream_id", None) for reply in replies if type(reply).__name__ == "GoAwayFrame"] == [
        2**31 - 1,
        0,
    ]

"""The fast server's own side: who may ask, how many, in what order, and its life."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import hpack
import pytest
from hyperframe.frame import GoAwayFrame, HeadersFrame

from tests.integration.test_servers import EchoingChecks, ask, names_in, replace_with_a_file
from tests.integration.test_tls import ENVOY, OTHER, Files, key_pem, root
from tests.support.h2_peer import PATH, block, call_with, frames_of, message
from tests.support.pki import pem, private_key
from zta_authz.errors import SettingsErrors
from zta_authz.ext_authz.fast_accept import TlsAcceptor
from zta_authz.ext_authz.fast_server import FastServer
from zta_authz.ext_authz.fast_serving import Limits
from zta_authz.ext_authz.fast_tls import FilesListener
from zta_authz.ext_authz.listeners import Endpoint, SocketAccess
from zta_authz.ext_authz.servers import AUTHORIZATION_SERVICE, Health, authorization_methods
from zta_authz.grpc_h2.bounds import Bounds
from zta_authz.grpc_h2.connection import Connection, ErrorCode, Event
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.grpc_h2.messages import whole_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from hyperframe.frame import Frame


@asynccontextmanager
async def serving(
    checks: EchoingChecks, *endpoints: Endpoint, limit: int = 10, **options: Any
) -> AsyncIterator[FastServer]:
    server = FastServer(authorization_methods(checks, limit), endpoints, SocketAccess(), **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(path=str(tmp_path / "authz.sock"))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    made = Files(root("ca", **validity), tmp_path, validity)
    made.write(1)
    return made


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


AFTER_ECHO = whole_answer(1, b"echo x").partition(b"echo x")[2]


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


# calls


async def test_past_the_limit_a_call_is_answered_at_once_with_a_denial(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    checks.gate.clear()
    async with serving(checks, endpoint, limit=1):
        first = asyncio.create_task(ask(endpoint, b"1"))
        await checks.entered.wait()
        assert await ask(endpoint, b"2") == b"refused overloaded"
        checks.gate.set()
        assert await first == b"echo 1"
        assert await ask(endpoint, b"3") == b"echo 3"


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
        assert (ended.error_code, ended.additional_data) == (ErrorCode.ENHANCE_YOUR_CALM, b"the server holds too much")
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


def client_context(files: Files, certificate: str | None, number: int = 2, **versions: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=files.authority.pem)
    context.set_alpn_protocols(["h2"])
    for name, value in versions.items():
        setattr(context, name, value)
    if certificate is not None:
        (files.directory / "client.pem").write_text(certificate)
        (files.directory / "client.key").write_bytes(key_pem(number))
        context.load_cert_chain(files.directory / "client.pem", files.directory / "client.key")
    return context


@asynccontextmanager
async def secured(files: Files, checks: EchoingChecks, *allowed: str, **options: Any) -> AsyncIterator[Endpoint]:
    tls = files.mutual_tls(*(allowed or (ENVOY,)))
    async with serving(checks, Endpoint(host="127.0.0.1"), tls=tls, **options) as server:
        yield server.addresses[0]


async def ask_secured(endpoint: Endpoint, context: ssl.SSLContext) -> bytes:
    """The answer to one call, b"" where there is none."""
    try:
        async with connected(endpoint, context) as peer:
            peer.writer.write(PREFACE + settings(()) + whole_call(1))
            async with asyncio.timeout(10):
                seen = b""
                while b"grpc-status" not in seen:
                    more = await peer.reader.read(4096)
                    if not more:
                        return b""
                    seen += more
            return seen
    except (ssl.SSLError, ConnectionError):
        return b""


async def test_a_caller_of_the_list_is_served_over_mutual_tls_and_named(files: Files) -> None:
    named = []

    class Naming(EchoingChecks):
        async def check(self, payload: bytes, metadata: Any, caller: str = "") -> bytes:
            named.append(caller)
            return await super().check(payload, metadata, caller)

    async with secured(files, Naming()) as endpoint:
        assert b"echo x" in await ask_secured(endpoint, client_context(files, files.issue(ENVOY, 2)))
    assert named == [ENVOY]


async def test_grpcios_client_is_served_over_mutual_tls(files: Files) -> None:
    credentials = grpc.ssl_channel_credentials(files.authority.pem.encode(), key_pem(2), files.issue(ENVOY, 2).encode())
    options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
    async with (
        secured(files, EchoingChecks()) as endpoint,
        grpc.aio.secure_channel(str(endpoint), credentials, options=options) as channel,
    ):
        assert await channel.unary_unary(PATH)(b"x", timeout=10) == b"echo x"


async def test_a_caller_who_is_not_on_the_list_is_turned_away_unread(files: Files) -> None:
    checks = EchoingChecks()
    async with (
        secured(files, checks) as endpoint,
        connected(endpoint, client_context(files, files.issue(OTHER, 2))) as peer,
    ):
        peer.writer.write(PREFACE + settings(()) + whole_call(1) + frame(1, 4, 3, b"\xff\xff") + frame(0, 1, 3, b"x"))
        async with asyncio.timeout(10):
            seen = b""
            while seen.count(b"caller_not_allowed") < 2:  # the second call's fields are garbage, and not looked at
                seen += await peer.reader.read(4096)
    assert checks.metadata == []


async def test_a_caller_with_two_names_is_turned_away(files: Files) -> None:
    both = pem(files.authority.issue(uris=(ENVOY, OTHER), key=private_key("P-256", 2), **files.validity))
    async with secured(files, EchoingChecks()) as endpoint:
        assert b"caller_not_allowed" in await ask_secured(endpoint, client_context(files, both))


async def test_a_caller_who_can_not_be_judged_is_turned_away(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception while judging must not leave an open connection of nobody."""

    def fail(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(FilesListener, "caller_of", fail)
    checks = EchoingChecks()
    async with secured(files, checks) as endpoint:
        assert b"caller_not_allowed" in await ask_secured(endpoint, client_context(files, files.issue(ENVOY, 2)))
    assert checks.metadata == []


async def test_without_a_certificate_or_with_a_strangers_there_is_no_connection(files: Files) -> None:
    stranger = root("stranger", **files.validity)
    async with secured(files, EchoingChecks()) as endpoint:
        assert await ask_secured(endpoint, client_context(files, None)) == b""
        assert await ask_secured(endpoint, client_context(files, files.issue(ENVOY, 2, stranger))) == b""


async def test_tls_1_2_and_other_protocols_than_h2_are_refused(files: Files) -> None:
    async with secured(files, EchoingChecks()) as endpoint:
        old = client_context(files, files.issue(ENVOY, 2), maximum_version=ssl.TLSVersion.TLSv1_2)
        assert await ask_secured(endpoint, old) == b""
        other = client_context(files, files.issue(ENVOY, 2))
        other.set_alpn_protocols(["http/1.1"])
        assert await ask_secured(endpoint, other) == b""


class Exhausted:
    """A listening socket whose process has no file descriptor left for the first few connections."""

    def __init__(self, listening: socket.socket) -> None:
        self.left = 3
        self.accepted = listening.accept
        self.fileno = listening.fileno
        self.close = listening.close

    def accept(self) -> tuple[socket.socket, Any]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.accepted()


async def test_without_a_file_descriptor_left_it_waits_and_accepts_later(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zta_authz.ext_authz.fast_accept._PAUSE_SECONDS", 0.05)
    async with serving(EchoingChecks(), Endpoint(host="127.0.0.1"), tls=files.mutual_tls(ENVOY)) as server:
        (acceptor,) = server._listeners
        assert isinstance(acceptor, TlsAcceptor)
        exhausted = Exhausted(acceptor._listening)
        monkeypatch.setattr(acceptor, "_listening", exhausted)
        assert b"echo x" in await ask_secured(server.addresses[0], client_context(files, files.issue(ENVOY, 2)))
    assert exhausted.left == 0
    assert "Too many open files" in caplog.text


async def test_a_handshake_that_is_not_finished_ends_in_time_and_for_a_new_one(files: Files) -> None:
    limits = Limits(max_handshakes=2, handshake_seconds=3.0)
    async with secured(files, EchoingChecks(), limits=limits) as endpoint, AsyncExitStack() as stack:
        begun = asyncio.get_running_loop().time()
        silent = [await stack.enter_async_context(connected(endpoint)) for _ in range(2)]
        assert b"echo x" in await ask_secured(endpoint, client_context(files, files.issue(ENVOY, 2)))
        assert await silent[0].until_closed() == []
        assert asyncio.get_running_loop().time() - begun < 2.5
        assert await silent[1].until_closed() == []


async def test_sessions_are_not_resumed(files: Files) -> None:
    async with secured(files, EchoingChecks()) as endpoint:
        context = client_context(files, files.issue(ENVOY, 2))
        async with connected(endpoint, context) as peer:
            peer.writer.write(PREFACE + settings(()) + whole_call(1))
            await peer.reader.readuntil(b"echo x")
            made = peer.writer.get_extra_info("ssl_object")
            assert made.session is None or not made.session.has_ticket


async def test_before_its_certificate_expires_a_caller_is_asked_to_come_with_another(files: Files) -> None:
    short = Files(files.authority, files.directory, files.validity | {"not_after": time.time() + 4})
    async with (
        secured(files, EchoingChecks()) as endpoint,
        connected(endpoint, client_context(files, short.issue(ENVOY, 2))) as peer,
    ):
        peer.writer.write(PREFACE + settings(()) + whole_call(1))
        await asyncio.wait_for(peer.reader.readuntil(b"echo x"), 5)
        replies = frames_of((await asyncio.wait_for(peer.reader.read(), 10))[len(AFTER_ECHO) :])
        assert time.time() < short.validity["not_after"]
    assert [reply.error_code for reply in replies if isinstance(reply, GoAwayFrame)] == [0, 0]


async def test_a_caller_whose_certificate_has_expired_is_told_so_and_not_heard(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zta_authz.ext_authz.fast_connection._RENEW_SECONDS", 0.0)
    short = Files(files.authority, files.directory, files.validity | {"not_after": time.time() + 2})
    checks = EchoingChecks()
    async with (
        secured(files, checks) as endpoint,
        connected(endpoint, client_context(files, short.issue(ENVOY, 2))) as peer,
    ):
        peer.writer.write(PREFACE + settings(()) + whole_call(1))
        await asyncio.wait_for(peer.reader.readuntil(b"echo x"), 5)
        await asyncio.sleep(max(0.0, short.validity["not_after"] - time.time()))
        peer.writer.write(whole_call(3))
        rest = await asyncio.wait_for(peer.reader.read(), 10)
    assert b"caller_not_allowed" in rest
    assert len(checks.metadata) == 1


async def test_changed_certificates_are_taken_for_new_connections(files: Files) -> None:
    async with secured(files, EchoingChecks()) as endpoint:
        context = client_context(files, files.issue(ENVOY, 2))
        before = await server_certificate(endpoint, context)
        files.write(3)
        assert await server_certificate(endpoint, context) != before
        assert b"echo x" in await ask_secured(endpoint, context)


async def test_a_changed_authority_is_taken_for_new_connections(files: Files) -> None:
    new = root("new", **files.validity)
    async with secured(files, EchoingChecks()) as endpoint:
        old_caller, new_caller = files.issue(ENVOY, 2), files.issue(ENVOY, 2, new)
        assert await ask_secured(endpoint, client_context(files, new_caller)) == b""
        (files.directory / "ca.pem").write_text(new.pem)
        assert b"echo x" in await ask_secured(endpoint, client_context(files, new_caller))
        assert await ask_secured(endpoint, client_context(files, old_caller)) == b""


async def test_changed_files_that_are_wrong_are_not_taken(files: Files) -> None:
    async with secured(files, EchoingChecks()) as endpoint:
        context = client_context(files, files.issue(ENVOY, 2))
        (files.directory / "cert.pem").write_text("half of it")
        assert b"echo x" in await ask_secured(endpoint, context)


async def server_certificate(endpoint: Endpoint, context: ssl.SSLContext) -> bytes:
    async with connected(endpoint, context) as peer:
        found: bytes = peer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found


async def test_an_old_connection_is_drained(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint, bounds=Bounds(max_age_seconds=0.5)), connected(endpoint) as peer:
        peer.writer.write(PREFACE + settings(()))
        replies = await peer.until_closed()
    assert [getattr(reply, "last_stream_id", None) for reply in replies if type(reply).__name__ == "GoAwayFrame"] == [
        2**31 - 1,
        0,
    ]

"""The fast server under mutual TLS: who gets through the handshake, who may ask, and certificates that change."""

from __future__ import annotations

import asyncio
import errno
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from hyperframe.frame import GoAwayFrame, RstStreamFrame

from tests.integration.test_fast_server import connected, serving, whole_call
from tests.integration.test_servers import EchoingChecks
from tests.integration.test_tls import ENVOY, OTHER, Files, key_pem, root
from tests.support.h2_peer import PATH, frames_of
from tests.support.pki import HERE, pem, private_key
from zta_authz.authn.revocation import Revocations
from zta_authz.grpc_h2.errors import ErrorCode
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.grpc_h2.outbound import whole_answer
from zta_authz.model.documents import Revocation, RevocationList, Revoked
from zta_authz.servers.fast.accept import TlsAcceptor
from zta_authz.servers.fast.registry import Limits
from zta_authz.servers.fast.tls import FilesListener
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator
    from pathlib import Path

AFTER_ECHO = whole_answer(1, b"echo x").partition(b"echo x")[2]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    made = Files(root("ca", **validity), tmp_path, validity)
    made.write(1)
    return made


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
        def check(self, payload: bytes, metadata: Any, caller: str = "") -> bytes:
            named.append(caller)
            return super().check(payload, metadata, caller)

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
    monkeypatch.setattr("zta_authz.servers.fast.accept._PAUSE_SECONDS", 0.05)
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


async def test_a_caller_whose_certificate_has_expired_is_not_heard_and_may_ask_again_elsewhere(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not drained before the call: the connection is still open when the certificate has expired.
    monkeypatch.setattr("zta_authz.servers.fast.connection._RENEW_SECONDS", -60.0)
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
    replies = frames_of(rest[len(AFTER_ECHO) :])
    assert [reply.error_code for reply in replies if isinstance(reply, GoAwayFrame)] == [0]
    resets = [(reply.stream_id, reply.error_code) for reply in replies if isinstance(reply, RstStreamFrame)]
    assert resets == [(3, ErrorCode.REFUSED_STREAM)]
    assert len(checks.metadata) == 1


@pytest.mark.parametrize("what", [Revoked.SPIFFE_ID, Revoked.SERIAL])
async def test_a_caller_that_a_revocation_list_names_is_not_heard_from_then_on(files: Files, what: Revoked) -> None:
    checks, tls = EchoingChecks(), files.mutual_tls(ENVOY)
    leaf = files.issue(ENVOY, 2)
    serial = str(x509.load_pem_x509_certificate(leaf.encode()).serial_number)
    entry = Revocation(what, ENVOY if what is Revoked.SPIFFE_ID else serial)
    async with serving(checks, Endpoint(host="127.0.0.1"), tls=tls) as server:
        endpoint, context = server.addresses[0], client_context(files, leaf)
        async with connected(endpoint, context) as peer:
            peer.writer.write(PREFACE + settings(()) + whole_call(1))
            await asyncio.wait_for(peer.reader.readuntil(b"echo x"), 5)
            tls.revocations.current = Revocations([RevocationList("l", "n", HERE, (entry,))])
            peer.writer.write(whole_call(3))
            replies = frames_of((await asyncio.wait_for(peer.reader.read(), 10))[len(AFTER_ECHO) :])
        resets = [(reply.stream_id, reply.error_code) for reply in replies if isinstance(reply, RstStreamFrame)]
        assert resets == [(3, ErrorCode.REFUSED_STREAM)]
        assert b"caller_not_allowed" in await ask_secured(endpoint, context)
        tls.revocations.current = Revocations()
        assert b"echo x" in await ask_secured(endpoint, context)
    assert len(checks.metadata) == 2


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

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.pki import HERE, Authority, pem, private_key, root
from zta_authz.authn.revocation import Revocations
from zta_authz.errors import SettingsErrors
from zta_authz.model.documents import Revocation, RevocationList, Revoked
from zta_authz.servers.grpcio.admitted_peers import AdmittedPeers
from zta_authz.servers.grpcio.guards import guard
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.tls import MutualTls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ENVOY = "spiffe://cluster.local/ns/default/sa/envoy"
OTHER = "spiffe://cluster.local/ns/default/sa/other"


def key_pem(number: int, password: bytes = b"") -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return private_key("P-256", number).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


@dataclass
class Files:
    """An authority and our own certificate, in files."""

    authority: Authority
    directory: Path
    validity: dict[str, float]

    def write(self, number: int) -> None:
        ours = self.issue("spiffe://cluster.local/ns/default/sa/authz", number)
        (self.directory / "cert.pem").write_text(ours)
        (self.directory / "key.pem").write_bytes(key_pem(number))
        (self.directory / "ca.pem").write_text(self.authority.pem)

    def issue(self, spiffe_id: str, number: int, authority: Authority | None = None) -> str:
        issuer = authority or self.authority
        key = private_key("P-256", number)
        return pem(issuer.issue(uris=(spiffe_id,), dns=("authz.test",), key=key, **self.validity))

    def mutual_tls(self, *allowed: str) -> MutualTls:
        return MutualTls(*(str(self.directory / name) for name in ("cert.pem", "key.pem", "ca.pem")), allowed)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    made = Files(root("ca", **validity), tmp_path, validity)
    made.write(1)
    return made


@asynccontextmanager
async def serving(tls: MutualTls, seen: list[bytes], peers: set[str] | None = None) -> AsyncIterator[str]:
    async def echo(payload: bytes, context: Any, _caller: str) -> bytes:
        seen.append(payload)
        if peers is not None:
            peers.add(context.peer())
        return b"echo " + payload

    health = Health(())
    server = GrpcServer(
        {"test.Echo": {"Say": echo}}, [Endpoint(host="127.0.0.1")], SocketAccess(), health=health, tls=tls
    )
    await server.start()
    try:
        yield str(server.addresses[0])
    finally:
        await server.stop(0)


async def say(address: str, files: Files, certificate: str | None, number: int = 2) -> bytes:
    key = key_pem(number) if certificate else None
    async with open_channel(address, files, certificate, key) as channel:
        answer: bytes = await channel.unary_unary("/test.Echo/Say")(b"x", timeout=5)
        return answer


def open_channel(address: str, files: Files, certificate: str | None, key: bytes | None) -> Any:
    credentials = grpc.ssl_channel_credentials(
        files.authority.pem.encode(), key, certificate.encode() if certificate else None
    )
    options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(address, credentials, options=options)


async def status_of(channel: Any, method: str = "/test.Echo/Say") -> grpc.StatusCode:
    """What a call on a connection that may stand already comes to."""
    call = channel.unary_unary(method)(b"", timeout=5, wait_for_ready=True)
    with suppress(grpc.aio.AioRpcError):
        await call
    status: grpc.StatusCode = await call.code()
    return status


async def status_on_new(channel: Any) -> grpc.StatusCode:
    """The same, once the client has noticed that its connection is over."""
    for _ in range(20):
        status = await status_of(channel)
        if status is not grpc.StatusCode.UNAVAILABLE:
            break
    return status


@pytest.mark.parametrize("method", ["/test.Echo/Say", "/grpc.health.v1.Health/Check", "/test.Echo/Unknown"])
async def test_a_connection_whose_caller_was_let_in_and_has_expired_ends_instead_of_refusing_for_ever(
    files: Files, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    later = 0.0
    tls = MutualTls(*files.mutual_tls().files, (ENVOY,), lambda: time.time() + later)
    async with serving(tls, []) as address:
        certificate = files.issue(ENVOY, 2)
        async with open_channel(address, files, certificate, key_pem(2)) as standing:
            assert await status_of(standing) is grpc.StatusCode.OK
            later = 7200.0
            assert await status_of(standing, method) is grpc.StatusCode.UNAVAILABLE  # what a proxy tries again
            assert "no longer valid" in caplog.text
            assert await status_on_new(standing) is grpc.StatusCode.PERMISSION_DENIED  # with the old certificate
            later = 0.0  # as if it had come with a new certificate
            assert await status_on_new(standing) is grpc.StatusCode.OK


async def test_a_caller_that_a_revocation_list_names_may_not_ask_until_the_list_is_gone(files: Files) -> None:
    tls = files.mutual_tls(ENVOY)
    leaf = files.issue(ENVOY, 2)
    serial = str(x509.load_pem_x509_certificate(leaf.encode()).serial_number)
    async with serving(tls, []) as address, open_channel(address, files, leaf, key_pem(2)) as standing:
        for what, value in ((Revoked.SPIFFE_ID, ENVOY), (Revoked.SERIAL, serial)):
            assert await status_of(standing) is grpc.StatusCode.OK
            tls.revocations.current = Revocations([RevocationList("l", "n", HERE, (Revocation(what, value),))])
            assert await status_of(standing) is grpc.StatusCode.UNAVAILABLE
            assert await status_on_new(standing) is grpc.StatusCode.PERMISSION_DENIED
            tls.revocations.current = Revocations()


async def test_a_connection_is_replaced_when_it_is_old_and_no_call_fails(files: Files) -> None:
    peers: set[str] = set()
    tls = MutualTls(*files.mutual_tls().files, (ENVOY,), max_connection_age=0.3)
    async with (
        serving(tls, [], peers) as address,
        open_channel(address, files, files.issue(ENVOY, 2), key_pem(2)) as standing,
    ):
        begun = time.monotonic()
        while len(peers) < 4:
            assert await status_of(standing) is grpc.StatusCode.OK
            assert time.monotonic() - begun < 20


async def test_a_caller_of_the_list_is_served(files: Files) -> None:
    async with serving(files.mutual_tls(ENVOY), []) as address:
        assert await say(address, files, files.issue(ENVOY, 2)) == b"echo x"


async def test_a_caller_of_our_authority_who_is_not_on_the_list_is_refused_before_its_bytes_are_seen(
    files: Files,
) -> None:
    seen: list[bytes] = []
    async with serving(files.mutual_tls(ENVOY), seen) as address:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(address, files, files.issue(OTHER, 2))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details() == "caller_not_allowed"
    assert seen == []


async def test_reflection_answers_callers_of_the_list_only(files: Files) -> None:
    tls = files.mutual_tls(ENVOY)
    server = GrpcServer({}, [Endpoint(host="127.0.0.1")], SocketAccess(), tls=tls, with_reflection=True)
    await server.start()
    try:
        address = str(server.addresses[0])
        assert "grpc.reflection.v1alpha.ServerReflection" in await reflected_services(address, files, ENVOY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected_services(address, files, OTHER)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details() == "caller_not_allowed"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected_services(address, files, ENVOY, b"\xff")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
    finally:
        await server.stop(0)


LIST_SERVICES = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()


async def reflected_services(address: str, files: Files, spiffe_id: str, question: bytes = LIST_SERVICES) -> list[str]:
    credentials = grpc.ssl_channel_credentials(
        files.authority.pem.encode(), key_pem(2), files.issue(spiffe_id, 2).encode()
    )
    options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        ask: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        async for answer in ask(iter([question]), timeout=5):
            return [service.name for service in answer.list_services_response.service]
    return []


async def test_a_caller_of_another_authority_does_not_get_through_the_handshake(files: Files) -> None:
    stranger = root("stranger", **files.validity)
    async with serving(files.mutual_tls(ENVOY), []) as address:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(address, files, files.issue(ENVOY, 2, stranger))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_without_a_certificate_does_not_get_through_the_handshake(files: Files) -> None:
    async with serving(files.mutual_tls(ENVOY), []) as address:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await say(address, files, None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


class FakeContext:
    """A call's context with the connection's properties, which refuses as gRPC does."""

    def __init__(self, **properties: bytes | list[bytes]) -> None:
        self._properties = {k: v if isinstance(v, list) else [v] for k, v in properties.items()}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._properties

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise PermissionError(code, details)


async def guarded_call(files: Files, context: FakeContext) -> bytes:
    async def served(_payload: bytes, _context: Any, caller: str) -> bytes:
        assert caller == ENVOY
        return b"served"

    return await guard(served, files.mutual_tls(ENVOY), AdmittedPeers())(b"x", context)


async def test_the_guard_wants_tls_1_3_and_exactly_one_allowed_name(files: Files) -> None:
    name, certificate = ENVOY.encode(), files.issue(ENVOY, 2).encode()
    good = FakeContext(peer_spiffe_id=name, ssl_tls_version=b"TLSv1.3", x509_pem_cert=certificate)
    assert await guarded_call(files, good) == b"served"
    for context in (
        FakeContext(),
        FakeContext(peer_spiffe_id=name, ssl_tls_version=b"TLSv1.3"),
        FakeContext(peer_spiffe_id=name),
        FakeContext(peer_spiffe_id=name, ssl_tls_version=b"TLSv1.2"),
        FakeContext(peer_spiffe_id=[name, name], ssl_tls_version=b"TLSv1.3"),
        FakeContext(ssl_tls_version=b"TLSv1.3"),
        FakeContext(peer_spiffe_id=name + b"/x", ssl_tls_version=b"TLSv1.3"),
    ):
        with pytest.raises(PermissionError):
            await guarded_call(files, context)


async def test_changed_certificates_are_used_for_new_connections(files: Files) -> None:
    async with serving(files.mutual_tls(ENVOY), []) as address:
        await say(address, files, files.issue(ENVOY, 2))
        files.authority = root("next", **files.validity)
        files.write(3)
        assert await say(address, files, files.issue(ENVOY, 2)) == b"echo x"


async def test_changed_certificates_are_used_on_every_listener(files: Files) -> None:
    tls = files.mutual_tls(ENVOY)
    async with serving(tls, []) as one, serving(tls, []) as other:
        files.authority = root("next", **files.validity)
        files.write(3)
        for address in (one, other):
            assert await say(address, files, files.issue(ENVOY, 2)) == b"echo x"


async def test_changed_files_that_are_broken_are_not_taken(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(files.mutual_tls(ENVOY), []) as address:
        (files.directory / "cert.pem").write_text("garbage")
        assert await say(address, files, files.issue(ENVOY, 2)) == b"echo x"
    assert "are not taken" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cert.pem", b"garbage", "holds no readable PEM certificates"),
        ("ca.pem", b"", "holds no readable PEM certificates"),
        ("key.pem", b"garbage", "holds no readable PEM private key"),
        ("key.pem", key_pem(1, b"secret"), "holds no readable PEM private key"),
        ("key.pem", key_pem(9), "is not the key of the first certificate in"),
        ("key.pem", None, "cannot be read: No such file or directory"),
    ],
)
def test_files_that_do_not_fit_are_faults_that_name_them(
    files: Files, name: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (files.directory / name).unlink()
    else:
        (files.directory / name).write_bytes(content)
    with pytest.raises(SettingsErrors) as caught:
        files.mutual_tls(ENVOY)
    (fault,) = caught.value.faults
    assert fault.source == str(files.directory / name)
    assert message in fault.message
    assert "PRIVATE KEY" not in str(fault)


def test_every_wrong_file_is_reported(files: Files) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (files.directory / name).unlink()
    with pytest.raises(SettingsErrors) as caught:
        files.mutual_tls(ENVOY)
    assert len(caught.value.faults) == 3

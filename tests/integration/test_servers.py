from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from zta_authz.errors import Reason, SettingsErrors
from zta_authz.servers.group import ServerGroup
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.health import Health
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.methods import AUTHORIZATION_SERVICE, authorization_methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CHECK = f"/{AUTHORIZATION_SERVICE}/Check"
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class EchoingChecks:
    """Answers with what was asked."""

    wants_metadata = True

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.metadata: list[Sequence[tuple[str, str | bytes]]] = []
        self.reasons: list[Reason] = []

    def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]], caller: str = "") -> bytes:
        self.metadata.append(metadata)
        self.entered.set()
        return b"echo " + payload

    def refuse(self, reason: Reason) -> bytes:
        self.reasons.append(reason)
        return b"refused " + reason.value.encode()


@asynccontextmanager
async def serving(checks: EchoingChecks, *endpoints: Endpoint, **options: Any) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(as_async(authorization_methods(checks)), endpoints, SocketAccess(), **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


def target(endpoint: Endpoint) -> str:
    return str(endpoint)


async def ask(endpoint: Endpoint, payload: bytes = b"x", method: str = CHECK, **options: Any) -> bytes:
    async with grpc.aio.insecure_channel(target(endpoint)) as channel:
        answer: bytes = await channel.unary_unary(method)(payload, timeout=10, **options)
        return answer


async def health_of(endpoint: Endpoint, service: str = "") -> int:
    payload = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    status: int = health_pb2.HealthCheckResponse.FromString(await ask(endpoint, payload, HEALTH)).status
    return status


def names_in(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def replace_with_a_file(path: Path) -> None:
    path.unlink()
    path.write_text("not ours")


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(path=str(tmp_path / "authz.sock"))


async def test_one_server_answers_on_several_sockets_and_addresses(tmp_path: Path) -> None:
    wanted = (Endpoint(path=str(tmp_path / "a")), Endpoint(path=str(tmp_path / "b")), Endpoint(host="127.0.0.1"))
    async with serving(EchoingChecks(), *wanted) as server:
        assert [await ask(address) for address in server.addresses] == [b"echo x"] * 3
        assert server.addresses[2].port > 0


async def test_the_calls_metadata_reaches_the_servicer(endpoint: Endpoint) -> None:
    checks = EchoingChecks()
    async with serving(checks, endpoint):
        await ask(endpoint, metadata=(("traceparent", "00-1-2-01"),))
    assert ("traceparent", "00-1-2-01") in [tuple(pair) for pair in checks.metadata[0]]


async def test_an_unknown_method_is_unimplemented(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(endpoint, method=f"/{AUTHORIZATION_SERVICE}/Uncheck")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_says_what_it_was_told_for_server_and_service(endpoint: Endpoint) -> None:
    health = Health((AUTHORIZATION_SERVICE,))
    await health.set_serving(False)
    async with serving(EchoingChecks(), endpoint, health=health):
        assert await health_of(endpoint) == NOT_SERVING
        assert await health_of(endpoint, AUTHORIZATION_SERVICE) == NOT_SERVING
        await health.set_serving(True)
        assert await health_of(endpoint) == SERVING
        assert await health_of(endpoint, AUTHORIZATION_SERVICE) == SERVING


async def test_reflection_is_off_unless_asked_for(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflected_services(endpoint)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    async with serving(EchoingChecks(), endpoint, with_reflection=True):
        assert AUTHORIZATION_SERVICE in await reflected_services(endpoint)


async def reflected_services(endpoint: Endpoint) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    own = (("grpc.use_local_subchannel_pool", 1),)  # not the connection to the server that was here before
    async with grpc.aio.insecure_channel(target(endpoint), options=own) as channel:
        call = channel.stream_stream(
            REFLECTION,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([request]))
        async for response in call:
            return [service.name for service in response.list_services_response.service]
    return []


async def test_a_second_server_on_a_live_socket_is_refused_and_the_first_goes_on(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):
        with pytest.raises(SettingsErrors, match="another server holds this socket"):
            async with serving(EchoingChecks(), endpoint):
                pass
        assert await ask(endpoint) == b"echo x"


async def test_a_second_server_on_a_live_port_is_refused() -> None:
    async with serving(EchoingChecks(), Endpoint(host="127.0.0.1")) as server:
        with pytest.raises(SettingsErrors, match="Address already in use"):
            async with serving(EchoingChecks(), server.addresses[0]):
                pass


async def test_a_stale_socket_is_replaced(endpoint: Endpoint) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(endpoint.path)
    async with serving(EchoingChecks(), endpoint):
        assert await ask(endpoint) == b"echo x"


async def test_a_server_that_can_not_start_leaves_nothing(tmp_path: Path) -> None:
    good, bad = Endpoint(path=str(tmp_path / "good")), Endpoint(path=str(tmp_path / "none" / "bad"))
    with pytest.raises(SettingsErrors, match="does not exist"):
        async with serving(EchoingChecks(), good, bad):
            pass
    assert names_in(tmp_path) == []


async def test_stopping_leaves_a_file_that_replaced_our_socket(endpoint: Endpoint, tmp_path: Path) -> None:
    async with serving(EchoingChecks(), endpoint):
        replace_with_a_file(tmp_path / "authz.sock")
    assert names_in(tmp_path) == ["authz.sock"]


async def test_a_group_of_servers_starts_all_or_none_and_says_every_fault(tmp_path: Path) -> None:
    def make(path: Path) -> GrpcServer:
        return GrpcServer(as_async(authorization_methods(EchoingChecks())), [Endpoint(path=str(path))], SocketAccess())

    group = ServerGroup([make(tmp_path / "a"), make(tmp_path / "x" / "b"), make(tmp_path / "y" / "c")])
    with pytest.raises(SettingsErrors) as caught:
        await group.start()
    assert len(caught.value.faults) == 2
    assert names_in(tmp_path) == []


async def test_a_message_past_the_bound_is_a_denial_and_the_server_goes_on(endpoint: Endpoint) -> None:
    async with serving(EchoingChecks(), endpoint):
        assert await ask(endpoint, bytes(5 * 1024 * 1024)) == b"refused request_too_large"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(endpoint, bytes(17 * 1024 * 1024))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(endpoint) == b"echo x"


@pytest.mark.parametrize(("pings", "seconds", "ends"), [(8, 0.25, False), (60, 0.001, True)])
async def test_an_idle_connection_may_be_looked_after_but_not_flooded(pings: int, seconds: float, ends: bool) -> None:
    """Envoy's `connection_keepalive` sends a PING now and then without any call (frames of RFC 9113)."""
    ping, pong, goaway = b"\0\0\x08\6\0\0\0\0\0" + bytes(8), 6, 7
    kinds: list[int] = []

    async def read(reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while kinds.count(pong) < pings and goaway not in kinds:
                header = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(header[:3], "big"))
                kinds.append(header[3])

    async with serving(EchoingChecks(), Endpoint(host="127.0.0.1")) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        reading = asyncio.create_task(read(reader))
        for _ in range(pings):
            if not reading.done():
                writer.write(ping)
                await asyncio.sleep(seconds)
        await reading
        writer.close()
    assert (kinds.count(pong) < pings) is ends

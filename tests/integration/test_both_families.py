"""`[::]` is every address of IPv4 and IPv6, on each kind of listener; other addresses are of their own family only."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest

from tests.integration.test_servers import EchoingChecks
from tests.unit.admin.test_health import METRICS, serving_state
from zta_authz import sockets
from zta_authz.admin.health import HealthServer
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.methods import authorization_methods
from zta_authz.sockets import bound_socket

CHECK = "/envoy.service.auth.v3.Authorization/Check"


def has_ipv6() -> bool:
    try:
        bound_socket("::1", 0).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here")


async def answers(target: str) -> bytes:
    async with grpc.aio.insecure_channel(target) as channel:
        answer: bytes = await channel.unary_unary(CHECK)(b"x", timeout=5)
        return answer


@pytest.mark.parametrize("kind", [FastServer, GrpcServer])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "one of several workers"])
async def test_checks_are_answered_on_both(kind: type[FastServer | GrpcServer], *, shared: bool) -> None:
    methods: Any = authorization_methods(EchoingChecks())
    if kind is GrpcServer:
        methods = as_async(methods)
    server = kind(methods, [Endpoint.parse("[::]:0")], SocketAccess(), shared_ports=shared)
    await server.start()
    try:
        port = server.addresses[0].port
        assert await answers(f"127.0.0.1:{port}") == b"echo x"
        assert await answers(f"[::1]:{port}") == b"echo x"
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("listen", "answering"), [("::", ["127.0.0.1", "::1"]), ("0.0.0.0", ["127.0.0.1"]), ("::1", ["::1"])]
)
async def test_pages_are_given_where_it_listens(listen: str, answering: list[str]) -> None:
    server = HealthServer(listen, 0, serving_state(), lambda: METRICS)
    port = int((await server.start()).rpartition(":")[2])
    try:
        assert [host for host in ("127.0.0.1", "::1") if await is_served(host, port)] == answering
    finally:
        await server.stop()


async def is_served(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


def test_without_ipv6_both_families_are_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that has none refuses to make such a socket."""

    def refuse(family: int, *_: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return socket.socket(family)

    class NoIpv6:
        AF_INET, AF_INET6, SOCK_STREAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM
        SOL_SOCKET, SO_REUSEADDR, SO_REUSEPORT = socket.SOL_SOCKET, socket.SO_REUSEADDR, socket.SO_REUSEPORT
        socket = staticmethod(refuse)

    monkeypatch.setattr(sockets, "socket", NoIpv6)
    with bound_socket("::", 0) as made:
        assert made.family == socket.AF_INET
    with pytest.raises(OSError, match="not supported"):
        bound_socket("::1", 0)

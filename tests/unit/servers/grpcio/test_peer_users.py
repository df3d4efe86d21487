"""Calls over a Unix socket are known by the user that makes them, and by nothing that the user sends."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from zta_authz.servers.grpcio import peer_users
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.listeners import Endpoint, SocketAccess, SocketClaim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OWN = f"user/{os.getuid()}".encode()
NOBODY = 65534
CALL = """
import grpc, os, sys
def call():
    with grpc.insecure_channel(sys.argv[1], options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return channel.unary_unary("/a.Service/Call")(b"", timeout=10).decode()
call()  # imports all modules
os.setresuid(*[int(sys.argv[2])] * 3)
print(call())
"""


async def call(_payload: bytes, context: Any, caller: str) -> bytes:
    del context
    return caller.encode()


async def stream(payload: bytes, _context: Any, caller: str) -> AsyncIterator[bytes]:
    yield caller.encode()
    yield payload


@asynccontextmanager
async def serving(*endpoints: Endpoint) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(
        {"a.Service": {"Call": call}}, endpoints, SocketAccess(0o666), streams={"a.Service2": {"Stream": stream}},
        name_user="user/{}".format, options=(("grpc.max_receive_message_length", 1024 * 1024),),
    )  # fmt: skip
    await server.start()
    try:
        yield server
    finally:
        await server.stop(1)


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(path=str(tmp_path / "grpc.sock"))


async def ask(target: str, payload: bytes = b"") -> bytes:
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer: bytes = await channel.unary_unary("/a.Service/Call")(payload, timeout=10)
        return answer


async def test_a_call_has_the_user_of_its_connection(endpoint: Endpoint) -> None:
    async with serving(endpoint):
        assert await ask(f"unix:{endpoint.path}") == OWN
        async with grpc.aio.insecure_channel(f"unix:{endpoint.path}") as channel:
            answers = channel.unary_stream("/a.Service2/Stream")(b"x" * 500_000, timeout=10)
            assert [answer async for answer in answers] == [OWN, b"x" * 500_000]
    assert os.listdir(os.path.dirname(endpoint.path)) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a process as another user")
def test_another_user_has_another_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = Path("/tmp") / f"zta-users-{os.getpid()}"
    directory.mkdir(mode=0o755)
    endpoint = Endpoint(path=str(directory / "grpc.sock"))

    async def run() -> bytes:
        async with serving(endpoint):
            inner = SocketClaim(endpoint, SocketAccess()).inner_path
            assert stat.S_IMODE(os.stat(inner).st_mode) & 0o077 == 0
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CALL, f"unix:{endpoint.path}", str(NOBODY), stdout=subprocess.PIPE
            )
            return (await process.communicate())[0]

    try:
        assert asyncio.run(run()).strip() == f"user/{NOBODY}".encode()
    finally:
        directory.rmdir()


async def test_a_call_past_the_relay_is_refused(endpoint: Endpoint) -> None:
    async with serving(endpoint):
        inner = SocketClaim(endpoint, SocketAccess()).inner_path
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(f"unix:{inner}")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_caller_over_tcp_has_no_name() -> None:
    async with serving(Endpoint(host="127.0.0.1")) as server:
        assert await ask(str(server.addresses[0])) == b""


async def test_a_user_can_not_use_up_the_connections_of_others(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(peer_users, "MAX_CONNECTIONS_OF_A_USER", 2)
    async with serving(endpoint):
        streams = [await asyncio.open_unix_connection(endpoint.path) for _ in range(3)]
        assert await asyncio.wait_for(streams[2][0].read(), 5) in (b"", None)
        streams[0][1].close()
        async with asyncio.timeout(5):
            while True:
                reader, writer = await asyncio.open_unix_connection(endpoint.path)
                if await reader.read(1):  # gRPC's settings: a place became free
                    break
                writer.close()
        writer.close()
        for _, other in streams[1:]:
            other.close()


async def test_a_socket_that_a_crash_left_behind_is_replaced(endpoint: Endpoint) -> None:
    inner = SocketClaim(endpoint, SocketAccess()).inner_path
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(inner)
    async with serving(endpoint):
        assert await ask(f"unix:{endpoint.path}") == OWN

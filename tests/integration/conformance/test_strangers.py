"""What a client is told that has a certificate of the authority and is not on the list: the same by both servers.

Nothing of what it asks reaches anything that reads it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.integration.conformance.servers import KINDS, SERVICE, Serving, serving
from tests.integration.test_tls import ENVOY, OTHER, Files, key_pem
from tests.support.pki import root

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

HEALTH = "/grpc.health.v1.Health/Check"
ECHO = f"/{SERVICE}/Echo"
MIB = 1024 * 1024


@pytest.fixture
def files(tmp_path: Path) -> Files:
    now = time.time()
    validity = {"not_before": now - 60, "not_after": now + 3600}
    made = Files(root("ca", **validity), tmp_path, validity)
    made.write(1)
    return made


@pytest.fixture(params=KINDS)
async def server(request: pytest.FixtureRequest, files: Files, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(request.param, tmp_path, tcp=True, tls=files.mutual_tls(ENVOY)) as made:
        yield made


def channel_to(server: Serving, files: Files, spiffe_id: str) -> grpc.aio.Channel:
    certificate = files.issue(spiffe_id, 2).encode()
    credentials = grpc.ssl_channel_credentials(files.authority.pem.encode(), key_pem(2), certificate)
    options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(server.target, credentials, options=options)


async def refusal(channel: grpc.aio.Channel, path: str, payload: bytes, **options: Any) -> tuple[Any, str | None]:
    """Code and details; asked again, they come at once, and not when time is over."""
    begun = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(path)(payload, timeout=20, **options)
    assert time.monotonic() - begun < 10
    return caught.value.code(), caught.value.details()


REFUSED = (grpc.StatusCode.PERMISSION_DENIED, "caller_not_allowed")


@pytest.mark.parametrize("path", [ECHO, HEALTH, "/test.None/Nothing"], ids=["a method", "health", "an unknown method"])
async def test_a_stranger_is_told_at_once_whatever_it_asks(server: Serving, files: Files, path: str) -> None:
    async with channel_to(server, files, OTHER) as channel:
        assert await refusal(channel, path, b"x") == REFUSED
        assert await refusal(channel, path, b"\xff", metadata=(("x-large", "y" * 20_000),)) == REFUSED
    assert server.service.metadata == []


async def test_a_stranger_with_large_messages_and_many_is_told_so_for_each(server: Serving, files: Files) -> None:
    async with channel_to(server, files, OTHER) as channel:
        asked = [refusal(channel, ECHO, bytes(MIB)) for _ in range(10)]
        asked += [refusal(channel, ECHO, b"x") for _ in range(200)]
        assert set(await asyncio.gather(*asked)) == {REFUSED}
    assert server.service.metadata == []


async def test_a_stranger_does_not_disturb_a_caller_who_may_ask(server: Serving, files: Files) -> None:
    async with channel_to(server, files, OTHER) as stranger, channel_to(server, files, ENVOY) as caller:
        for _ in range(3):
            assert await refusal(stranger, ECHO, b"x") == REFUSED
            assert await caller.unary_unary(ECHO)(b"x", timeout=20) == b"x"
            assert await caller.unary_unary(HEALTH)(b"", timeout=20) == b"\x08\x01"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.unary_unary("/test.None/Nothing")(b"x", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "Method not found!"


async def test_health_that_is_no_message_fails_for_a_caller_who_may_ask(server: Serving, files: Files) -> None:
    async with channel_to(server, files, ENVOY) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.unary_unary(HEALTH)(b"\xff", timeout=20)
    assert caught.value.code() is grpc.StatusCode.INTERNAL

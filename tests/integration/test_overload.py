"""More calls than can be decided, over a real socket: whoever asks gets an explicit denial, and nobody an error of gRPC."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from zta_authz.errors import Reason
from zta_authz.ext_authz.backlog import Backlog, unfinished_calls
from zta_authz.ext_authz.listeners import Endpoint, SocketAccess
from zta_authz.ext_authz.servers import AUTHORIZATION_SERVICE, GrpcServer, authorization_methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CALLS = 1500
BUSY_SECONDS = 0.0005


class BusyChecks:
    """Allows after some work that, like deciding, waits for nothing."""

    wants_metadata = False

    def __init__(self) -> None:
        self.decided = 0

    async def check(self, _payload: bytes, _metadata: Sequence[tuple[str, str | bytes]], _caller: str) -> bytes:
        self.decided += 1
        until = time.perf_counter() + BUSY_SECONDS
        while time.perf_counter() < until:
            pass
        return b"allowed"

    def refuse(self, reason: Reason) -> bytes:
        return reason.value.encode()


@asynccontextmanager
async def flooded(path: Path, checks: BusyChecks, limit: int, seconds: float) -> AsyncIterator[Counter[str]]:
    """What becomes of many calls that come at once."""
    endpoint = Endpoint(path=str(path / "authz.sock"))
    server = GrpcServer(authorization_methods(checks, limit, Backlog(limit).judge), [endpoint], SocketAccess())
    await server.start()
    async with grpc.aio.insecure_channel(str(endpoint)) as channel:
        call: Any = channel.unary_unary(f"/{AUTHORIZATION_SERVICE}/Check")

        async def outcome() -> str:
            try:
                answer: bytes = await call(b"x", timeout=seconds)
            except grpc.aio.AioRpcError as error:
                return f"gRPC error {error.code().name}"
            return answer.decode()

        await call(b"x", wait_for_ready=True)
        yield Counter(await asyncio.gather(*(outcome() for _ in range(CALLS))))
    await server.stop(0)


async def test_past_the_limit_of_waiting_calls_the_answer_is_a_denial_and_never_an_error(tmp_path: Path) -> None:
    checks = BusyChecks()
    async with flooded(tmp_path, checks, limit=100, seconds=60) as outcomes:
        assert set(outcomes) == {"allowed", Reason.OVERLOADED.value}
        assert outcomes[Reason.OVERLOADED.value] > CALLS / 4
        assert outcomes["allowed"] >= 100


async def test_what_the_limit_admits_is_decided(tmp_path: Path) -> None:
    async with flooded(tmp_path, BusyChecks(), limit=2 * CALLS, seconds=60) as outcomes:
        assert outcomes == {"allowed": CALLS}


async def test_a_call_whose_time_is_over_is_not_decided(tmp_path: Path) -> None:
    checks = BusyChecks()
    async with flooded(tmp_path, checks, limit=2 * CALLS, seconds=0.2) as outcomes:
        late = outcomes[Reason.DEADLINE_EXCEEDED.value] + outcomes["gRPC error DEADLINE_EXCEEDED"]
        assert outcomes["allowed"] + late == CALLS
        assert late > 0
        assert checks.decided < CALLS


async def test_calls_that_grpc_holds_back_are_counted(tmp_path: Path) -> None:
    seen: list[int] = []

    class Looking(BusyChecks):
        async def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]], caller: str) -> bytes:
            if self.decided % 100 == 0:
                seen.append(unfinished_calls())
            return await super().check(payload, metadata, caller)

    async with flooded(tmp_path, Looking(), limit=2 * CALLS, seconds=60):
        pass
    assert max(seen) > CALLS / 4
    assert max(seen) <= CALLS + 1
    assert unfinished_calls() == pytest.approx(0)

"""More calls than can be decided, over a real socket: whoever asks gets an explicit denial, and nobody an error of gRPC."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.support.h2_peer import PATH, block, call_with, message
from zta_authz.errors import Reason
from zta_authz.grpc_h2.frames import PREFACE, frame, settings
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.grpcio.overload_guard import OverloadGuard, failed_calls, unfinished_calls
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.methods import AUTHORIZATION_SERVICE, Deadlines, authorization_methods

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

CALLS = 1500
BUSY_SECONDS = 0.0005
LATE = Reason.DEADLINE_EXCEEDED.value


WRITER = """
import json, select, socket, sys, time
path, hello, pieces, count, pause = json.load(sys.stdin)
peers = [socket.socket(socket.AF_UNIX) for _ in range(1 + max(which for which, _ in pieces))]
for peer in peers:
    peer.connect(path)
    peer.sendall(bytes.fromhex(hello))
    peer.recv(1 << 16)
for number, (which, piece) in enumerate(pieces):
    if number:
        time.sleep(pause)
    peers[which].sendall(bytes.fromhex(piece))
read = b""
while read.count(b"grpc-status") < count:
    for peer in select.select(peers, [], [], 30)[0]:
        read += peer.recv(1 << 16)
print(json.dumps({word: read.count(word.encode()) for word in ("allowed", "deadline_exceeded") if word.encode() in read}))
"""
"""Writes pieces to connections, with pauses, reads as many answers, and counts them.

In a process of its own: the server's event loop is the one of the test, and busy. It reads on after the deadline, which
no client of gRPC does.
"""


class BusyChecks:
    """Allows after some work that, like deciding, waits for nothing."""

    wants_metadata = False

    def __init__(self, busy: float = BUSY_SECONDS) -> None:
        self.busy = busy
        self.decided = 0
        self.refused = Counter[str]()

    def check(self, _payload: bytes, _metadata: Sequence[tuple[str, str | bytes]], _caller: str) -> bytes:
        self.decided += 1
        until = time.perf_counter() + self.busy
        while time.perf_counter() < until:
            pass
        return b"allowed"

    def refuse(self, reason: Reason) -> bytes:
        self.refused[reason.value] += 1
        return reason.value.encode()


@asynccontextmanager
async def serving(
    path: Path, checks: BusyChecks, limit: int, server: str, deadlines: Deadlines | None = None
) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(path=str(path / "authz.sock"))
    if server == "fast":
        methods = authorization_methods(checks, deadlines)
        running: FastServer | GrpcServer = FastServer(methods, [endpoint], SocketAccess())
    else:
        methods = authorization_methods(checks, deadlines or OverloadGuard(limit))
        running = GrpcServer(as_async(methods), [endpoint], SocketAccess())
    await running.start()
    try:
        yield endpoint
    finally:
        await running.stop(0)


@asynccontextmanager
async def flooded(
    path: Path,
    checks: BusyChecks,
    limit: int,
    seconds: float,
    server: str = "grpcio",
    deadlines: Deadlines | None = None,
) -> AsyncIterator[Counter[str]]:
    """What becomes of many calls that come at once."""
    async with (
        serving(path, checks, limit, server, deadlines) as endpoint,
        grpc.aio.insecure_channel(str(endpoint)) as channel,
    ):
        call: Any = channel.unary_unary(f"/{AUTHORIZATION_SERVICE}/Check")

        async def outcome() -> str:
            try:
                answer: bytes = await call(b"x", timeout=seconds)
            except grpc.aio.AioRpcError as error:
                return f"gRPC error {error.code().name}"
            return answer.decode()

        await call(b"x", wait_for_ready=True)
        yield Counter(await asyncio.gather(*(outcome() for _ in range(CALLS))))


async def test_past_the_limit_of_waiting_calls_the_answer_is_a_denial_and_never_an_error(tmp_path: Path) -> None:
    checks = BusyChecks()
    async with flooded(tmp_path, checks, limit=100, seconds=60) as outcomes:
        assert set(outcomes) == {"allowed", Reason.OVERLOADED.value}
        assert outcomes[Reason.OVERLOADED.value] > CALLS / 4
        assert outcomes["allowed"] >= 100


@pytest.mark.parametrize("server", ["grpcio", "fast"])
async def test_what_the_limit_admits_is_decided(tmp_path: Path, server: str) -> None:
    async with flooded(tmp_path, BusyChecks(), limit=2 * CALLS, seconds=60, server=server) as outcomes:
        assert outcomes == {"allowed": CALLS}


@pytest.mark.parametrize("server", ["grpcio", "fast"])
async def test_a_call_whose_time_is_over_is_not_decided(tmp_path: Path, server: str) -> None:
    checks = BusyChecks()
    async with flooded(tmp_path, checks, limit=2 * CALLS, seconds=0.2, server=server) as outcomes:
        late = outcomes[LATE] + outcomes["gRPC error DEADLINE_EXCEEDED"]
        assert outcomes["allowed"] + late == CALLS
        assert late > 0
        assert checks.decided < CALLS


@pytest.mark.parametrize("server", ["grpcio", "fast"])
async def test_calls_that_wait_until_their_deadline_are_counted(tmp_path: Path, server: str) -> None:
    checks = BusyChecks(busy=0.3)
    deadlines = Deadlines()
    async with (
        serving(tmp_path, checks, 100, server, deadlines) as endpoint,
        grpc.aio.insecure_channel(str(endpoint)) as channel,
    ):
        check: Any = channel.unary_unary(PATH)
        await check(b"x", wait_for_ready=True)
        assert deadlines.late_answers == 0
        await asyncio.gather(*(check(b"x", timeout=0.2) for _ in range(3)), return_exceptions=True)
        assert checks.decided == 2
        assert deadlines.late_answers == 1  # the one that was begun in time
        async with asyncio.timeout(10):  # gRPC drops what is late while it holds it, and counts it with the one before
            while (failed_calls() - 1 if server == "grpcio" else checks.refused[LATE]) != 2:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)


# the fast server's own backlog


async def test_waiting_in_our_backlog_counts_and_late_calls_are_told_so(tmp_path: Path) -> None:
    checks = BusyChecks(busy=0.005)
    async with serving(tmp_path, checks, 1000, "fast") as endpoint:  # in one piece: more than a turn, all read at once
        answers = await asked(endpoint, [b"".join(call(number, milliseconds=250) for number in range(200))], 200)
    assert answers["allowed"] + answers[LATE] == 200
    assert answers["allowed"] == checks.decided <= 250 / 5 + 1
    assert answers[LATE] == checks.refused[LATE]


async def test_waiting_unread_behind_our_backlog_counts_against_the_deadline(tmp_path: Path) -> None:
    checks = BusyChecks(busy=0.005)
    async with serving(tmp_path, checks, 1000, "fast") as endpoint:
        first = b"".join(call(number) for number in range(60))
        second = [call(60 + number, milliseconds=100) for number in range(10)]
        answers = await asked(endpoint, [first, *second], 70, pause=0.02)
    assert answers["allowed"] == checks.decided
    assert answers[LATE] >= 5  # these came at least 150 ms before the sixty were done


async def test_waiting_for_the_turns_of_other_connections_counts_against_the_deadline(tmp_path: Path) -> None:
    checks = BusyChecks(busy=0.005)
    async with serving(tmp_path, checks, 1000, "fast") as endpoint:
        flood = b"".join(call(number) for number in range(60))
        pieces = [(0, flood), (1, call(0, milliseconds=100))]
        assert await asked_by_several(endpoint, pieces, 61, pause=0.05) == {"allowed": 60, LATE: 1}


async def test_an_idle_connection_does_not_make_its_next_call_late(tmp_path: Path) -> None:
    checks = BusyChecks()
    async with serving(tmp_path, checks, 1000, "fast") as endpoint:
        many = b"".join(call(number) for number in range(200))
        answers = await asked(endpoint, [many, call(200, milliseconds=600)], 201, pause=1.0)
    assert answers == Counter({"allowed": 201})


def call(number: int, *, milliseconds: int | None = None) -> bytes:
    """A whole call on the `number`th stream. Its peer reads on after the deadline, as no client does."""
    timeout = () if milliseconds is None else (("grpc-timeout", f"{milliseconds}m"),)
    stream = 2 * number + 1
    return frame(1, 4, stream, block(call_with((":path", PATH), *timeout))) + frame(0, 1, stream, message(b"x"))


async def asked(endpoint: Endpoint, pieces: Sequence[bytes], count: int, pause: float = 0.0) -> Counter[str]:
    """What `count` calls in `pieces` are answered, which are written one by one, with a `pause` between them."""
    return await asked_by_several(endpoint, [(0, piece) for piece in pieces], count, pause)


async def asked_by_several(
    endpoint: Endpoint, pieces: Sequence[tuple[int, bytes]], count: int, pause: float
) -> Counter[str]:
    """As `asked`; each piece says by which connection it is written."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, stdin=pipe, stdout=pipe)
    hello = PREFACE + settings(((4, 2**30),)) + frame(8, 0, 0, (2**30).to_bytes(4, "big"))
    said = [endpoint.path, hello.hex(), [(which, piece.hex()) for which, piece in pieces], count, pause]
    out, _ = await asyncio.wait_for(process.communicate(json.dumps(said).encode()), 60)
    return Counter(json.loads(out))


async def test_calls_that_grpc_holds_back_are_counted(tmp_path: Path) -> None:
    seen: list[int] = []

    class Looking(BusyChecks):
        def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]], caller: str) -> bytes:
            if self.decided % 100 == 0:
                seen.append(unfinished_calls())
            return super().check(payload, metadata, caller)

    async with flooded(tmp_path, Looking(), limit=2 * CALLS, seconds=60):
        pass
    assert max(seen) > CALLS / 4
    assert max(seen) <= CALLS + 1
    assert unfinished_calls() == pytest.approx(0)

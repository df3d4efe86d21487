"""What a client of grpcio sees of a unary call, on the reference server and on the fast one: the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.integration.conformance.servers import KINDS, SERVICE, Serving, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Code = grpc.StatusCode
MIB = 1024 * 1024


@pytest.fixture(
    params=[(kind, tcp) for kind in KINDS for tcp in (False, True)], ids=lambda p: f"{p[0]}-{'tcp' if p[1] else 'unix'}"
)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Serving]:
    kind, tcp = request.param
    async with serving(kind, tmp_path, tcp=tcp) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["unix", "tcp"])
async def waiting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Serving]:
    """Only grpcio's server has methods that wait."""
    async with serving("grpcio", tmp_path, tcp=request.param) as made:
        yield made


def channel_to(server: Serving, **options: Any) -> grpc.aio.Channel:
    limits = (
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return grpc.aio.insecure_channel(server.target, options=limits, **options)


def method(name: str) -> str:
    return f"/{SERVICE}/{name}"


async def ask(server: Serving, name: str, payload: bytes = b"x", **options: Any) -> bytes:
    async with channel_to(server) as channel:
        answer: bytes = await channel.unary_unary(method(name))(payload, **({"timeout": 20} | options))
        return answer


async def code_of(server: Serving, name: str, payload: bytes = b"x", **options: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(server, name, payload, **options)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("size", [0, 1, 5, 16_379, 16_380, 65_536, MIB, 4 * MIB])
async def test_a_message_of_any_size_comes_back(server: Serving, size: int) -> None:
    assert await ask(server, "Echo", bytes(size)) == bytes(size)


async def test_a_message_past_the_bound_is_resource_exhausted_and_the_server_goes_on(server: Serving) -> None:
    assert await code_of(server, "Echo", bytes(4 * MIB + 1)) is Code.RESOURCE_EXHAUSTED
    assert await ask(server, "Echo") == b"x"


async def test_an_answer_of_four_megabytes_arrives(server: Serving) -> None:
    assert len(await ask(server, "Give", str(4 * MIB).encode())) == 4 * MIB


@pytest.mark.parametrize("name", ["/test.Conformance/None", "/test.None/Echo", "/", "/test.Conformance/Echo/"])
async def test_an_unknown_method_is_unimplemented(server: Serving, name: str) -> None:
    async with channel_to(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(name)(b"x", timeout=20)
    assert caught.value.code() is Code.UNIMPLEMENTED
    assert caught.value.details() == "Method not found!"


async def test_a_method_that_raises_is_unknown_and_the_server_goes_on(server: Serving) -> None:
    assert await code_of(server, "Fail") is Code.UNKNOWN
    assert await ask(server, "Echo") == b"x"


async def test_past_its_deadline_a_call_ends_and_its_work_is_dropped(waiting: Serving) -> None:
    assert await code_of(waiting, "Wait", timeout=0.3) is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(waiting.service.given_up.wait(), 5)
    assert waiting.service.waiting == 0


async def test_a_deadline_that_is_not_reached_does_no_harm(waiting: Serving) -> None:
    async with channel_to(waiting) as channel:
        call = channel.unary_unary(method("Wait"))(b"x", timeout=20)
        await waiting.service.entered.wait()
        waiting.service.gate.set()
        assert await call == b"x"


async def test_a_call_that_its_client_cancels_is_dropped(waiting: Serving) -> None:
    async with channel_to(waiting) as channel:
        call = channel.unary_unary(method("Wait"))(b"x", timeout=20)
        await waiting.service.entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(waiting.service.given_up.wait(), 5)
        assert await channel.unary_unary(method("Echo"))(b"x", timeout=20) == b"x"


async def test_a_client_that_goes_away_has_its_calls_dropped(waiting: Serving) -> None:
    channel = channel_to(waiting)
    call = channel.unary_unary(method("Wait"))(b"x", timeout=20)
    await waiting.service.entered.wait()
    await channel.close()
    await asyncio.wait([asyncio.ensure_future(call)]) if not call.done() else None
    await asyncio.wait_for(waiting.service.given_up.wait(), 5)


async def test_many_calls_at_once_are_answered_each_with_its_own(server: Serving) -> None:
    async with channel_to(server) as channel:
        echo = channel.unary_unary(method("Echo"))
        payloads = [str(number).encode() * 50 for number in range(500)]
        assert await asyncio.gather(*(echo(payload, timeout=30) for payload in payloads)) == payloads


async def test_many_large_calls_at_once_are_answered(server: Serving) -> None:
    async with channel_to(server) as channel:
        echo = channel.unary_unary(method("Echo"))
        payloads = [bytes((number,)) * MIB for number in range(12)]
        assert await asyncio.gather(*(echo(payload, timeout=30) for payload in payloads)) == payloads


async def test_calls_in_work_do_not_hold_up_others(waiting: Serving) -> None:
    async with channel_to(waiting) as channel:
        calls = [channel.unary_unary(method("Wait"))(b"x", timeout=20) for _ in range(20)]
        await waiting.service.wait_for(20)
        assert await channel.unary_unary(method("Echo"))(b"y", timeout=20) == b"y"
        waiting.service.gate.set()
        assert await asyncio.gather(*calls) == [b"x"] * 20


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_a_compressed_message_is_refused(server: Serving, how: grpc.Compression) -> None:
    assert await code_of(server, "Echo", b"x" * 1000, compression=how) is Code.UNIMPLEMENTED


async def test_metadata_arrives_text_and_binary(server: Serving) -> None:
    await ask(server, "Echo", metadata=(("x-text", "a b"), ("x-text", "c"), ("x-raw-bin", b"\0\xff,")))
    ours = [pair for pair in server.service.metadata if pair[0].startswith("x-")]
    assert [tuple(pair) for pair in ours] == [("x-text", "a b"), ("x-text", "c"), ("x-raw-bin", b"\0\xff,")]


@pytest.mark.parametrize("size", [60_000, 8 * 1024 * 1024])
async def test_metadata_past_the_bound_fails_no_call(server: Serving, size: int) -> None:
    assert await ask(server, "Echo", metadata=(("x-large", "x" * size),)) == b"x"
    assert await ask(server, "Echo") == b"x"


async def test_metadata_within_the_bound_that_takes_several_frames_arrives(server: Serving) -> None:
    await ask(server, "Echo", metadata=tuple((f"x-{number}", "y" * 4000) for number in range(5)))
    assert sum(value == "y" * 4000 for _, value in server.service.metadata) == 5


async def messages(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield str(number).encode()


async def test_a_stream_of_one_message_is_a_unary_call(server: Serving) -> None:
    async with channel_to(server) as channel:
        assert await channel.stream_unary(method("Echo"))(messages(1), timeout=20) == b"0"


async def test_a_unary_answer_is_a_stream_of_one_message(server: Serving) -> None:
    async with channel_to(server) as channel:
        call = channel.unary_stream(method("Echo"))(b"x", timeout=20)
        assert [answer async for answer in call] == [b"x"]
        assert await call.code() is Code.OK


async def test_a_client_that_half_closes_late_is_answered_all_the_same(server: Serving) -> None:
    async with channel_to(server) as channel:
        call = channel.stream_stream(method("Echo"))(timeout=3)
        await call.write(b"x")
        await asyncio.sleep(0.2)
        await call.done_writing()
        assert await call.read() == b"x"
        assert await call.code() is Code.OK


@pytest.mark.parametrize("count", [0, 2])
async def test_another_number_of_messages_than_one_is_unimplemented_on_the_fast_server(
    tmp_path: Path, count: int
) -> None:
    """As gRPC's status codes have it; grpcio takes the first of two, and lets the client wait for ever after none."""
    async with serving("fast", tmp_path) as server, channel_to(server) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(method("Echo"))(messages(count), timeout=20)
    assert caught.value.code() is Code.UNIMPLEMENTED


async def health_of(server: Serving, service: str) -> int:
    payload = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    async with channel_to(server) as channel:
        answer = await channel.unary_unary("/grpc.health.v1.Health/Check")(payload, timeout=20)
    status: int = health_pb2.HealthCheckResponse.FromString(answer).status
    return status


async def test_health_is_told_for_the_server_and_its_service(server: Serving) -> None:
    assert [await health_of(server, name) for name in ("", SERVICE)] == [1, 1]
    await server.health.set_serving(False)
    assert [await health_of(server, name) for name in ("", SERVICE)] == [2, 2]


async def test_health_of_another_service_is_not_found(server: Serving) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_of(server, "test.Other")
    assert caught.value.code() is Code.NOT_FOUND


async def test_stopping_sends_goaway_answers_what_is_in_work_and_takes_nothing_new(waiting: Serving) -> None:
    async with channel_to(waiting) as channel:
        call = channel.unary_unary(method("Wait"))(b"x", timeout=20)
        await waiting.service.entered.wait()
        stopping = asyncio.create_task(waiting.server.stop(10))
        await asyncio.sleep(0.3)
        assert await code_of(waiting, "Echo", timeout=5) is Code.UNAVAILABLE
        waiting.service.gate.set()
        assert await call == b"x"
        await asyncio.wait_for(stopping, 8)


async def test_stopping_does_not_wait_longer_than_its_grace(waiting: Serving) -> None:
    async with channel_to(waiting) as channel:
        call = channel.unary_unary(method("Wait"))(b"x", timeout=20)
        await waiting.service.entered.wait()
        await asyncio.wait_for(waiting.server.stop(0.2), 5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    await asyncio.wait_for(waiting.service.given_up.wait(), 5)

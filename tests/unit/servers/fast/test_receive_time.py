"""When calls were received: from the earliest moment that their input may have waited."""

from __future__ import annotations

import asyncio
import time

import pytest

from zta_authz.servers.fast.receive_time import LoopTurns, ReceiveTime

WHOLE = 256 * 1024


def busy(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.fixture
async def loop_turns() -> LoopTurns:
    return LoopTurns(asyncio.get_running_loop())


async def test_input_read_while_the_loop_is_idle_was_received_now(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    arrivals.received(10, 5.0)
    assert arrivals.at == 5.0


async def test_input_read_after_a_long_turn_may_have_waited_since_its_start(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    began = time.monotonic()
    busy(0.003)
    loop_turns.end_turn(began)
    arrivals.received(10, time.monotonic())
    assert arrivals.at == began


async def test_consecutive_short_turns_count_as_a_long_one(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    first = time.monotonic()
    for _ in range(20):
        began = time.monotonic()
        busy(0.0003)
        loop_turns.end_turn(began)
    arrivals.received(10, time.monotonic())
    assert arrivals.at - first < 0.003
    assert time.monotonic() - arrivals.at > 0.003


async def test_one_iteration_later_no_input_has_waited(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    began = time.monotonic()
    busy(0.003)
    loop_turns.end_turn(began)
    for _ in range(4):
        await asyncio.sleep(0)
    now = time.monotonic()
    arrivals.received(10, now)
    assert arrivals.at == now


async def test_input_received_while_reading_was_paused_may_have_waited_since(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    before = time.monotonic()
    arrivals.pause()
    await asyncio.sleep(0.01)
    arrivals.resume()
    arrivals.received(WHOLE, time.monotonic())
    assert before <= arrivals.at < before + 0.01
    arrivals.received(10, time.monotonic())  # the first read left some of it
    assert arrivals.at < before + 0.01
    now = time.monotonic()
    arrivals.received(10, now)
    assert arrivals.at == now


async def test_a_pause_that_ended_earlier_does_not_count(loop_turns: LoopTurns) -> None:
    arrivals = ReceiveTime(loop_turns)
    arrivals.pause()
    arrivals.resume()
    for _ in range(4):
        await asyncio.sleep(0)
    now = time.monotonic()
    arrivals.received(10, now)
    assert arrivals.at == now


async def test_a_connection_accepted_after_a_long_turn_may_have_waited_too(loop_turns: LoopTurns) -> None:
    began = time.monotonic()
    busy(0.003)
    loop_turns.end_turn(began)
    late = ReceiveTime(loop_turns)
    late.received(10, time.monotonic())
    assert late.at == began

"""When calls came: what may have waited is charged from the earliest moment, and nothing else is."""

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
async def rounds() -> LoopTurns:
    return LoopTurns(asyncio.get_running_loop())


async def test_what_comes_while_nobody_has_a_turn_came_now(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    arrivals.came(10, 5.0)
    assert arrivals.at == 5.0


async def test_after_a_long_turn_what_is_read_may_have_waited_since_it_began(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    began = time.monotonic()
    busy(0.003)
    rounds.turn_over(began)
    arrivals.came(10, time.monotonic())
    assert arrivals.at == began


async def test_many_short_turns_are_a_long_one(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    first = time.monotonic()
    for _ in range(20):
        began = time.monotonic()
        busy(0.0003)
        rounds.turn_over(began)
    arrivals.came(10, time.monotonic())
    assert arrivals.at - first < 0.003
    assert time.monotonic() - arrivals.at > 0.003


async def test_a_round_later_nothing_has_waited(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    began = time.monotonic()
    busy(0.003)
    rounds.turn_over(began)
    for _ in range(4):
        await asyncio.sleep(0)
    now = time.monotonic()
    arrivals.came(10, now)
    assert arrivals.at == now


async def test_what_came_while_reading_paused_may_have_waited_since(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    before = time.monotonic()
    arrivals.pause()
    await asyncio.sleep(0.01)
    arrivals.resume()
    arrivals.came(WHOLE, time.monotonic())
    assert before <= arrivals.at < before + 0.01
    arrivals.came(10, time.monotonic())  # the first read left some of it
    assert arrivals.at < before + 0.01
    now = time.monotonic()
    arrivals.came(10, now)
    assert arrivals.at == now


async def test_a_pause_that_is_long_over_is_not_charged(rounds: LoopTurns) -> None:
    arrivals = ReceiveTime(rounds)
    arrivals.pause()
    arrivals.resume()
    for _ in range(4):
        await asyncio.sleep(0)
    now = time.monotonic()
    arrivals.came(10, now)
    assert arrivals.at == now


async def test_a_connection_that_was_taken_after_a_long_turn_may_have_waited_too(rounds: LoopTurns) -> None:
    began = time.monotonic()
    busy(0.003)
    rounds.turn_over(began)
    late = ReceiveTime(rounds)
    late.came(10, time.monotonic())
    assert late.at == began

"""Which calls are refused unread: those past the limit, and those without time left."""

from __future__ import annotations

import asyncio
import logging

import pytest

from zta_authz.errors import Reason
from zta_authz.servers.grpcio import overload_guard as backlog
from zta_authz.servers.grpcio.overload_guard import OverloadGuard
from zta_authz.servers.methods import MARGIN_SECONDS, Deadlines


class Call:
    """A call's context with `left` seconds to answer."""

    def __init__(self, left: float | None = None) -> None:
        self._left = left

    def time_remaining(self) -> float | None:
        return self._left


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What gRPC's counters say, one look after the other; 0 from then on."""
    counts: list[int] = []
    monkeypatch.setattr(backlog, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(backlog, "unfinished_calls", lambda: counts.pop(0) if counts else 0)
    return counts


@pytest.mark.parametrize(
    ("left", "reason"),
    [
        (None, None),
        (600.0, None),
        (MARGIN_SECONDS * 2, None),
        (MARGIN_SECONDS / 2, Reason.DEADLINE_EXCEEDED),
        (-1.0, Reason.DEADLINE_EXCEEDED),
    ],
)
async def test_a_call_is_decided_only_with_time_left_to_answer(left: float | None, reason: Reason | None) -> None:
    assert OverloadGuard(10).judge(Call(left)) is reason


@pytest.mark.parametrize(("left", "late"), [(None, 0), (0.5, 0), (0.0, 1), (-1.0, 1)])
def test_an_answer_after_the_deadline_is_counted(left: float | None, late: int) -> None:
    deadlines = Deadlines()
    deadlines.answered(Call(left))
    assert deadlines.late_answers == late


async def test_calls_are_refused_until_no_more_than_the_limit_are_waiting(looking: list[int]) -> None:
    judge = OverloadGuard(10).judge
    looking.append(14)
    while looking:
        assert judge(Call()) is None  # nobody has looked yet
        await asyncio.sleep(0)
    verdicts = [judge(Call()) for _ in range(10)]
    assert verdicts == [Reason.OVERLOADED] * 4 + [None] * 6


async def test_the_counters_are_not_read_while_no_call_arrives(looking: list[int]) -> None:
    waiting = OverloadGuard(10)
    waiting.judge(Call())
    while waiting._looking:  # noqa: ASYNC110  nothing tells when it goes to rest
        await asyncio.sleep(0.001)
    looking.append(1)
    await asyncio.sleep(0.02)
    assert looking == [1]


async def test_unreadable_counters_refuse_no_call_and_are_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlog, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr("grpc._cython.cygrpc.channelz_get_servers", lambda _: b"{}")
    judge = OverloadGuard(0).judge
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            assert judge(Call()) is None
            await asyncio.sleep(0.002)
    assert [record.getMessage() for record in caplog.records] == [
        "gRPC's counters can't be read (KeyError): only deadlines limit overload"
    ]

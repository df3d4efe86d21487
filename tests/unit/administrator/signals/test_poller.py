"""Poll delivery: acknowledgements only after the commit, errors reported, pauses that grow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.stores import FailingStore
from tests.support.pki import NOW
from tests.support.security_events import KEYS, claims, signed, source
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.poller import MAX_EVENTS, MAX_RETRY_SECONDS, Poller
from zta_authz.administrator.signals.runtime import SourceRuntime
from zta_authz.administrator.signals.transmitter_client import Refused
from zta_authz.administrator.store.port import StoreUnavailable
from zta_authz.keys.http_client import HttpReply
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.administrator.store.port import Store


class Replies:
    """A transmitter client that gives these answers in turn: sets, a reply or an exception."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.requests: list[Mapping[str, Any]] = []

    async def poll(self, endpoint: str, request: Mapping[str, Any], seconds: float) -> HttpReply:
        del endpoint, seconds
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else {}
        if isinstance(reply, BaseException):
            raise reply
        return reply if isinstance(reply, HttpReply) else HttpReply(200, json.dumps({"sets": reply}).encode())


def poller(store: Any, *replies: Any) -> tuple[Poller, Replies]:
    runtime = SourceRuntime(source(), Intake(store, clock=lambda: NOW), lambda: NOW)
    runtime.slot.current = KEYS
    client = Replies(*replies)
    return Poller(runtime, client, "https://idp.example.com/poll", jitter=lambda _, most: most), client  # type: ignore[arg-type]


def one(**changed: Any) -> tuple[str, str]:
    payload = claims(**changed)
    return payload["jti"], signed(payload).decode()


async def test_a_set_is_acknowledged_in_the_next_request_and_once(store: Store) -> None:
    jti, text = one()
    polls, client = poller(store, {jti: text})
    assert [await polls.step() for _ in range(3)] == [0.0, 1.0, 1.0]
    assert client.requests == [
        {"maxEvents": MAX_EVENTS, "returnImmediately": False},
        {"maxEvents": MAX_EVENTS, "returnImmediately": True, "ack": [jti]},
        {"maxEvents": MAX_EVENTS, "returnImmediately": False},
    ]


async def test_acknowledgements_that_did_not_arrive_are_sent_again(store: Store) -> None:
    jti, text = one()
    polls, client = poller(store, {jti: text}, FetchFailed(FetchOutcome.UNREACHABLE, "down"), HttpReply(500, b""))
    for _ in range(4):
        await polls.step()
    assert [request.get("ack") for request in client.requests] == [None, [jti], [jti], [jti]]


async def test_a_set_that_was_not_committed_is_not_acknowledged(store: Store) -> None:
    jti, text = one()
    polls, client = poller(FailingStore(store, 0, StoreUnavailable("disk")), {jti: text}, {jti: text})
    assert await polls.step() > 0
    await polls.step()
    await polls.step()
    assert [request.get("ack") for request in client.requests] == [None, None, [jti]]


async def test_a_set_that_is_not_valid_is_reported_once(store: Store) -> None:
    jti, text = one(exp=NOW)
    polls, client = poller(store, {jti: text})
    for _ in range(3):
        await polls.step()
    assert client.requests[1]["setErrs"][jti]["err"] == "invalid_request"
    assert "ack" not in client.requests[1]
    assert "setErrs" not in client.requests[2]


async def test_a_set_whose_key_cannot_be_fetched_waits_and_blocks_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("zta_authz.administrator.signals.runtime.NEW_KEY_SECONDS", 0.1)
    payload = claims()
    waiting = signed(payload, {"kid": "new"}).decode()
    jti, text = one()
    polls, client = poller(store, {payload["jti"]: waiting, jti: text})
    assert await polls.step() > 0
    await polls.step()
    assert client.requests[1]["ack"] == [jti]
    assert "setErrs" not in client.requests[1]


async def test_pauses_double_up_to_a_limit_and_end_with_the_first_success(store: Store) -> None:
    polls, _ = poller(store, *[HttpReply(500, b"")] * 9, {})
    pauses = [await polls.step() for _ in range(10)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, MAX_RETRY_SECONDS, MAX_RETRY_SECONDS, MAX_RETRY_SECONDS, 1.0]


async def test_the_transmitter_can_ask_for_a_longer_pause_within_the_limit(store: Store) -> None:
    polls, _ = poller(store, HttpReply(429, b"", 30.0), HttpReply(429, b"", 99999.0))
    assert [await polls.step(), await polls.step()] == [30.0, MAX_RETRY_SECONDS]


async def test_an_answer_that_is_too_large_is_asked_for_in_smaller_parts(store: Store) -> None:
    too_large = FetchFailed(FetchOutcome.TOO_LARGE, "large")
    polls, client = poller(store, *[too_large] * 7)
    pauses = [await polls.step() for _ in range(7)]
    assert [request["maxEvents"] for request in client.requests] == [50, 25, 12, 6, 3, 1, 1]
    assert pauses[:5] == [0.0] * 5
    assert pauses[6] > 0


async def test_a_transmitter_that_waits_for_longer_is_no_failure(store: Store) -> None:
    polls, _ = poller(store, TimeoutError(), TimeoutError())
    assert [await polls.step(), await polls.step()] == [1.0, 1.0]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_stream_that_is_gone_ends_the_poller(store: Store, status: int) -> None:
    polls, _ = poller(store, HttpReply(status, b""))
    with pytest.raises(Refused):
        await polls.step()


@pytest.mark.parametrize(
    "body", [b"x", b"[]", b'{"sets": []}', b'{"sets": {"a": 7}}', b'{"sets": {"": "x"}}', b'{"sets": {"a": "%s"}}' % (b"x" * 70000)]
)  # fmt: skip
async def test_an_answer_that_is_no_list_of_sets_is_a_failure(store: Store, body: bytes) -> None:
    polls, _ = poller(store, HttpReply(200, body))
    assert await polls.step() == 1.0


async def test_more_sets_than_asked_for_are_left_for_the_next_time(store: Store) -> None:
    sets = dict(one() for _ in range(MAX_EVENTS + 1))
    polls, client = poller(store, sets)
    assert await polls.step() == 0.0
    await polls.step()
    assert len(client.requests[1]["ack"]) == MAX_EVENTS


async def test_an_empty_answer_is_no_failure(store: Store) -> None:
    polls, _ = poller(store, HttpReply(204, b""), HttpReply(200, b"{}"))
    assert [await polls.step(), await polls.step()] == [1.0, 1.0]

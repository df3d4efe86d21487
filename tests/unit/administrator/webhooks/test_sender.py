"""Each wanted event reaches the receiver at least once, in order, whatever fails: the receiver, the store, the process."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.stores import FailingStore, Killed
from tests.support.webhook_receiver import SECRET_LINE, WebhookReceiver, verifies, webhook_receiver
from zta_authz.administrator.access_events import AccessEvent, Actor, EventKind, EventObject, encode_event
from zta_authz.administrator.lease import Lease
from zta_authz.administrator.store.port import Change, StoreUnavailable
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.webhooks import sender as module
from zta_authz.administrator.webhooks.sender import MAX_REJECTIONS, Outcome, Receiver, Sender
from zta_authz.keys.addresses import PUBLIC_ONLY, AddressRules
from zta_authz.keys.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

REQUESTED = EventKind.ACCESS_REQUESTED
LONG = 1e7  # a lease that does not end while a test runs


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(str(tmp_path / "store.db"), retained=500)
    await opened.epoch()
    yield opened
    await opened.close()


@pytest.fixture
async def hook() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as running:
        yield running


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET_LINE + "\n")
    return path


class Replica:
    """One sender in one process of the administrator. Pauses are noted, and last no time."""

    def __init__(
        self, store: Any, url: str, secret: Path, name: str = "one", rules: AddressRules | None = None
    ) -> None:
        self.outcomes: list[str] = []
        self.client = HttpClient(rules or AddressRules(allow_private=True), allow_http=True)
        receiver = Receiver("hook", url, str(secret), frozenset({"access.requested", "access.break_glass"}), "c1")
        self.sender = Sender(
            receiver, store, self.client, Lease(store, "lease/c1", name, LONG), lambda: "epoch-1",
            lambda _, outcome: self.outcomes.append(outcome), time.time, lambda _, most: most,
        )  # fmt: skip

    async def steps(self, count: int = 30) -> list[float]:
        """Make steps until everything is sent or `count` are made. Returns the pauses between them."""
        pauses = []
        for _ in range(count):
            pause = await self.sender.step()
            if pause is None:
                break
            pauses.append(pause)
        return [pause for pause in pauses if pause]


@asynccontextmanager
async def replica(*args: Any, **kwargs: Any) -> AsyncIterator[Replica]:
    one = Replica(*args, **kwargs)
    try:
        await one.sender.step()  # it begins with the next event
        yield one
    finally:
        await one.client.close()


async def happens(store: Store, *kinds: EventKind, reason: str = "INC-1") -> list[str]:
    """One commit with events. Returns their IDs."""
    events = [
        AccessEvent(kind, EventObject("request", "0123456789abcdef"), Actor("", "https://i", "ann"), reason)
        for kind in kinds
    ]
    await store.commit(Change(events=[encode_event(event) for event in events]))
    return [event.event_id for event in events]


async def test_wanted_events_are_sent_in_order_with_a_signature_and_others_are_not(
    store: Store, hook: WebhookReceiver, secret: Path
) -> None:
    await happens(store, REQUESTED)
    async with replica(store, hook.url, secret) as one:
        first = await happens(store, EventKind.ACCESS_DENIED, REQUESTED, EventKind.ACCESS_BREAK_GLASS)
        await happens(store, EventKind.SIGNAL_ACCEPTED)
        last = await happens(store, REQUESTED, reason='"}\n\u2028<script>')
        assert await one.steps() == []
        assert hook.accepted == [first[1], first[2], last[0]]
        assert all(verifies(headers, body) for headers, body in hook.raw)
        assert one.outcomes == ["delivered"] * 3
        _, body = hook.requests[0]
        assert (body["type"], body["data"]["object"]["id"]) == ("access.requested", "0123456789abcdef")
        assert (body["data"]["actor"]["subject"], body["data"]["revision"]) == ("ann", 2)
        assert body["timestamp"] == body["data"]["time"]
        assert hook.raw[0][0]["content-type"] == "application/json"


async def test_the_body_has_no_link_and_no_secret(store: Store, hook: WebhookReceiver, secret: Path) -> None:
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        await one.steps()
    body = hook.raw[0][1].decode()
    assert "http" not in body.replace("https://i", "")
    assert SECRET_LINE[6:] not in body
    assert set(json.loads(body)) == {"type", "timestamp", "data"}


async def test_a_receiver_that_fails_gets_the_event_again_later_and_later_and_then_those_after_it(
    store: Store, hook: WebhookReceiver, secret: Path
) -> None:
    hook.answers = [500, 503, 404, 401, 429, 302]
    async with replica(store, hook.url, secret) as one:
        (first,) = await happens(store, REQUESTED)
        (second,) = await happens(store, REQUESTED)
        assert await one.steps() == [1, 2, 4, 8, 16, 32]
        assert hook.accepted == [first, second]
        assert [message_id for message_id, _ in hook.requests] == [first] * 7 + [second]
        assert len({headers["webhook-signature"] for headers, _ in hook.raw}) >= 1
        assert one.outcomes == ["failed"] * 6 + ["delivered"] * 2
        assert (one.sender.failure, one.sender.waiting_since) == ("", None)


async def test_a_receiver_may_ask_for_more_time_but_not_for_days(
    store: Store, hook: WebhookReceiver, secret: Path
) -> None:
    hook.answers, hook.headers = [429, 503], {"Retry-After": "120"}
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        assert await one.steps(2) == [120]  # the first step gets the lease
        hook.headers = {"Retry-After": "999999"}
        assert await one.steps(1) == [3600]


async def test_an_event_that_is_rejected_for_its_content_does_not_hold_up_those_after_it(
    store: Store, hook: WebhookReceiver, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [400] * MAX_REJECTIONS
    async with replica(store, hook.url, secret) as one:
        (first,) = await happens(store, REQUESTED)
        (second,) = await happens(store, REQUESTED)
        await one.steps()
        assert hook.accepted == [second]
        assert one.outcomes == ["failed"] * MAX_REJECTIONS + ["given_up", "delivered"]
    given_up = next(record for record in caplog.records if "given up" in record.message)
    assert vars(given_up)["event_id"] == first


async def test_an_event_is_given_up_after_a_day(
    store: Store, hook: WebhookReceiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.answers = [500] * 3
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        await one.steps(3)
        monkeypatch.setattr(module, "MAX_AGE_SECONDS", 0.0)
        await one.steps()
        assert one.outcomes == ["failed", "failed", "failed", "given_up"]


async def test_a_redirect_is_not_followed(store: Store, hook: WebhookReceiver, secret: Path) -> None:
    hook.answers, hook.headers = [307, 301], {"Location": "/elsewhere"}
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        await one.steps(2)
        assert "redirect" in one.sender.failure
        await one.steps()
    assert hook.elsewhere == 0
    assert len(hook.accepted) == 1


async def test_a_receiver_that_does_not_answer_costs_one_attempt_of_bounded_time(
    store: Store, hook: WebhookReceiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 0.2)
    hook.silent = True
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        assert await one.steps(2) == [1]
        assert one.sender.failure == "no answer within 0.2 seconds"
        hook.silent = False
        await one.steps()
    assert len(hook.accepted) == 1


async def test_a_receiver_that_is_down_gets_everything_once_it_is_back(store: Store, secret: Path) -> None:
    async with webhook_receiver() as before:
        port, url = before.port, before.url
    async with replica(store, url, secret) as one:
        expected = [(await happens(store, REQUESTED))[0] for _ in range(3)]
        await one.steps(4)
        assert one.sender.waiting_since is not None
        async with webhook_receiver(port) as after:
            await one.steps()
            assert after.accepted == expected


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://[::1]:9/", "http://169.254.169.254/latest/meta-data"])
async def test_private_addresses_are_not_connected_to_unless_they_are_permitted(
    store: Store, secret: Path, url: str
) -> None:
    async with replica(store, url, secret, rules=PUBLIC_ONLY) as one:
        await happens(store, REQUESTED)
        await one.steps(3)
        assert one.sender.failure.startswith("refused_address")


async def test_the_secret_is_read_for_each_request_and_a_bad_one_is_not_quoted(
    store: Store, hook: WebhookReceiver, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(store, hook.url, secret) as one:
        await happens(store, REQUESTED)
        for text in ("whsec_tooshort", "\xe9"):
            secret.write_text(text)  # noqa: ASYNC240 - a small file of the test
            await one.steps(2)
            assert "secret's file is not" in one.sender.failure
        secret.unlink()  # noqa: ASYNC240
        await one.steps(1)
        assert "can't be read" in one.sender.failure
        assert hook.raw == []
        secret.write_text(SECRET_LINE)  # noqa: ASYNC240
        await one.steps()
    assert len(hook.accepted) == 1
    assert "tooshort" not in caplog.text
    assert "a-secret-in-the-path" not in caplog.text


async def test_only_the_replica_with_the_lease_sends_and_the_other_goes_on_where_it_stopped(
    store: Store, hook: WebhookReceiver, secret: Path
) -> None:
    async with replica(store, hook.url, secret, "one") as one, replica(store, hook.url, secret, "two") as two:
        await happens(store, REQUESTED)
        await one.steps()
        await happens(store, REQUESTED)
        (pause,) = await two.steps(1)
        assert pause > 1
        assert two.outcomes == []
        await one.steps()
        assert await two.steps() == []
        assert len(hook.accepted) == 2


@pytest.mark.parametrize("after", [False, True], ids=["before it takes effect", "after it took effect"])
@pytest.mark.parametrize("at", range(9))
@pytest.mark.parametrize("error", [Killed(), StoreUnavailable("gone")], ids=["killed", "store fails"])
async def test_no_event_is_lost_whichever_call_of_the_store_fails(
    store: Store, hook: WebhookReceiver, secret: Path, at: int, after: bool, error: BaseException
) -> None:
    async with replica(store, hook.url, secret):
        expected = [(await happens(store, REQUESTED))[0] for _ in range(2)]
    first = Replica(FailingStore(store, at, error, after=after), hook.url, secret)
    with suppress(Killed, StoreUnavailable):
        await first.steps()
    await first.client.close()
    async with replica(store, hook.url, secret) as second:  # the same process name: its lease goes on
        await second.steps()
    if len(hook.accepted) < 2:  # the lease of the dead process has to end first
        async with replica(store, hook.url, secret) as third:
            third.sender._lease = Lease(store, "lease/other", "three", LONG)
            await third.steps()
    assert list(dict.fromkeys(hook.accepted)) == expected
    assert len(hook.accepted) <= 3, "only the event that was being sent may come twice"


async def test_a_restored_store_repeats_at_most_the_last_commit_and_skips_nothing(
    store: Store, hook: WebhookReceiver, secret: Path
) -> None:
    epoch = ["epoch-1"]
    async with replica(store, hook.url, secret) as one:
        one.sender._epoch = lambda: epoch[0]
        await happens(store, REQUESTED)
        await one.steps()
        await happens(store, REQUESTED)
        await one.steps()
        await happens(store, REQUESTED)
        epoch[0] = "epoch-2"
        await one.steps()
        first, second, again, third = hook.accepted
        assert again == second
        assert len({first, second, third}) == 3


async def test_events_that_the_store_forgot_are_reported(
    store: SqliteStore, hook: WebhookReceiver, secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with replica(store, hook.url, secret) as one:
        for _ in range(600):
            await happens(store, EventKind.SIGNAL_ACCEPTED)
        (wanted,) = await happens(store, REQUESTED)
        await one.steps()
        assert hook.accepted == [wanted]
    assert "forgot" in caplog.text


async def test_unwanted_events_move_the_position_in_the_store_too(
    store: Store, hook: WebhookReceiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SAVE_EVERY", 10)
    async with replica(store, hook.url, secret) as one:
        for _ in range(12):
            await happens(store, EventKind.SIGNAL_ACCEPTED)
        await one.steps()
        raw = await store.get_temporary("webhook/c1")
        assert raw is not None
        assert json.loads(raw)["revision"] == 12


async def test_an_internal_error_does_not_end_the_sender(
    store: Store, hook: WebhookReceiver, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RETRY_SECONDS", 0.01)
    async with replica(store, hook.url, secret) as one:
        send: Callable[..., Any] = one.client.send
        broken = [ValueError("a bug")]

        async def fail_once(*args: Any, **kwargs: Any) -> Any:
            if broken:
                raise broken.pop()
            return await send(*args, **kwargs)

        monkeypatch.setattr(one.client, "send", fail_once)
        await happens(store, REQUESTED)
        running = asyncio.get_running_loop().create_task(one.sender.run(asyncio.sleep))
        async with asyncio.timeout(10):
            while not hook.accepted:  # noqa: ASYNC110 - of another server
                await asyncio.sleep(0.01)
        running.cancel()
        assert one.outcomes == [Outcome.DELIVERED]

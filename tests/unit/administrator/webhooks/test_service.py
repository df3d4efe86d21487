"""Webhooks from the settings: what is wrong with them is said at the start, and no receiver waits for another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.support.webhook_receiver import SECRET_LINE, verifies, webhook_receiver
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.webhooks.metrics import WebhookMetrics
from zta_authz.administrator.webhooks.service import build_webhooks
from zta_authz.errors import SettingsErrors
from zta_authz.settings.load import load_settings
from zta_authz.settings.model import JwksSettings
from zta_authz.settings.webhooks_model import WebhookSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store
    from zta_authz.administrator.webhooks.service import Webhooks

LOOPBACK = JwksSettings(allow_private_addresses=True, allow_http=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(str(tmp_path / "store.db"))
    await opened.epoch()
    yield opened
    await opened.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET_LINE)
    return path


def built(
    store: Store, *settings: WebhookSettings, jwks: JwksSettings = LOOPBACK, metrics: WebhookMetrics | None = None
) -> Webhooks:
    return build_webhooks(
        settings, jwks, store, epoch=lambda: "e", holder="one", metrics=metrics or WebhookMetrics(CollectorRegistry())
    )


def setting(url: str, secret: Path, *kinds: str) -> WebhookSettings:
    """Settings accept https only; a test may go to a plain receiver on loopback."""
    made = WebhookSettings(url="https://hooks.example/", secret_file=str(secret), kinds=kinds or ("access.requested",))
    return made.model_copy(update={"url": url})


@asynccontextmanager
async def running(webhooks: Webhooks) -> AsyncIterator[None]:
    """Run the webhooks until each has begun, which is with the next event."""
    webhooks.start()
    try:
        await until(lambda: all(sender._position for sender in webhooks._senders))
        yield
    finally:
        await webhooks.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for is in a server
            await asyncio.sleep(0.01)


async def event(store: Store, kind: EventKind) -> None:
    await store.commit(Change(events=[encode_event(AccessEvent(kind, EventObject("request", "0123456789abcdef")))]))


async def test_a_dead_and_a_slow_receiver_delay_no_other(store: Store, secret: Path) -> None:
    registry = CollectorRegistry()
    metrics = WebhookMetrics(registry)
    async with webhook_receiver() as dead:
        gone = dead.url
    async with webhook_receiver() as slow, webhook_receiver() as good, AsyncExitStack() as stack:
        slow.silent = True
        urls = gone, slow.url, good.url
        webhooks = built(store, *(setting(url, secret) for url in urls), metrics=metrics)
        await stack.enter_async_context(running(webhooks))
        for _ in range(5):
            await event(store, EventKind.ACCESS_REQUESTED)
        await until(lambda: len(good.accepted) == 5)
        await until(lambda: [bool(sender.failure) for sender in webhooks._senders] == [True, False, False])
        await until(lambda: webhooks._senders[2].waiting_since is None)
        assert all(verifies(*raw) for raw in good.raw)
        text = generate_latest(registry).decode()
        assert 'zta_webhook_attempts_total{outcome="delivered",webhook="127.0.0.1#3"} 5.0' in text
        assert 'zta_webhook_failing{webhook="127.0.0.1"} 1.0' in text
        assert 'zta_webhook_failing{webhook="127.0.0.1#3"} 0.0' in text
        assert 'zta_webhook_waiting_age_seconds{webhook="127.0.0.1#3"} 0.0' in text
        assert "a-secret-in-the-path" not in text


async def test_what_was_not_delivered_at_the_end_is_sent_after_the_next_start(store: Store, secret: Path) -> None:
    async with webhook_receiver() as hook:
        hook.answers = [500]
        async with running(built(store, setting(hook.url, secret))):
            await event(store, EventKind.ACCESS_REQUESTED)
            await until(lambda: bool(hook.raw))
        assert hook.accepted == []
        async with running(built(store, setting(hook.url, secret))):
            await until(lambda: bool(hook.accepted))
        assert hook.requests[0][0] == hook.accepted[0]


@pytest.mark.parametrize(
    ("url", "kinds", "jwks", "wrong"),
    [
        ("https://hooks.example/x", ("access.asked",), JwksSettings(), "not a kind of event"),
        ("https://127.0.0.1/x", (), JwksSettings(), "not permitted"),
        ("https://169.254.169.254/x", (), JwksSettings(allow_private_addresses=True), "not permitted"),
        ("http://hooks.example/x", (), JwksSettings(), "scheme"),
        ("https://127.1/x", (), JwksSettings(), "standard form"),
    ],
)
async def test_a_wrong_setting_is_a_fault_that_does_not_quote_the_path(
    store: Store, secret: Path, url: str, kinds: tuple[str, ...], jwks: JwksSettings, wrong: str
) -> None:
    with pytest.raises(SettingsErrors) as refused:
        built(store, setting(url, secret, *kinds), jwks=jwks)
    (fault,) = refused.value.faults
    assert wrong in fault.message
    assert fault.hint
    assert "/x" not in str(refused.value)


async def test_a_secret_that_can_not_be_used_is_a_fault(store: Store, secret: Path) -> None:
    secret.write_text("hunter2")  # noqa: ASYNC240 - a small file of the test
    with pytest.raises(SettingsErrors) as refused:
        built(store, setting("https://hooks.example/", secret))
    assert "hunter2" not in str(refused.value)
    assert "openssl rand" in refused.value.faults[0].hint


def test_settings_are_read_and_wrong_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "administrator:\n  webhooks:\n  - {url: 'https://hooks.example/T0KEN', secret_file: s}\n"
        "  - {url: 'https://hooks.example/other', secret_file: s, kinds: [revocation.added]}\n"
    )
    first, second = load_settings(str(path), {}).administrator.webhooks
    assert first.kinds == ("access.requested", "access.break_glass")
    assert second.kinds == ("revocation.added",)
    assert "T0KEN" not in repr(first)
    for wrong in (
        "[{url: 'http://hooks.example/', secret_file: s}]",
        "[{url: 'https://hooks.example/', secret_file: s, kinds: []}]",
        "[{url: 'https://u:p@hooks.example/', secret_file: s}]",
        "[{url: 'https://a.example/', secret_file: s}, {url: 'https://a.example/', secret_file: t}]",
        "[{secret_file: s}]",
    ):
        path.write_text(f"administrator: {{webhooks: {wrong}}}\n")
        with pytest.raises(SettingsErrors):
            load_settings(str(path), {})

"""`zta-authz administer` sends signed webhooks over TLS, and after a restart goes on with the event that was not answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.integration.test_administer import settings
from tests.support.issuer import server_tls
from tests.support.service import RunningService, run_cli
from tests.support.stores import SqlitePlace
from tests.support.webhook_receiver import SECRET_LINE, verifies, webhook_receiver
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject, encode_event
from zta_authz.administrator.store.port import Change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store


async def happens(store: Store) -> str:
    event = AccessEvent(EventKind.ACCESS_REQUESTED, EventObject("request", "0123456789abcdef"))
    await store.commit(Change(events=[encode_event(event)]))
    return event.event_id


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


async def test_an_event_that_was_being_sent_when_the_process_ended_is_sent_again_by_the_next_one(
    tmp_path: Path,
) -> None:
    context, authority = server_tls(tmp_path, "localhost")
    (tmp_path / "secret").write_text(SECRET_LINE)
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    store = await SqlitePlace(tmp_path).open()
    await store.epoch()
    async with webhook_receiver(tls=context) as hook:
        url = f"https://localhost:{hook.port}/hooks/a-secret-in-the-path"
        config.write_text(
            config.read_text() + f"  webhooks: [{{url: '{url}', secret_file: {tmp_path}/secret}}]\n"
            f"jwks: {{private_hosts: [localhost], ca_file: {authority}}}\n"
        )
        hook.silent = True
        with RunningService(config, command="administer") as first:
            await asyncio.to_thread(first.wait_for, "webhook: it begins with the next event")
            wanted = await happens(store)
            await until(lambda: bool(hook.raw))
            first.process.terminate()
            assert await asyncio.to_thread(first.process.wait, 20) == 0
        hook.silent = False
        with RunningService(config, command="administer") as second:
            await until(lambda: bool(hook.accepted))
            later = await happens(store)
            await until(lambda: len(hook.accepted) == 2)
            assert "a-secret-in-the-path" not in second.logs()
        assert hook.accepted == [wanted, later]
        assert [message_id for message_id, _ in hook.requests] == [wanted, wanted, later]
        assert all(verifies(*raw) for raw in hook.raw)
    await store.close()


def test_wrong_webhooks_end_the_start_with_what_to_write(tmp_path: Path) -> None:
    config = settings(tmp_path, f"sqlite:///{tmp_path}/store.sqlite")
    (tmp_path / "secret").write_text("hunter2")
    config.write_text(
        config.read_text()
        + f"  webhooks: [{{url: 'https://127.0.0.1/T0KEN', secret_file: {tmp_path}/secret, kinds: [access.asked]}}]\n"
    )
    ended = run_cli("administer", "--config", str(config))
    assert ended.returncode == 2
    for expected in ("`access.asked` is not a kind of event", "openssl rand", "not permitted"):
        assert expected in ended.stderr
    for hidden in ("hunter2", "T0KEN", "Traceback"):
        assert hidden not in ended.stderr

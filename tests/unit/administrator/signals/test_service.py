"""Sources from the document to the store: a real transmitter on loopback, polled and pushed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.support.pki import Signer
from tests.support.security_events import SIGNER, source
from tests.support.transmitter import TOKEN, Transmitter, transmitter
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver
from zta_authz.administrator.signals.service import SignalService, SourceOptions
from zta_authz.administrator.signals.transmitter_client import Credentials
from zta_authz.administrator.store.port import Change, read_items
from zta_authz.administrator.view_items import SourceItem, decode_item, encode_item
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http_client import HttpClient
from zta_authz.keys.jwks import JwksLoader
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.keys.refresher import JwksRefresher
from zta_authz.model.signal_documents import Delivery, EventKind, SignalAction

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store
    from zta_authz.model.signal_documents import SignalSource

NAME = "istio-system/idp"
NOW = 1_800_000_000.0


def document(of: Transmitter, **changed: Any) -> SignalSource:
    made = source(issuer=of.issuer, audiences=(), jwks_uri="", subjects={"token_issuers": (of.issuer,)})
    return replace(made, **changed)


def client() -> HttpClient:
    return HttpClient(AddressRules(allow_private=True), allow_http=True)


@asynccontextmanager
async def service(
    store: Store,
    sources: list[SignalSource],
    options: SourceOptions,
    push: PushReceiver | None = None,
    push_url: str = "",
) -> AsyncIterator[SignalService]:
    requests, keys = client(), JwksRefresher(JwksLoader(client()), Timing(unknown_kid=0.1))
    running = SignalService(
        Intake(store, clock=lambda: NOW), store, requests, keys, {NAME: options},
        push=push, push_url=push_url, clock=lambda: NOW, jitter=lambda least, _: least * 0.05,
    )  # fmt: skip
    await running.start(sources)
    try:
        yield running
    finally:
        await running.close()
        await requests.close()


async def eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is in other objects
            await asyncio.sleep(0.01)


async def items(store: Store, *prefixes: str) -> dict[str, Any]:
    _, found = await read_items(store, *prefixes)
    return dict(found)


@pytest.fixture
async def idp() -> AsyncIterator[Transmitter]:
    async with transmitter() as made:
        yield made


@pytest.fixture
def options(tmp_path: Path) -> SourceOptions:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "authorization").write_text("Bearer push-secret\n")
    return SourceOptions(Credentials(token_file=str(tmp_path / "token")), str(tmp_path / "authorization"))


async def test_a_polled_source_is_discovered_set_up_verified_and_acknowledged(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: running.states()[0].verified_at)
        jti = idp.queue()
        await eventually(lambda: jti not in idp.unacknowledged)
        assert len(await items(store, "view/revocation/")) == 1
        [state] = running.states()
        assert (state.name, state.delivery, state.stream_id) == (NAME, Delivery.POLL, "stream-1")
        assert (state.heard_at, state.verified_at, state.failure) == (NOW, NOW, "")
    assert idp.stream is not None
    assert "https://schemas.openid.net/secevent/caep/event-type/session-revoked" in idp.stream["events_requested"]
    assert idp.errors == {}
    assert list(await items(store, "signal-stream/")) == ["signal-stream/" + NAME]


async def test_a_verification_that_came_too_early_is_repeated_when_the_transmitter_allows_it(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    idp.verifies = False
    slow = replace(document(idp), max_silence=3600.0)
    async with service(store, [slow], options) as running:
        await eventually(lambda: "POST /t/verify" in idp.calls)
        idp.verifies = True
        await eventually(lambda: running.states()[0].verified_at)


async def test_a_restart_finds_the_stream_that_exists(store: Store, idp: Transmitter, options: SourceOptions) -> None:
    for _ in range(2):
        async with service(store, [document(idp)], options) as running:
            await eventually(lambda: running.states()[0].verified_at)
    assert idp.calls.count("POST /t/stream") == 1
    assert "PATCH /t/stream" not in idp.calls


async def test_a_stream_that_was_deleted_is_created_again(
    store: Store, idp: Transmitter, options: SourceOptions
) -> None:
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: running.states()[0].verified_at)
    idp.stream = None
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: running.states()[0].verified_at)
    assert idp.calls.count("POST /t/stream") == 2


async def test_the_only_stream_of_a_transmitter_is_adopted_and_updated(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    idp._configure({"delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": "http://old"}, "events_requested": []})
    idp.accepts_new = False
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: running.states()[0].verified_at)
    assert idp.calls.count("PATCH /t/stream") == 1


async def test_client_credentials_get_a_token_and_another_one_after_it_was_refused(store: Store, idp: Transmitter, tmp_path: Path) -> None:  # fmt: skip
    (tmp_path / "secret").write_text("s3cret:/?")
    credentials = Credentials("", "zta authz", str(tmp_path / "secret"), f"http://127.0.0.1:{idp.port}/t/token")
    async with service(store, [document(idp)], SourceOptions(credentials)) as running:
        await eventually(lambda: running.states()[0].verified_at)
        assert idp.calls.count("POST /t/token") == 1
        idp.token = "another"
        await eventually(lambda: idp.calls.count("POST /t/token") == 2)
        jti = idp.queue()
        await eventually(lambda: jti not in idp.unacknowledged)


async def test_a_pushed_source_answers_after_the_commit(store: Store, idp: Transmitter, options: SourceOptions) -> None:
    push = PushReceiver("127.0.0.1", 0)
    port = await push.start()
    url = f"http://127.0.0.1:{port}"
    async with service(store, [document(idp, delivery=Delivery.PUSH)], options, push, url) as running:
        await eventually(lambda: running.states()[0].verified_at)
        assert await idp.push(idp.queue()) == 202
        assert len(await items(store, "view/revocation/")) == 1
        assert idp.stream is not None
        assert idp.stream["delivery"]["endpoint_url"] == f"{url}/signals/{NAME}"
        idp.stream["delivery"]["authorization_header"] = "Bearer guessed"
        assert await idp.push(idp.queue()) == 401
    await push.stop()


async def test_failures_of_the_transmitter_lose_no_event(
    store: Store, idp: Transmitter, options: SourceOptions
) -> None:
    idp.failing = 3
    jti = idp.queue()
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: jti not in idp.unacknowledged)
        idp.failing = 2
        other = idp.queue()
        await eventually(lambda: other not in idp.unacknowledged)
        await eventually(lambda: running.states()[0].failure == "")


async def test_a_set_by_a_new_key_waits_for_the_key(store: Store, idp: Transmitter, options: SourceOptions) -> None:
    async with service(store, [document(idp)], options):
        first = idp.queue()
        await eventually(lambda: first not in idp.unacknowledged)
        idp.signer = Signer(alg="RS256", kid="idp-2", kind="RSA-2048", number=2)
        second = idp.queue()
        await eventually(lambda: second not in idp.unacknowledged)
    assert idp.errors == {}
    assert SIGNER.kid != idp.signer.kid


async def test_a_set_that_is_not_valid_is_reported_and_does_not_block_others(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    bad, unknown, good = idp.queue(exp=1), idp.queue(), idp.queue()
    idp.unacknowledged[unknown] = idp.unacknowledged[unknown][:-8] + "AAAAAAAA"
    async with service(store, [document(idp)], options):
        await eventually(lambda: not {bad, unknown, good} & set(idp.unacknowledged))
    assert idp.errors[bad]["err"] == "invalid_request"
    assert idp.errors[unknown]["err"] == "invalid_key"
    assert good not in idp.errors


async def test_metadata_of_another_issuer_are_refused(store: Store, idp: Transmitter, options: SourceOptions) -> None:
    idp.metadata = {"issuer": "https://evil.example"}
    async with service(store, [document(idp)], options) as running:
        await eventually(lambda: "another issuer" in running.states()[0].failure)
    assert idp.stream is None


async def test_a_source_that_the_policies_lose_is_stopped_and_its_signals_removed(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    risk = {"https://schemas.openid.net/secevent/caep/event-type/risk-level-change": {"current_level": "LOW"}}
    async with service(store, [document(idp)], options) as running:
        jtis = {idp.queue(events=risk), idp.queue()}
        await eventually(lambda: not jtis & set(idp.unacknowledged))
        assert len(await items(store, "view/signal/", "view/source/")) == 2
        await running.update([])
        assert running.states() == []
        assert await items(store, "view/signal/", "view/source/") == {}
        assert len(await items(store, "view/revocation/")) == 1
        polls = len(idp.polls)
        await asyncio.sleep(0.3)
        assert len(idp.polls) == polls


async def test_a_source_is_published_before_it_is_heard(store: Store, idp: Transmitter) -> None:
    """Without credentials nothing comes, and what the source would report is stale, not absent."""

    async def published() -> SourceItem | None:
        entry = await store.get("view/source/" + NAME)
        item = None if entry is None else decode_item("view/source/" + NAME, entry.value)
        return item if isinstance(item, SourceItem) else None

    async with service(store, [document(idp)], SourceOptions()) as running:
        await eventually(lambda: running.states()[0].failure != "")
    item = await published()
    assert item is not None
    assert (item.heard_at, item.issuers) == (0.0, (idp.issuer,))
    assert set(item.kinds) == {"assurance", "compliance", "risk"}
    await store.commit(Change(put={item.key: encode_item(msgspec.structs.replace(item, heard_at=5.0))}))
    changed = replace(document(idp), actions={EventKind.RISK_LEVEL_CHANGE: SignalAction.TRUST})
    async with service(store, [changed], SourceOptions()) as running:
        await eventually(lambda: running.states()[0].failure != "")
    item = await published()
    assert item is not None
    assert (item.heard_at, item.kinds) == (5.0, ("risk",))


async def test_two_administrators_of_one_store_take_each_event_once(store: Store, idp: Transmitter, options: SourceOptions) -> None:  # fmt: skip
    async with service(store, [document(idp)], options) as one, service(store, [document(idp)], options) as other:
        await eventually(lambda: one.states()[0].stream_id and other.states()[0].stream_id, 20)
        jtis = {idp.queue(sub_id={"format": "iss_sub", "iss": idp.issuer, "sub": str(n)}) for n in range(5)}
        await eventually(lambda: not jtis & set(idp.unacknowledged))
    assert len(await items(store, "view/revocation/")) == 5
    assert idp.calls.count("POST /t/stream") == 1
    accepted = [event for commit in await store.read_since(0) for event in commit.events if b"signal.accepted" in event]
    assert len(accepted) == 5

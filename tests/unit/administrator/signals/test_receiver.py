"""Push delivery: who may post, what is refused, and what each answer means."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession

from tests.fakes.stores import FailingStore
from tests.support.pki import NOW
from tests.support.security_events import ALICE, KEYS, claims, signed, source
from zta_authz.administrator.signals import receiver as receiver_module
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver, PushSource
from zta_authz.administrator.signals.runtime import SourceRuntime
from zta_authz.administrator.store.port import StoreUnavailable
from zta_authz.errors import SettingsErrors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zta_authz.administrator.store.port import Store

SECRET = "Bearer push-secret"
PATH = "/signals/istio-system/idp"
HEADERS = {"Authorization": SECRET, "Content-Type": "application/secevent+jwt"}


class Endpoint:
    """A running receiver, and a client of it."""

    def __init__(self, receiver: PushReceiver, port: int, session: ClientSession) -> None:
        self.receiver = receiver
        self.port = port
        self._session = session

    async def post(self, data: Any, path: str = PATH, **headers: str) -> tuple[int, Any]:
        named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.post(f"http://127.0.0.1:{self.port}{path}", data=data, headers=named) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.read()


@asynccontextmanager
async def listening(store: Store) -> AsyncIterator[Endpoint]:
    runtime = SourceRuntime(source(), Intake(store, clock=lambda: NOW), lambda: NOW)
    runtime.slot.current = KEYS
    receiver = PushReceiver("127.0.0.1", 0)
    receiver.sources = {"istio-system/idp": PushSource(runtime, SECRET)}
    port = await receiver.start()
    async with ClientSession() as session:
        yield Endpoint(receiver, port, session)
    await receiver.stop()


@pytest.fixture
async def endpoint(store: Store) -> AsyncIterator[Endpoint]:
    async with listening(store) as made:
        yield made


async def test_a_set_is_accepted_with_an_empty_answer(endpoint: Endpoint, store: Store) -> None:
    assert await endpoint.post(signed(claims())) == (202, b"")
    assert (await store.head()).revision == 1


async def test_the_answer_does_not_say_whether_a_subject_is_known(endpoint: Endpoint) -> None:
    stranger = signed(claims(sub_id=ALICE | {"iss": "https://other.example/"}))
    known = signed(claims())
    answers = {await endpoint.post(data) for data in (known, stranger, known, stranger)}
    assert answers == {(202, b"")}


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer push-secre", "Bearer push-secret2", "bearer push-secret", "é"])
async def test_only_the_streams_header_authorizes(endpoint: Endpoint, store: Store, value: str) -> None:
    status, content = await endpoint.post(signed(claims()), Authorization=value)
    assert (status, content["err"]) == (401, "authentication_failed")
    assert (await store.head()).revision == 0


async def test_an_address_without_a_source_looks_like_a_wrong_header(endpoint: Endpoint) -> None:
    unknown = await endpoint.post(signed(claims()), "/signals/istio-system/other")
    assert unknown == await endpoint.post(signed(claims()), Authorization="x")


@pytest.mark.parametrize("kind", ["application/jwt", "application/json", "text/plain"])
async def test_another_content_type_is_refused(endpoint: Endpoint, kind: str) -> None:
    status, content = await endpoint.post(signed(claims()), Content_Type=kind)
    assert (status, content["err"]) == (400, "invalid_request")


async def test_errors_have_the_code_of_the_specification(endpoint: Endpoint) -> None:
    cases = {
        "invalid_request": b"x",
        "invalid_issuer": signed(claims(iss="https://other.example/")),
        "invalid_audience": signed(claims(aud="other")),
        "invalid_key": signed(claims())[:-8] + b"AAAAAAAA",
    }
    for code, data in cases.items():
        status, content = await endpoint.post(data)
        assert (status, content["err"]) == (400, code)
        assert content["description"]


async def test_a_body_that_is_too_large_or_compressed_is_refused(endpoint: Endpoint) -> None:
    status, content = await endpoint.post(b"a" * (64 * 1024 + 1))
    assert (status, content["err"]) == (400, "invalid_request")
    status, _ = await endpoint.post(b"\x1f\x8b\x08garbage", Content_Encoding="gzip")
    assert status == 400


async def test_a_store_that_fails_is_never_an_acceptance(store: Store) -> None:
    async with listening(FailingStore(store, 0, StoreUnavailable("disk"))) as endpoint:
        assert await endpoint.post(signed(claims())) == (503, b"")
        assert (await endpoint.post(signed(claims())))[0] == 202


async def test_a_defect_is_never_an_acceptance(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(FailingStore(store, 0, ZeroDivisionError())) as endpoint:
        assert (await endpoint.post(signed(claims())))[0] == 500
    assert "ZeroDivisionError" in caplog.text


async def test_a_set_whose_keys_cannot_be_fetched_is_sent_again(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("zta_authz.administrator.signals.runtime.NEW_KEY_SECONDS", 0.1)
    assert (await endpoint.post(signed(claims(), {"kid": "new"})))[0] == 503


async def test_more_sets_at_a_time_than_can_be_taken_in_are_sent_again(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(receiver_module, "MAX_RUNNING", 0)
    assert (await endpoint.post(signed(claims())))[0] == 503


async def test_a_body_that_does_not_arrive_ends(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "BODY_SECONDS", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"e"
        await asyncio.sleep(5)

    assert (await endpoint.post(slow()))[0] == 408


async def test_an_address_in_use_is_a_fault_of_the_settings(endpoint: Endpoint) -> None:
    with pytest.raises(SettingsErrors, match="cannot listen"):
        await PushReceiver("127.0.0.1", endpoint.port).start()

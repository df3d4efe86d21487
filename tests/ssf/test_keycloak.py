"""Keycloak's transmitter: its metadata, stream, verification and events, by poll and by push, as this receiver reads them.

Runs where `make test-ssf` asks for it: that fetches Keycloak with Maven, which takes minutes. KEYCLOAK_HOME names a
directory with an unpacked Keycloak instead.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.ssf.keycloak import CLIENT, SECRET, Keycloak
from tests.support.pki import HERE
from zta_authz._proto.administrator_pb2 import Item
from zta_authz.administrator.signals.intake import Intake
from zta_authz.administrator.signals.receiver import PushReceiver
from zta_authz.administrator.signals.service import SignalService, SourceOptions
from zta_authz.administrator.signals.transmitter_client import Credentials
from zta_authz.administrator.store.port import read_items
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.administrator.view_items import wire_item
from zta_authz.authn.revocation import DynamicRevocations, Revocations
from zta_authz.errors import Refused
from zta_authz.following.items import read_revocation
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http_client import HttpClient
from zta_authz.keys.jwks import JwksLoader
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.keys.refresher import JwksRefresher
from zta_authz.model.signal_documents import CAEP, DEFAULT_ACTIONS, Delivery, SignalSource, SubjectMapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

pytestmark = pytest.mark.timeout(1200)
NAME = "istio-system/keycloak"


def document(keycloak: Keycloak, delivery: Delivery) -> SignalSource:
    issuer = keycloak.issuer
    return SignalSource(
        "keycloak", "istio-system", HERE, issuer, SubjectMapping((issuer,)), DEFAULT_ACTIONS, delivery=delivery
    )


def client() -> HttpClient:
    return HttpClient(AddressRules(allow_private=True), allow_http=True)


@asynccontextmanager
async def receiving(keycloak: Keycloak, store: Store, directory: Path, delivery: Delivery) -> AsyncIterator[SignalService]:  # fmt: skip
    """The service, receiving from Keycloak."""
    (directory / "secret").write_text(SECRET)
    (directory / "authorization").write_text("Bearer push-secret-of-this-test")
    token_endpoint = f"{keycloak.issuer}/protocol/openid-connect/token"
    credentials = Credentials(
        client_id=CLIENT, client_secret_file=str(directory / "secret"), token_endpoint=token_endpoint,
        scope="ssf.read ssf.manage",
    )  # fmt: skip
    options = {NAME: SourceOptions(credentials, str(directory / "authorization"))}
    push = PushReceiver("127.0.0.1", keycloak.push_port)
    port = await push.start()
    service = SignalService(
        Intake(store), store, client(), JwksRefresher(JwksLoader(client()), Timing()), options, push=push,
        push_url=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    await service.start([document(keycloak, delivery)])
    try:
        yield service
    finally:
        await service.close()
        await push.stop()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqliteStore.open(str(tmp_path / "store.db"))
    await opened.epoch()
    yield opened
    await opened.close()


async def eventually(is_so: Callable[[], Awaitable[bool]], seconds: float, why: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < deadline, why()
        await asyncio.sleep(0.1)


async def ready(service: SignalService) -> None:
    """Wait until the stream is set up."""

    async def done() -> bool:
        state = service.states()[0]
        return bool(state.stream_id) and not state.failure

    await eventually(done, 60.0, service.states)


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def is_revoked(store: Store, token: str) -> bool:
    """Whether a decision point that follows this store refuses the token."""
    dynamic, revocations = DynamicRevocations(), Revocations()
    revocations.use(dynamic)
    _, items = await read_items(store, "view/revocation/")
    for key, entry in items.items():
        timed = read_revocation(Item.FromString(wire_item(key, entry.value)).revocation)
        dynamic.put(timed.id, timed.revocation, timed.until)
    claims = claims_of(token)
    try:
        revocations.check_claims(
            claims["iss"], claims["sub"], claims["jti"], claims["iat"], time.time(), claims=claims
        )  # fmt: skip
    except Refused:
        return True
    return False


async def test_the_stream_is_set_up_and_verified(keycloak: Keycloak, store: Store, tmp_path: Path) -> None:
    async with receiving(keycloak, store, tmp_path, Delivery.POLL) as service:

        async def verified() -> bool:
            return service.states()[0].verified_at is not None

        await eventually(verified, 150.0, service.states)


@pytest.mark.parametrize("delivery", [Delivery.POLL, Delivery.PUSH])
async def test_a_logout_ends_the_tokens_of_the_user_and_a_new_login_gets_in(
    keycloak: Keycloak, store: Store, tmp_path: Path, delivery: Delivery
) -> None:
    async with receiving(keycloak, store, tmp_path, delivery) as service:
        await ready(service)
        token = await asyncio.to_thread(keycloak.login)
        assert not await is_revoked(store, token)
        await asyncio.to_thread(keycloak.logout)
        await eventually(lambda: is_revoked(store, token), 60.0, service.states)
        await asyncio.sleep(1.1)  # times of issue are whole seconds
        assert not await is_revoked(store, await asyncio.to_thread(keycloak.login))


async def test_the_users_own_logout_ends_that_session_only(keycloak: Keycloak, store: Store, tmp_path: Path) -> None:
    async with receiving(keycloak, store, tmp_path, Delivery.POLL) as service:
        await ready(service)
        first, other = await asyncio.to_thread(keycloak.tokens), await asyncio.to_thread(keycloak.login)
        await asyncio.to_thread(keycloak.log_out_of, first["refresh_token"])
        await eventually(lambda: is_revoked(store, first["access_token"]), 60.0, service.states)
        assert not await is_revoked(store, other)


async def test_a_changed_credential_ends_the_tokens_from_before_it(keycloak: Keycloak, store: Store, tmp_path: Path) -> None:  # fmt: skip
    async with receiving(keycloak, store, tmp_path, Delivery.POLL) as service:
        await ready(service)
        token = await asyncio.to_thread(keycloak.login)
        subject = {"format": "complex", "user": {"format": "iss_sub", "iss": keycloak.issuer, "sub": keycloak.user_id}}
        values = {"credential_type": "password", "change_type": "update", "event_timestamp": int(time.time())}
        await asyncio.to_thread(keycloak.emit, CAEP + "credential-change", subject, values)
        await eventually(lambda: is_revoked(store, token), 60.0, service.states)

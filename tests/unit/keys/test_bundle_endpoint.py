"""Bundle endpoints: server authentication, accepted bundles, and failed fetches."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.issuer import issuer_server
from tests.support.pki import Authority, pem, private_key, root
from zta_authz.authn.bundle_formats import Bundle, read_spiffe_bundle
from zta_authz.authn.chain import Authorities
from zta_authz.keys.bundle_endpoint import BundleEndpoint, BundleEndpointRefresher, fetch_bundle
from zta_authz.keys.bundle_store import BundleSource, BundleStore
from zta_authz.keys.http_client import trusted_authorities
from zta_authz.keys.outcomes import FetchFailed, FetchOutcome
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.model.spiffe import SpiffeId, TrustDomain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.issuer import IssuerServer

DOMAIN = TrustDomain("partner.example")
SERVER_ID = "spiffe://partner.example/spire/server"
FIRST, SECOND = root("first"), root("second")
NOW = time.time()
VALIDITY = {"not_before": NOW - 60, "not_after": NOW + 3600}
SERVING = root("serving", **VALIDITY)
QUICK = Timing(refresh=0.02, min_refresh=0.02, max_refresh=1.0, retry=0.02, max_retry=0.02)


def document(*authorities: Authority, **more: Any) -> str:
    keys = [
        {
            "kty": "EC",
            "use": "x509-svid",
            "x5c": [base64.b64encode(a.certificate.public_bytes(Encoding.DER)).decode()],
        }
        for a in authorities
    ]
    return json.dumps({"keys": keys} | more)


def server_context(directory: Path, authority: Authority = SERVING, **profile: Any) -> ssl.SSLContext:
    key = private_key("P-256", 501)
    leaf = authority.issue(**({"uris": (SERVER_ID,), "key": key} | VALIDITY | profile))
    (directory / "server.pem").write_text(pem(leaf))
    (directory / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return context


def bundles(*authorities: Authority) -> Any:
    return {DOMAIN.name: Authorities(DOMAIN, tuple(authority.certificate for authority in authorities))}


async def ask(server: IssuerServer, known: Any, endpoint_id: str | None = SERVER_ID, **more: Any) -> str:
    """Return the body, or the outcome and the detail of a failed fetch."""
    spiffe_id = None if endpoint_id is None else SpiffeId.parse(endpoint_id)
    try:
        return (await fetch_bundle(BundleEndpoint(DOMAIN, server.url("/b"), spiffe_id, **more), known)).decode()
    except FetchFailed as error:
        return str(error)


async def test_https_spiffe_accepts_the_expected_svid_verified_with_the_bundle_in_force(tmp_path: Path) -> None:
    async with issuer_server(server_context(tmp_path)) as server:
        server.say("/b", "hello")
        assert await ask(server, bundles(SERVING)) == "hello"
        assert await ask(server, bundles(FIRST, SERVING)) == "hello"


@pytest.mark.parametrize(
    ("profile", "known", "expected", "message"),
    [
        ({}, bundles(FIRST), SERVER_ID, "does not verify"),
        ({}, bundles(), SERVER_ID, "no bundle of `partner.example` yet"),
        ({}, {}, SERVER_ID, "no bundle of `partner.example` yet"),
        ({}, bundles(SERVING), "spiffe://partner.example/spire/other", "another SPIFFE ID"),
        ({"uris": (SERVER_ID, SERVER_ID + "2")}, bundles(SERVING), SERVER_ID, "2 URI SANs"),
        ({"uris": (), "dns": ("localhost",)}, bundles(SERVING), SERVER_ID, "0 URI SANs"),
        ({"not_after": NOW - 1}, bundles(SERVING), SERVER_ID, "does not verify"),
    ],
)
async def test_https_spiffe_refuses_every_other_server(
    tmp_path: Path, profile: dict[str, Any], known: Any, expected: str, message: str
) -> None:
    async with issuer_server(server_context(tmp_path, **profile)) as server:
        server.say("/b", "hello")
        outcome = await ask(server, known, expected)
    assert outcome.startswith("tls: ")
    assert message in outcome
    assert server.asked == []


async def test_https_web_requires_the_host_name_and_a_trusted_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(SERVING.pem)
    authorities = trusted_authorities(str(tmp_path / "ca.pem"))
    context = server_context(tmp_path, uris=(), dns=("localhost",))
    async with issuer_server(context) as server:
        server.say("/b", "hello")
        endpoint = BundleEndpoint(DOMAIN, server.url("/b", "localhost"), authorities=authorities)
        assert await fetch_bundle(endpoint, {}) == b"hello"  # type: ignore[arg-type]  # any mapping does
        assert "does not verify" in await ask(server, {}, None, authorities=authorities)  # 127.0.0.1 is another name
        assert "does not verify" in await ask(server, {}, None)
    assert server.asked == ["/b"]


class FakeEndpoint:
    """Returns `next` (or raises it) and records the bundles of each call."""

    def __init__(self, answer: str | FetchFailed) -> None:
        self.next = answer
        self.fetches = 0

    async def __call__(self, _endpoint: BundleEndpoint, _bundles: Any) -> bytes:
        self.fetches += 1
        if isinstance(self.next, FetchFailed):
            raise self.next
        return self.next.encode()

    async def another(self) -> None:
        """Wait until a fetch that starts after this call is over."""
        expected = self.fetches + 2
        async with asyncio.timeout(5):
            while self.fetches < expected:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)


@asynccontextmanager
async def keeping(
    endpoint: FakeEndpoint, begin: Bundle | None = None
) -> AsyncIterator[tuple[BundleStore, list[FetchOutcome]]]:
    store, heard = BundleStore({DOMAIN.name: BundleSource.ENDPOINT}), list[FetchOutcome]()
    keeper = BundleEndpointRefresher(
        BundleEndpoint(DOMAIN, "https://bundles.partner.example/b"),
        store,
        timing=QUICK,
        fetch=endpoint,
        on_fetch=lambda host, outcome: heard.append(outcome) if host == "bundles.partner.example" else None,
    )
    if begin is not None:
        keeper.seed(begin)
    task = asyncio.create_task(keeper.run())
    try:
        await asyncio.wait_for(keeper.tried.wait(), 5)
        yield store, heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def anchors(store: BundleStore) -> Any:
    return store.slot.current[DOMAIN.name].anchors if DOMAIN.name in store.slot.current else None


async def test_a_bundle_is_stored_and_follows_its_endpoint() -> None:
    endpoint = FakeEndpoint(document(FIRST))
    async with keeping(endpoint) as (store, heard):
        assert anchors(store) == (FIRST.certificate,)
        before = store.slot.current
        await endpoint.another()
        assert store.slot.current is before
        endpoint.next = document(SECOND, FIRST)
        await endpoint.another()
        assert anchors(store) == (SECOND.certificate, FIRST.certificate)
        assert set(heard) == {FetchOutcome.TAKEN}


@pytest.mark.parametrize(
    "bad",
    [
        FetchFailed(FetchOutcome.UNREACHABLE, "gone"),
        "garbage",
        "{}",
        document(SECOND, root("weak", key=private_key("RSA-1024", 2))),
        document(SECOND, spiffe_sequence=4),
        document(SECOND, spiffe_sequence=-1),
    ],
    ids=["unreachable", "no json", "no keys", "a weak key", "an older sequence", "no sequence"],
)
async def test_a_failed_fetch_keeps_the_last_good_bundle_and_is_retried(bad: str | FetchFailed) -> None:
    endpoint = FakeEndpoint(document(FIRST, spiffe_sequence=5))
    async with keeping(endpoint) as (store, heard):
        before = store.slot.current
        endpoint.next = bad
        await endpoint.another()
        assert store.slot.current is before
        assert set(heard) > {FetchOutcome.TAKEN}
        endpoint.next = document(SECOND, spiffe_sequence=6)
        await endpoint.another()
        assert anchors(store) == (SECOND.certificate,)


async def test_a_domain_that_withdraws_its_authorities_has_none_in_force() -> None:
    endpoint = FakeEndpoint(document(FIRST))
    async with keeping(endpoint) as (store, _):
        endpoint.next = document()
        await endpoint.another()
        assert anchors(store) == ()


async def test_the_operators_bundle_is_in_force_until_the_endpoint_provides_one() -> None:
    endpoint = FakeEndpoint(FetchFailed(FetchOutcome.UNREACHABLE, "not yet"))
    begin, faults = read_spiffe_bundle(DOMAIN, json.loads(document(FIRST)))
    assert faults == ()
    async with keeping(endpoint, begin) as (store, _):
        assert anchors(store) == (FIRST.certificate,)
        endpoint.next = document(SECOND)
        await endpoint.another()
        assert anchors(store) == (SECOND.certificate,)


@pytest.mark.parametrize(("hint", "least"), [(0, 2), (3600, 1)])
async def test_the_refresh_hint_counts_within_bounds(hint: int, least: int) -> None:
    endpoint = FakeEndpoint(document(FIRST, spiffe_refresh_hint=hint))
    async with keeping(endpoint):
        await asyncio.sleep(0.2)
    assert (endpoint.fetches == 1) if least == 1 else (2 <= endpoint.fetches <= 20)


async def test_an_internal_error_does_not_stop_fetching() -> None:
    endpoint = FakeEndpoint(document(FIRST))
    endpoint.next = None  # type: ignore[assignment]
    async with keeping(endpoint) as (store, heard):
        assert heard[0] is FetchOutcome.FAILED
        endpoint.next = document(FIRST)
        await endpoint.another()
        assert anchors(store) == (FIRST.certificate,)

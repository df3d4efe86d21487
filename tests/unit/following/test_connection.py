"""Following over TCP: both sides check the other's SPIFFE ID, and certificates rotate without a restart."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.test_tls import Files, key_pem
from tests.support.pki import private_key, root
from tests.support.stores import SqlitePlace
from tests.unit.administrator.test_follow_service import grant, until
from zta_authz.administrator.follow_service import FOLLOW, SERVICE, FollowService
from zta_authz.administrator.store.port import Change
from zta_authz.administrator.view import PublishedView
from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.chain import Authorities
from zta_authz.authn.own_svid import SvidSlot, read_own_svid
from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following import client, connection as module
from zta_authz.following.client import Follower
from zta_authz.following.connection import TlsTunnel
from zta_authz.following.tls import AdministratorTls, AgentIdentity, IdentityFiles, TlsProblem
from zta_authz.following.views import FollowedViews
from zta_authz.model.facts import FactSlot
from zta_authz.model.spiffe import TrustDomain
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.tls import MutualTls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from zta_authz.administrator.store.port import Store

ADMINISTRATOR = "spiffe://cluster.local/ns/default/sa/authz"
"""The SPIFFE ID of the certificate that `Files` writes."""
POINT = "spiffe://cluster.local/ns/shop/sa/decider"


class Pair:
    """The files of the administrator, and those of a decision point."""

    def __init__(self, directory: Path) -> None:
        now = time.time()
        self.validity = {"not_before": now - 60, "not_after": now + 3600}
        self.authority = root("ca", **self.validity)
        self.administrator = Files(self.authority, directory / "administrator", self.validity)
        self.directory = directory / "point"
        for path in (self.administrator.directory, self.directory):
            path.mkdir()
        self.administrator.write(1)
        self.write(POINT, 2)
        (self.directory / "ca.pem").write_text(self.authority.pem)

    def write(self, spiffe_id: str, number: int) -> None:
        (self.directory / "cert.pem").write_text(self.administrator.issue(spiffe_id, number))
        (self.directory / "key.pem").write_bytes(key_pem(number))

    def tls(self, *allowed: str) -> AdministratorTls:
        files = IdentityFiles(*(str(self.directory / name) for name in ("cert.pem", "key.pem", "ca.pem")))
        return AdministratorTls(files, allowed or (ADMINISTRATOR,))

    def server_tls(self, *allowed: str) -> MutualTls:
        return MutualTls(*self.administrator.mutual_tls().files, allowed or (POINT,), max_connection_age=0)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await SqlitePlace(tmp_path).open()
    await opened.epoch()
    yield opened
    await opened.close()


@asynccontextmanager
async def serving(store: Store, tls: MutualTls) -> AsyncIterator[tuple[int, set[str]]]:
    view, callers = PublishedView(store), set[str]()
    await view.start()
    service = FollowService(view, 0.1)

    def follow(payload: bytes, context: Any, caller: str) -> AsyncGenerator[bytes, None]:
        callers.add(caller)
        return service.follow(payload, context, caller)

    server = GrpcServer({}, [Endpoint(host="127.0.0.1")], SocketAccess(), tls=tls, streams={SERVICE: {FOLLOW: follow}})
    await server.start()
    try:
        yield server.addresses[0].port, callers
    finally:
        await server.stop(0)
        await view.close()


@asynccontextmanager
async def following(port: int, tls: AdministratorTls) -> AsyncIterator[tuple[FollowedViews, Follower]]:
    views = FollowedViews(FactSlot(), DynamicRevocations(), 600.0)
    follower = Follower(TlsTunnel("127.0.0.1", port, tls), views, "test")
    follower.start()
    try:
        yield views, follower
    finally:
        await follower.close()


async def test_a_follower_over_tls_has_the_view_and_is_named_by_its_spiffe_id(pair: Pair, store: Store) -> None:
    await store.commit(Change(put=grant("a")))
    async with serving(store, pair.server_tls()) as (port, callers), following(port, pair.tls()) as (views, _):
        await until(lambda: views.is_complete)
        await store.commit(Change(put=grant("b")))
        await until(lambda: len(views.grants) == 2)
    assert callers == {POINT}


async def test_a_follower_with_an_svid_of_the_workload_api_has_the_view(pair: Pair, store: Store) -> None:
    key = private_key("P-256", 7)
    leaf = pair.authority.issue(uris=(POINT,), key=key, **pair.validity)
    svid, bundles = SvidSlot(), BundleSlot()
    tls = AdministratorTls(AgentIdentity(svid, bundles, "cluster.local"), (ADMINISTRATOR,))
    async with serving(store, pair.server_tls()) as (port, callers), following(port, tls) as (views, _):
        await asyncio.sleep(0.05)
        assert not views.is_complete
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        svid.current = read_own_svid(POINT, leaf.public_bytes(Encoding.DER), der)
        bundles.current = {"cluster.local": Authorities(TrustDomain("cluster.local"), (pair.authority.certificate,))}  # type: ignore[assignment]  # a mapping
        await until(lambda: views.is_complete)
    assert callers == {POINT}


async def refused(pair: Pair, store: Store, tls: AdministratorTls, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says after the administrator or the follower refused the other."""
    async with serving(store, pair.server_tls()) as (port, _), following(port, tls) as (views, _follower):
        await until(lambda: "not reachable" in caplog.text)
        assert not views.is_complete
    return caplog.text


async def test_an_administrator_with_another_spiffe_id_is_refused(
    pair: Pair, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = "spiffe://cluster.local/ns/default/sa/other"
    text = await refused(pair, store, pair.tls(other), caplog)
    assert f"is not in `administrator.tls.spiffe_ids`: {ADMINISTRATOR}" in text


async def test_an_administrator_of_another_authority_is_refused(
    pair: Pair, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (pair.directory / "ca.pem").write_text(root("another", **pair.validity).pem)
    assert "CERTIFICATE_VERIFY_FAILED" in await refused(pair, store, pair.tls(), caplog)


async def test_a_follower_with_another_spiffe_id_gets_nothing(
    pair: Pair, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    pair.write("spiffe://cluster.local/ns/shop/sa/stranger", 3)
    assert "PERMISSION_DENIED" in await refused(pair, store, pair.tls(), caplog)


async def test_a_follower_without_a_certificate_of_the_authority_gets_nothing(
    pair: Pair, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = root("stranger", **pair.validity)
    (pair.directory / "cert.pem").write_text(pair.administrator.issue(POINT, 2, stranger))
    text = await refused(pair, store, pair.tls(), caplog)
    assert "PERMISSION_DENIED" not in text, "the handshake fails before any call"


async def test_a_connection_is_replaced_and_the_next_one_has_the_renewed_certificates(
    pair: Pair, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.3)
    monkeypatch.setattr(module, "SHORTEST_SECONDS", 0.3)
    renamed = "spiffe://cluster.local/ns/shop/sa/renewed"
    await store.commit(Change(put=grant("a")))
    async with (
        serving(store, pair.server_tls(POINT, renamed)) as (port, callers),
        following(port, pair.tls()) as (views, follower),
    ):
        await until(lambda: views.is_complete)
        pair.write(renamed, 5)
        pair.administrator.write(6)
        await until(lambda: renamed in callers)
        await until(lambda: follower.connected)
        assert (views.revision, len(views.grants)) == (1, 1)


async def test_a_server_that_never_answers_the_handshake_is_given_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        async with TlsTunnel("127.0.0.1", silent.getsockname()[1], pair.tls()).open():
            pass


async def test_an_expired_certificate_of_ours_is_reported_without_a_call(pair: Pair, store: Store) -> None:
    async with serving(store, pair.server_tls()) as (port, _):
        tunnel = TlsTunnel("127.0.0.1", port, pair.tls(), lambda: time.time() + 7200)
        with pytest.raises(TlsProblem, match="has expired"):
            async with tunnel.open():
                pass


async def test_another_process_cannot_use_the_tunnel() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind("\0zta-authz-test")
        listener.listen(2)
        accepting = asyncio.create_task(module._accept(listener))
        program = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0zta-authz-test'); print(s.recv(1))"
        stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        assert (await stranger.communicate())[0] == b"b''\n"
        assert not accepting.done()
        ours = socket.socket(socket.AF_UNIX)
        with ours:
            await asyncio.to_thread(ours.connect, "\0zta-authz-test")
            (await accepting).close()

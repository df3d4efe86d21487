"""Our SVID and the trust bundles from a Workload API: rotation under load, agents that die, messages that are no good."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from grpc_health.v1 import health_pb2

from tests.fakes.snapshots import HATSHOP
from tests.fakes.workload_api import FakeWorkloadApi, bundles_response, der, jwt_response, svid_response
from tests.integration.conformance.servers import KINDS
from tests.support.check_requests import check_request
from tests.support.pki import FRONTEND, HERE, Authority, Signer, pem, presented, private_key, root
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse
from zta_authz.authn.own_svid import SvidSlot
from zta_authz.authn.revocation import Revocations, RevocationSlot
from zta_authz.authn.verify import IdentityVerifier, compile_verifier
from zta_authz.errors import Reason, Refused
from zta_authz.keys.bundle_store import BundleStore
from zta_authz.keys.trust import TrustRefresher, TrustSources
from zta_authz.keys.workload_api import WorkloadApi
from zta_authz.model.documents import Revocation, RevocationList, Revoked
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, RequestAttributes
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.svid_tls import SvidTls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cryptography import x509

    from zta_authz.ports import Clock
    from zta_authz.servers.group import Server

NOW = time.time()
VALID = {"not_before": NOW - 60, "not_after": NOW + 3600}
US = "spiffe://cluster.local/ns/zta/sa/authz"
PROXY = "spiffe://cluster.local/ns/default/sa/orders"
PARTNER = "spiffe://partner.example/ns/a/sa/b"
ROOTS = [root(f"root {number}", **VALID) for number in range(4)]
PARTNERS = root("partner", **VALID)
ANY = RequestAttributes(method="GET", path="/")


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.keys.workload_api.MAX_RETRY_SECONDS", 0.05)


def bundles(*own: Authority, partner: Authority | None = PARTNERS) -> bytes:
    named = {"spiffe://cluster.local": der(*(authority.certificate for authority in own))}
    return bundles_response(
        named if partner is None else named | {"spiffe://partner.example": der(partner.certificate)}
    )


def svid(authority: Authority, number: int = 1, **changed: Any) -> bytes:
    key = private_key("P-256", 900 + number)
    leaf = authority.issue(uris=(US,), dns=("authz.test",), key=key, **(VALID | changed))
    return svid_response(US, key, leaf)


def evidence(authority: Authority, spiffe_id: str = FRONTEND) -> Evidence:
    return Evidence(spiffe_id, presented(authority.issue(uris=(spiffe_id,), **VALID)))


async def until(is_so: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for is other code's state
            await asyncio.sleep(0.005)


@dataclass
class Place:
    """An agent, what keeps up with it, and a verifier that decides by what it says."""

    agent: FakeWorkloadApi
    trust: TrustRefresher
    verifier: IdentityVerifier
    changes: list[tuple[str, ...]]

    def outcome(self, asked: Evidence) -> Reason | None:
        """None where the peer is verified, else why it is not."""
        try:
            self.verifier.verify(ANY, asked, time.time())
        except Refused as error:
            return error.reason
        return None

    async def said(self, payload: bytes) -> None:
        """Have the agent say it, and wait until that is in force."""
        before = self.trust.store.slot.current
        self.agent.say("FetchX509Bundles", payload)
        await until(lambda: self.trust.store.slot.current is not before)


@asynccontextmanager
async def place(tmp_path: Path, *, svid: bool = False) -> AsyncIterator[Place]:
    changes: list[tuple[str, ...]] = []
    async with FakeWorkloadApi(tmp_path / "agent.sock") as agent:
        agent.say("FetchX509Bundles", bundles(ROOTS[0]))
        sources = TrustSources(agent=agent.address, agent_bundles=True, agent_svid=svid)
        trust = TrustRefresher(sources, lambda: changes.append(trust.obstacles()))
        verifier = compile_verifier([], [], Options(bundles_from_elsewhere=True), [])
        trust.bind(verifier.bundle_slot)
        await trust.start(patience=5)
        try:
            yield Place(agent, trust, verifier, changes)
        finally:
            await trust.close()


async def test_bundles_are_in_force_when_the_start_is_over(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        assert here.outcome(evidence(ROOTS[0])) is None
        assert here.outcome(evidence(PARTNERS, PARTNER)) is None
        assert here.outcome(evidence(ROOTS[1])) is Reason.PEER_CERTIFICATE_UNTRUSTED
        assert here.outcome(evidence(ROOTS[0], PARTNER)) is Reason.PEER_CERTIFICATE_UNTRUSTED
        assert here.agent.calls["FetchX509SVID"] == 0


async def test_authorities_rotate_under_verification_without_one_wrong_answer(tmp_path: Path) -> None:
    asked = [evidence(authority) for authority in ROOTS]
    answers, wrong = 0, list[str]()

    async def verify_always(here: Place) -> None:
        """What is in force when a call is verified says what its outcome must be."""
        nonlocal answers
        while True:
            anchors = here.trust.store.slot.current["cluster.local"].anchors
            for authority, presented_by in zip(ROOTS, asked, strict=True):
                trusted = authority.certificate in anchors
                outcome = here.outcome(presented_by)
                if outcome is not (None if trusted else Reason.PEER_CERTIFICATE_UNTRUSTED):
                    wrong.append(f"{authority.certificate.subject}: {outcome}")
                answers += 1
            await asyncio.sleep(0)

    async with place(tmp_path) as here:
        load = asyncio.create_task(verify_always(here))
        for turn in range(60):  # the next authority is announced before the old one goes, as SPIRE does
            await here.said(bundles(ROOTS[turn % 4], ROOTS[(turn + 1) % 4]))
            await here.said(bundles(ROOTS[(turn + 1) % 4]))
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load
        assert here.agent.calls["FetchX509Bundles"] == 1  # all of it over one stream
    assert wrong == []
    assert answers > 400


async def test_an_agent_that_dies_takes_nothing_away_and_is_followed_again_when_it_returns(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        before = here.trust.store.slot.current
        await here.agent.stop()
        await asyncio.sleep(0.3)
        assert here.outcome(evidence(ROOTS[0])) is None
        assert here.trust.store.slot.current is before

        here.agent.say("FetchX509Bundles", bundles(ROOTS[1]))
        await here.agent.start()
        await until(lambda: here.outcome(evidence(ROOTS[1])) is None)
        assert here.outcome(evidence(ROOTS[0])) is Reason.PEER_CERTIFICATE_UNTRUSTED


async def test_a_federated_domain_that_is_no_longer_named_is_denied_from_the_next_call(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        asked = evidence(PARTNERS, PARTNER)
        assert here.outcome(asked) is None
        await here.said(bundles(ROOTS[0], partner=None))
        assert here.outcome(asked) is Reason.PEER_TRUST_DOMAIN_UNKNOWN
        assert here.outcome(evidence(ROOTS[0])) is None


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xff",
        b"",
        bundles_response({"spiffe://cluster.local": b"garbage"}),
        bundles_response({"spiffe://cluster.local": der(ROOTS[1].certificate)[:-3]}),
        bundles_response({"spiffe://cluster.local": der(ROOTS[1].issue())}),
        bundles_response({"cluster local": der(ROOTS[1].certificate)}),
    ],
    ids=["no message", "empty", "no DER", "DER cut short", "no CA", "no trust domain"],
)
async def test_a_message_that_is_no_good_leaves_the_last_good_bundles(
    tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as here:
        before = here.trust.store.slot.current
        here.agent.say("FetchX509Bundles", bad)
        await until(lambda: "is refused" in caplog.text)
        assert here.trust.store.slot.current is before
        assert here.outcome(evidence(ROOTS[0])) is None
        await here.said(bundles(ROOTS[1]))  # and the stream goes on
        assert here.outcome(evidence(ROOTS[1])) is None


async def test_one_garbled_bundle_leaves_its_own_domain_as_it_was_and_lets_the_others_rotate(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        own = {"spiffe://cluster.local": der(ROOTS[1].certificate), "spiffe://partner.example": b"\x30"}
        await here.said(bundles_response(own))
        assert here.outcome(evidence(ROOTS[1])) is None
        assert here.outcome(evidence(PARTNERS, PARTNER)) is None


async def test_jwt_authorities_join_their_domains_bundle_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    def keys(kid: str) -> bytes:
        return json.dumps({"keys": [Signer(kid=kid).jwk(use="jwt-svid")]}).encode()

    def said(kid: str, **more: bytes) -> bytes:
        return jwt_response({"spiffe://cluster.local": keys(kid)} | more)

    async with place(tmp_path) as here:
        here.agent.say("FetchJWTBundles", said("k1"))
        await until(lambda: bool(here.trust.store.slot.current["cluster.local"].jwt_keys.keys))
        found = here.trust.store.slot.current["cluster.local"]
        assert found.anchors == (ROOTS[0].certificate,)
        here.agent.say("FetchJWTBundles", said("k1", **{"spiffe://partner.example": keys("p")}))
        await until(lambda: bool(here.trust.store.slot.current["partner.example"].jwt_keys.keys))
        assert here.trust.store.slot.current["cluster.local"] is found


async def test_our_svid_comes_rotates_goes_with_the_agents_word_and_not_with_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place(tmp_path, svid=True) as here:
        assert here.trust.obstacles() == ("no SVID from the Workload API",)
        here.agent.say("FetchX509SVID", svid(ROOTS[0], 1))
        await until(lambda: here.trust.current_svid() is not None)
        assert here.trust.obstacles() == ()
        first = here.trust.current_svid()

        here.agent.say("FetchX509SVID", svid(ROOTS[0], 2))
        await until(lambda: here.trust.current_svid() is not first)
        second = here.trust.current_svid()
        for bad in (
            b"",
            b"\xff",
            svid(ROOTS[0], 3, not_after=NOW - 1),
            svid_response(US, private_key(), ROOTS[0].issue()),
        ):
            here.agent.say("FetchX509SVID", bad)
            await asyncio.sleep(0.03)
            assert here.trust.current_svid() is second
        await here.agent.stop()
        await asyncio.sleep(0.2)
        assert here.trust.current_svid() is second

        here.agent.say("FetchX509SVID", grpc.StatusCode.PERMISSION_DENIED)
        await here.agent.start()
        before = here.agent.calls["FetchX509SVID"]
        await until(lambda: here.agent.calls["FetchX509SVID"] >= before + 3)
        assert here.trust.current_svid() is second  # an agent that was just started knows nobody
        monkeypatch.setattr("zta_authz.keys.workload_api.DENIED_SECONDS", 0.0)
        await until(lambda: here.trust.current_svid() is None)
        assert here.trust.obstacles() == ("no SVID from the Workload API",)
        assert here.changes[-1] == here.trust.obstacles()


async def test_streams_that_wait_try_at_once_when_another_is_answered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the entry of our identity comes to be: each stream would find out by itself, seconds apart."""
    monkeypatch.setattr("zta_authz.keys.workload_api.MAX_RETRY_SECONDS", 60.0)
    async with FakeWorkloadApi(tmp_path / "agent.sock") as agent:
        slot, store = SvidSlot(), BundleStore({})
        api = WorkloadApi(agent.address, bundles=store, svid=slot, retry_seconds=60.0)
        running = asyncio.create_task(api.run())
        await until(lambda: len(api._failures) == 3)  # all wait
        await asyncio.sleep(0.05)
        agent.say("FetchX509Bundles", bundles(ROOTS[0]))
        agent.say("FetchX509SVID", svid(ROOTS[0]))
        api._failures["FetchX509SVID"] = 1
        api._stream_answered("FetchX509SVID")  # as its next try, a minute later, would
        await until(lambda: bool(store.slot.current) and slot.current is not None)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_an_identity_that_is_withdrawn_on_a_stream_that_gave_it_goes_at_once(tmp_path: Path) -> None:
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0], 1))
        await until(lambda: here.trust.svid.current is not None)
        here.agent.say("FetchX509SVID", grpc.StatusCode.PERMISSION_DENIED)
        await until(lambda: here.trust.svid.current is None, seconds=5)


async def test_an_svid_that_is_not_renewed_is_an_obstacle_when_it_expires(tmp_path: Path) -> None:
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0], 1, not_after=time.time() + 2))
        await until(lambda: () in here.changes)
        await until(lambda: here.changes[-1] == ("our SVID has expired",))


async def test_the_intermediates_of_our_svid_complete_chains_of_which_proxies_send_the_leaf_only(
    tmp_path: Path,
) -> None:
    middle = ROOTS[0].intermediate("middle", **VALID)
    key = private_key("P-256", 950)
    async with place(tmp_path, svid=True) as here:
        asked = evidence(middle)
        assert here.outcome(asked) is Reason.PEER_CERTIFICATE_UNTRUSTED
        ours = middle.issue(uris=(US,), key=key, **VALID)
        here.agent.say("FetchX509SVID", svid_response(US, key, ours, middle.certificate))
        await until(lambda: here.outcome(asked) is None)


async def test_former_intermediates_of_our_svid_count_until_they_expire(tmp_path: Path) -> None:
    """Peers are renewed when their own time has come, not when ours has."""
    before = [ROOTS[0].intermediate(f"before {number}", **VALID) for number in range(3)]
    brief = ROOTS[0].intermediate("brief", not_before=NOW - 60, not_after=time.time() + 2)
    key = private_key("P-256", 950)
    async with place(tmp_path, svid=True) as here:
        for middle in (*before, brief, ROOTS[0].intermediate("now", **VALID)):
            ours = middle.issue(uris=(US,), key=key, **VALID)
            here.agent.say("FetchX509SVID", svid_response(US, key, ours, middle.certificate))
            await until(
                lambda middle=middle: middle.certificate in here.trust.store.slot.current["cluster.local"].intermediates
            )
        assert [here.outcome(evidence(middle)) for middle in before] == [None, None, None]
        await asyncio.sleep(2)
        ours = before[0].issue(uris=(US,), key=key, **VALID)
        here.agent.say("FetchX509SVID", svid_response(US, key, ours, before[0].certificate))
        await until(lambda: brief.certificate not in here.trust.store.slot.current["cluster.local"].intermediates)
        assert [here.outcome(evidence(middle)) for middle in before] == [None, None, None]


async def test_nothing_of_the_key_gets_into_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0], 1))
        await until(lambda: here.trust.current_svid() is not None)
        here.agent.say(
            "FetchX509SVID", svid_response(US, private_key("P-256", 901), ROOTS[0].issue(uris=(US,), **VALID))
        )
        await until(lambda: "is refused" in caplog.text)
    key = private_key("P-256", 901).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    said = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert all(line not in said for line in key.splitlines()[1:-1])
    assert "PRIVATE KEY" not in said


async def test_a_fault_of_ours_in_one_message_does_not_end_the_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with place(tmp_path) as here:
        with monkeypatch.context() as broken:
            broken.setattr("zta_authz.keys.workload_api.read_x509_bundles", None)
            here.agent.say("FetchX509Bundles", bundles(ROOTS[2]))
            await until(lambda: "a Workload API stream failed" in caplog.text)
        await until(lambda: here.outcome(evidence(ROOTS[2])) is None)


# Our SVID on the listener


def client_credentials(
    authority: Authority,
    spiffe_id: str,
    trusted: Authority,
    number: int = 5,
    above: tuple[x509.Certificate, ...] | None = None,
) -> Any:
    """A client's: its leaf, and what is `above` it (None: the intermediates of `authority`)."""
    key = private_key("P-256", number)
    leaf = authority.issue(uris=(spiffe_id,), key=key, **VALID)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return grpc.ssl_channel_credentials(
        trusted.pem.encode(), secret, pem(leaf, *(authority.above if above is None else above)).encode()
    )


def channel(address: str, credentials: Any) -> Any:
    options = (("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(address, credentials, options=options)


async def say(on: Any) -> bytes | grpc.StatusCode:
    try:
        answer: bytes = await on.unary_unary("/test.Echo/Say")(b"x", timeout=5)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return answer


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Either server."""
    made: str = request.param
    return made


@asynccontextmanager
async def listening(
    kind: str,
    here: Place,
    *allowed: str,
    clock: Clock = time.time,
    revocations: RevocationSlot | None = None,
) -> AsyncIterator[str]:
    def echo(payload: bytes, _context: Any, caller: str) -> bytes:
        return payload + b" from " + caller.encode()

    tls = SvidTls(here.trust.svid, here.trust.store.slot, allowed, clock, revocations=revocations)
    methods, here_only = {"test.Echo": {"Say": echo}}, [Endpoint(host="127.0.0.1")]
    server: Server = (
        FastServer(methods, here_only, SocketAccess(), tls=tls)
        if kind == "fast"
        else GrpcServer(as_async(methods), here_only, SocketAccess(), tls=tls)
    )
    await server.start()
    try:
        yield str(server.addresses[0])
    finally:
        await server.stop(0)


async def test_no_handshake_ends_well_before_the_first_svid_and_each_does_afterwards(kind: str, tmp_path: Path) -> None:
    async with place(tmp_path, svid=True) as here, listening(kind, here, PROXY) as address:
        credentials = client_credentials(ROOTS[0], PROXY, ROOTS[0])
        async with channel(address, credentials) as early:
            assert await say(early) is grpc.StatusCode.UNAVAILABLE
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.current_svid() is not None)
        async with channel(address, credentials) as later:
            assert await say(later) == b"x from " + PROXY.encode()


async def test_our_svid_rotates_under_load_and_no_connection_breaks(kind: str, tmp_path: Path) -> None:
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0], 1))
        await until(lambda: here.trust.current_svid() is not None)
        async with listening(kind, here, PROXY) as address:
            credentials = client_credentials(ROOTS[0], PROXY, ROOTS[0])
            expected = b"x from " + PROXY.encode()
            calls, wrong = 0, list[Any]()

            async def standing() -> None:
                nonlocal calls
                async with channel(address, credentials) as on:
                    while True:
                        answer = await say(on)
                        calls += 1
                        if answer != expected:
                            wrong.append(answer)

            load = asyncio.create_task(standing())
            for turn in range(15):
                before = here.trust.current_svid()
                here.agent.say("FetchX509SVID", svid(ROOTS[0], 2 + turn))
                await until(lambda before=before: here.trust.current_svid() is not before)
                async with channel(address, credentials) as fresh:
                    assert await say(fresh) == expected
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load
    assert wrong == []
    assert calls > 20


async def test_a_caller_is_judged_on_every_call_against_its_own_domains_bundle(kind: str, tmp_path: Path) -> None:
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.current_svid() is not None)
        async with listening(kind, here, PROXY, PARTNER) as address:
            partner = client_credentials(PARTNERS, PARTNER, ROOTS[0], 6)
            # an authority that TLS takes, for a name that is on the list but not its own to give
            forged = client_credentials(PARTNERS, PROXY, ROOTS[0], 7)
            stranger = client_credentials(ROOTS[0], PROXY + "2", ROOTS[0], 8)
            async with channel(address, partner) as standing:
                assert await say(standing) == b"x from " + PARTNER.encode()
                for refused in (forged, stranger):
                    async with channel(address, refused) as on:
                        assert await say(on) is grpc.StatusCode.PERMISSION_DENIED
                await here.said(bundles(ROOTS[0], partner=None))
                assert await say(standing) is grpc.StatusCode.UNAVAILABLE  # the connection ended, no handshake succeeds
            async with channel(address, partner) as fresh:
                assert await say(fresh) is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_that_a_revocation_list_names_may_not_ask_until_the_list_is_gone(
    kind: str, tmp_path: Path
) -> None:
    slot = RevocationSlot()
    expected = b"x from " + PROXY.encode()
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.svid.current is not None)
        async with listening(kind, here, PROXY, revocations=slot) as address:
            credentials = client_credentials(ROOTS[0], PROXY, ROOTS[0])
            async with channel(address, credentials) as on:
                assert await say(on) == expected
                entry = Revocation(Revoked.SPIFFE_PREFIX, "spiffe://cluster.local/")
                slot.current = Revocations([RevocationList("l", "n", HERE, (entry,))])
                assert await say_until(on, grpc.StatusCode.PERMISSION_DENIED)  # on `fast` within a second
            slot.current = Revocations()
            async with channel(address, credentials) as on:
                assert await say(on) == expected


async def say_until(on: Any, wanted: bytes | grpc.StatusCode) -> bool:
    """Whether it comes to that once a connection that is over is left behind."""
    for _ in range(40):
        if await say(on) == wanted:
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.parametrize("levels", [1, 2])
async def test_a_caller_under_intermediates_that_only_it_knows_is_served(
    kind: str, tmp_path: Path, levels: int
) -> None:
    signs = ROOTS[0]
    for level in range(levels):
        signs = signs.intermediate(f"of another server {level}", **VALID)
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.current_svid() is not None)
        async with listening(kind, here, PROXY) as address:
            async with channel(address, client_credentials(signs, PROXY, ROOTS[0])) as on:
                assert await say(on) == b"x from " + PROXY.encode()
            async with channel(address, client_credentials(signs, PROXY, ROOTS[0], above=())) as on:
                assert await say(on) is grpc.StatusCode.UNAVAILABLE  # without them nothing leads to the bundle


async def test_an_svid_that_has_expired_ends_no_handshake_well_even_for_a_client_that_does_not_look(
    kind: str, tmp_path: Path
) -> None:
    later = 0.0
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.current_svid() is not None)
        async with listening(kind, here, PROXY, clock=lambda: time.time() + later) as address:
            host, _, port = address.rpartition(":")
            context = careless_context(tmp_path)
            assert await asyncio.to_thread(is_answered, context, host, int(port))
            later = 7200.0
            assert not await asyncio.to_thread(is_answered, context, host, int(port))


def careless_context(directory: Path) -> ssl.SSLContext:
    """Of a client that takes any server, and shows the proxy's certificate."""
    key = private_key("P-256", 5)
    (directory / "client.pem").write_bytes(
        pem(ROOTS[0].issue(uris=(PROXY,), key=key, **VALID)).encode()
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(directory / "client.pem")
    return context


def is_answered(context: ssl.SSLContext, host: str, port: int) -> bool:
    """Whether the server says anything beyond the handshake."""
    try:
        with socket.create_connection((host, port), timeout=10) as plain, context.wrap_socket(plain) as made:
            made.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            return bool(made.recv(9))
    except (ssl.SSLError, ConnectionError):
        return False


async def test_a_call_that_begins_before_its_callers_bundle_goes_is_judged_when_it_is_complete(tmp_path: Path) -> None:
    """On `fast`, which hands a call over when its last byte is there."""
    async with place(tmp_path, svid=True) as here:
        here.agent.say("FetchX509SVID", svid(ROOTS[0]))
        await until(lambda: here.trust.current_svid() is not None)
        async with listening("fast", here, PARTNER) as address:
            partner = client_credentials(PARTNERS, PARTNER, ROOTS[0], 6)
            async with channel(address, partner) as on:
                call = on.stream_unary("/test.Echo/Say")(timeout=5)
                await call.write(b"x")
                await here.said(bundles(ROOTS[0], partner=None))
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.UNAVAILABLE


# The whole service


def ready(address: str) -> tuple[int, list[str]]:
    """What `/readyz` says: the status, and what stands in the way."""
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=10) as answer:
            return answer.status, json.load(answer)["obstacles"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["obstacles"]


async def becomes(address: str, wanted: tuple[int, list[str]]) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(ready, address) != wanted:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)


def written_in(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in directory.rglob("*") if file.is_file()]


async def test_the_service_is_ready_while_it_has_an_svid_and_never_writes_its_key(kind: str, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(HATSHOP)
    config = tmp_path / "settings.yaml"
    config.write_text(
        f'listen: ["127.0.0.1:0"]\npolicies: [{tmp_path}/policy.yaml]\nworkload: {{labels: {{app: hatshop}}}}\n'
        'peer: {trust_proxy: true}\nhealth: {listen: "127.0.0.1:0"}\n'
        f'tls: {{source: workload_api, allowed_spiffe_ids: ["{PROXY}"]}}\n'
        f"workload_api: {{socket: 'unix:{tmp_path}/agent.sock'}}\nserver: {kind}\n"
    )
    credentials = client_credentials(ROOTS[0], PROXY, ROOTS[0])
    async with FakeWorkloadApi(tmp_path / "agent.sock") as agent:
        agent.say("FetchX509Bundles", bundles(ROOTS[0]))
        with RunningService(config) as service:
            said = await asyncio.to_thread(service.wait_for, "serving")
            (address,), health = said["listen"], said["health"]
            await becomes(health, (503, ["no SVID from the Workload API"]))
            agent.say("FetchX509SVID", svid(ROOTS[0]))
            await becomes(health, (200, []))
            async with channel(address, credentials) as on:
                check = on.unary_unary("/envoy.service.auth.v3.Authorization/Check")
                answer = CheckResponse.FromString(await check(check_request().SerializeToString(), timeout=10))
                assert answer.status.code == 0
                ask = on.unary_unary("/grpc.health.v1.Health/Check")
                assert health_pb2.HealthCheckResponse.FromString(await ask(b"", timeout=10)).status == 1
                agent.say("FetchX509SVID", grpc.StatusCode.PERMISSION_DENIED)
                await becomes(health, (503, ["no SVID from the Workload API"]))
                assert health_pb2.HealthCheckResponse.FromString(await ask(b"", timeout=10)).status == 2
            service.signal(signal.SIGTERM)
            status, _, log = await asyncio.to_thread(service.wait)
    assert status == 0
    assert "PRIVATE KEY" not in log
    assert await asyncio.to_thread(written_in, tmp_path)
    assert not any(b"PRIVATE KEY" in content for content in await asyncio.to_thread(written_in, tmp_path))

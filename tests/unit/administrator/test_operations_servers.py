"""The listeners of the operations: over TLS a client certificate of the trust domain is the caller, or a token."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.operations_api import WORKLOAD, Api, bearer, running
from tests.support.pki import private_key, root
from tests.unit.following.test_connection import ADMINISTRATOR, Pair
from zta_authz.administrator.grpc_api import SERVICE
from zta_authz.administrator.operations_servers import operations_servers
from zta_authz.administrator.rest_api import RestApi
from zta_authz.authn.bundles import BundleSlot
from zta_authz.authn.chain import Authorities
from zta_authz.authn.own_svid import SvidSlot, read_own_svid
from zta_authz.errors import SettingsErrors
from zta_authz.model.options import Workload
from zta_authz.model.spiffe import TrustDomain
from zta_authz.servers.listeners import Endpoint, SocketAccess
from zta_authz.servers.svid_tls import SvidTls
from zta_authz.settings.administrator_model import OperationsSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.pki import Authority

ON_UVLOOP = True
NOBODY: Any = None
LOCAL_USER = "spiffe://cluster.local/zta-admin/uid/0"
OTHER_DOMAIN = "spiffe://other.example/ns/ci/sa/deployer"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def svid_tls(pair: Pair) -> SvidTls:
    """TLS as with the Workload API: the SVID and the bundles are in memory."""
    slot, bundles, key = SvidSlot(), BundleSlot(), private_key("P-256", 71)
    certificate = pair.authority.issue(uris=(ADMINISTRATOR,), dns=("authz.test",), key=key, **pair.validity)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    slot.current = read_own_svid(ADMINISTRATOR, certificate.public_bytes(Encoding.DER), der)
    domain = "cluster.local"
    bundles.current = {domain: Authorities(TrustDomain(domain), (pair.authority.certificate,))}  # type: ignore[assignment]  # a mapping
    return SvidTls(slot, bundles, ())


@pytest.fixture(params=["files", "workload API"])
async def api(tmp_path: Path, pair: Pair, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    tls = pair.administrator.mutual_tls() if request.param == "files" else svid_tls(pair)
    async with running(tmp_path, tls=tls) as made:
        yield made


def client(pair: Pair, spiffe_id: str = "", authority: Authority | None = None) -> ssl.SSLContext:
    """A context that trusts the administrator, and has a certificate if there is a `spiffe_id`."""
    context = ssl.create_default_context(cafile=str(pair.directory / "ca.pem"))
    context.check_hostname = False
    if spiffe_id:
        pair.write(spiffe_id, 3)
        if authority is not None:
            (pair.directory / "cert.pem").write_text(pair.administrator.issue(spiffe_id, 3, authority))
        context.load_cert_chain(pair.directory / "cert.pem", pair.directory / "key.pem")
    return context


async def get(api: Api, context: ssl.SSLContext, path: str = "/access/requests", **headers: str) -> tuple[int, str]:
    """The status, and the reason of a problem."""
    url = f"https://{api.http_tcp[0]}:{api.http_tcp[1]}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context, headers=headers) as got:
        return got.status, (await got.json(content_type=None)).get("reason", "")


async def test_a_client_certificate_is_the_caller(api: Api, pair: Pair) -> None:
    assert await get(api, client(pair, WORKLOAD)) == (200, "")
    assert api.sink.records[-1][1].identity.principal == WORKLOAD
    assert await get(api, client(pair, f"{WORKLOAD}2")) == (403, "not_allowed")


async def test_without_a_client_certificate_a_token_is_the_caller(api: Api, pair: Pair) -> None:
    assert await get(api, client(pair), Authorization=bearer("mary")) == (200, "")
    assert api.sink.records[-1][1].identity.principal == ""
    assert (await get(api, client(pair)))[0] == 403


@pytest.mark.parametrize("spiffe_id", [LOCAL_USER, OTHER_DOMAIN])
async def test_a_certificate_of_another_domain_or_with_the_name_of_a_local_user_is_refused(
    api: Api, pair: Pair, spiffe_id: str
) -> None:
    assert await get(api, client(pair, spiffe_id), Authorization=bearer("mary")) == (401, "unauthenticated")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await list_grants(api, pair)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_of_another_authority_ends_the_handshake(api: Api, pair: Pair) -> None:
    context = client(pair, WORKLOAD, root("other", **pair.validity))
    with pytest.raises((aiohttp.ClientError, OSError)):
        await get(api, context)


async def test_headers_name_nobody(api: Api, pair: Pair) -> None:
    named = {
        "X-Forwarded-Client-Cert": f"By=spiffe://cluster.local/a;Hash=b;URI={WORKLOAD}",
        "X-Forwarded-User": "root",
        "X-Real-Uid": "0",
        "Forwarded": "for=127.0.0.1",
    }
    assert (await get(api, client(pair), **named))[0] == 403
    assert api.sink.records[-1][1].identity.principal == ""


async def test_tls_older_than_1_3_is_refused(api: Api, pair: Pair) -> None:
    context = client(pair, WORKLOAD)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((aiohttp.ClientError, OSError)):
        await get(api, context)


async def list_grants(api: Api, pair: Pair) -> bytes:
    """Call over gRPC with the certificate in the files of `pair`."""
    ca, key, chain = ((pair.directory / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
    options = [("grpc.ssl_target_name_override", "authz.test"), ("grpc.use_local_subchannel_pool", 1)]
    credentials = grpc.ssl_channel_credentials(ca, key, chain)
    async with grpc.aio.secure_channel(api.grpc_tcp, credentials, options=options) as channel:
        answer: bytes = await channel.unary_unary(f"/{SERVICE}/ListGrants")(b"", timeout=10)
        return answer


async def test_over_grpc_a_client_certificate_is_the_caller(api: Api, pair: Pair) -> None:
    pair.write(WORKLOAD, 3)
    assert await list_grants(api, pair) == b""
    assert api.sink.records[-1][1].identity.principal == WORKLOAD


@pytest.mark.parametrize("section", [OperationsSettings(http=("0.0.0.0:0",)), OperationsSettings(http=("[::]:0",))])
def test_tokens_do_not_travel_over_a_network_in_plaintext(section: OperationsSettings) -> None:
    with pytest.raises(SettingsErrors, match="other machines could read the tokens"):
        operations_servers(section, NOBODY, None, SocketAccess(), Workload())


async def test_an_address_in_use_is_a_fault(api: Api) -> None:
    host, port = api.http_tcp
    with pytest.raises(SettingsErrors, match="listen"):
        await RestApi(NOBODY, Endpoint(host=host, port=port), "cluster.local").start()

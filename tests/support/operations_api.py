"""The administrator's HTTP and gRPC API over a SQLite store, for tests: its policies, its callers, and a raw client."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from tests.fakes.check import RecordingSink
from tests.fakes.snapshots import FixedSnapshot
from tests.support.pki import NOW, Signer, jwks
from tests.support.policies import snapshot
from tests.support.security_events import KEYS, RECEIVER, claims, signed, source
from zta_authz.administrator.grants import Grants
from zta_authz.administrator.operations import Operations
from zta_authz.administrator.operations_servers import operations_servers
from zta_authz.administrator.operator_authorization import OperatorAuthorization, operator_options
from zta_authz.administrator.problems import CallCounts
from zta_authz.administrator.revocations import Revocations
from zta_authz.administrator.signals.held import HeldEvents
from zta_authz.administrator.signals.intake import Intake, StreamFacts
from zta_authz.administrator.store.sqlite import SqliteStore
from zta_authz.model.options import Options, Workload
from zta_authz.servers.listeners import SocketAccess
from zta_authz.settings.administrator_model import OperationsSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from zta_authz.administrator.rest_api import TokenEndpoint
    from zta_authz.administrator.store.port import Store
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls

LOGIN: Final = "https://login.example"
WORKLOAD: Final = "spiffe://cluster.local/ns/ci/sa/deployer"
OWN_USER: Final = f"spiffe://cluster.local/zta-admin/uid/{os.getuid()}"
DB: Final = "payments/db"
_KEY = Signer(kid="login", number=2001)
POLICIES = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-admin}}}}
  jwtRules: [{{issuer: "{LOGIN}", audiences: [zta-admin], jwks: '{jwks([_KEY])}'}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: operators, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-admin}}}}
  rules:
  - from: [{{source: {{requestPrincipals: ["{LOGIN}/*"]}}}}]
    to: [{{operation: {{paths: ["/access/*"], notPaths: ["/access/break-glass"]}}}}]
  - from: [{{source: {{requestPrincipals: ["{LOGIN}/*"]}}}}]
    to: [{{operation: {{paths: ["/access/break-glass"]}}}}]
    require: {{authentication: {{maxAge: 15m}}}}
  - from: [{{source: {{principals: ["cluster.local/zta-admin/uid/{os.getuid()}", "cluster.local/ns/ci/sa/deployer"]}}}}]
---
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {{name: db, namespace: payments}}
spec:
  who: [{{source: {{requestPrincipals: ["{LOGIN}/dana", "{LOGIN}/olga"]}}}}]
  maxDuration: 4h
  reason: {{required: true, pattern: "INC-[0-9]+"}}
  approvers:
  - from: [{{source: {{requestPrincipals: ["{LOGIN}/mary", "{LOGIN}/dana"]}}}}]
  breakGlass: {{who: [{{source: {{requestPrincipals: ["{LOGIN}/olga"]}}}}], maxDuration: 30m, reviewWithin: 24h}}
"""
"""Dana asks and Mary approves, Olga is on call and has to log in for it. Our own user and the deployer may do everything."""


def bearer(subject: str, **claims: Any) -> str:
    """The `authorization` header of a person."""
    return "Bearer " + _KEY.token(
        **({"iss": LOGIN, "sub": subject, "aud": "zta-admin", "auth_time": int(NOW) - 60} | claims)
    )


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. `fields` is its JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def reason(self) -> tuple[int, str]:
        """The status and the reason of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json"
        assert self.fields["status"] == self.status
        return self.status, self.fields["reason"]


class Api:
    """A running administrator. `http`, `grpc` and their `_tcp` are its addresses."""

    def __init__(self, directory: Path, store: Store, sink: RecordingSink) -> None:
        self.http = f"{directory}/http.sock"
        self.grpc = f"unix:{directory}/grpc.sock"
        self.http_tcp = ("127.0.0.1", 0)
        self.grpc_tcp = ""
        self.store = store
        self.sink = sink
        self.counts = CallCounts()

    async def hold(self, jti: str) -> None:
        """Receive a security event about a whole tenant, which is held."""
        tenant = {"format": "complex", "tenant": {"format": "opaque", "id": "t-1"}}
        data = signed(claims(jti=jti, sub_id=tenant))
        intake = Intake(self.store, clock=lambda: NOW)
        await intake.receive(data, source(tenant="t-1"), StreamFacts((RECEIVER,)), KEYS)

    async def call(
        self, method: str, path: str, fields: Any = None, *, person: str = "", tcp: bool = False, **headers: str
    ) -> Answer:
        """Call as a person (by token), or without one as our own user. `fields` is the body, bytes or JSON."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if person:
            given.setdefault("Authorization", bearer(person))
        if fields is not None and not isinstance(fields, bytes):
            fields = json.dumps(fields).encode()
        if method == "POST":
            given.setdefault("Content-Type", "application/json")
        connector = aiohttp.TCPConnector() if tcp else aiohttp.UnixConnector(self.http)
        host = f"{self.http_tcp[0]}:{self.http_tcp[1]}" if tcp else "administrator"
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://{host}{path}", data=fields, headers=given, allow_redirects=False) as got,
        ):
            return Answer(got.status, got.headers, await got.read())

    async def post(self, path: str, fields: Any = None, *, person: str = "", **headers: str) -> Answer:
        """Call by POST."""
        return await self.call("POST", path, {} if fields is None else fields, person=person, **headers)

    async def get(self, path: str, *, person: str = "", **headers: str) -> Answer:
        """Call by GET."""
        return await self.call("GET", path, person=person, **headers)

    async def raw(self, data: bytes) -> bytes:
        """What the Unix socket answers to these bytes, until it closes."""
        reader, writer = await asyncio.open_unix_connection(self.http)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async def request(self, person: str = "dana", **changed: Any) -> dict[str, Any]:
        """A person's request for an hour."""
        fields = {"entitlement": DB, "duration": "1h", "reason": "INC-7"} | changed
        answer = await self.post("/access/requests", fields, person=person)
        assert answer.status == 200, answer.body
        request: dict[str, Any] = answer.fields
        return request


@asynccontextmanager
async def running(
    directory: Path,
    *,
    tls: MutualTls | SvidTls | None = None,
    token: TokenEndpoint | None = None,
    store: Store | None = None,
    keeps: bool = True,
) -> AsyncIterator[Api]:
    """Serve on Unix sockets and on loopback, at the time `NOW`. Without `keeps`, decisions can't be recorded."""
    opened = store
    if opened is None:
        opened = await SqliteStore.open(str(directory / "store.sqlite"), clock=lambda: NOW)
        await opened.epoch()
    api = Api(directory, opened, RecordingSink(keeps))
    compiled = snapshot(POLICIES, options=operator_options(Options()))
    authorization = OperatorAuthorization(FixedSnapshot(compiled), api.sink, lambda: NOW)
    held = HeldEvents(opened)
    operations = Operations(authorization, Grants(opened, lambda: compiled.entitlements), Revocations(opened), held)
    section = OperationsSettings(http=(f"unix:{api.http}", "127.0.0.1:0"), grpc=(api.grpc, "127.0.0.1:0"))
    servers = operations_servers(section, operations, tls, SocketAccess(), Workload(), token, api.counts)
    addresses = await servers.start()
    api.http_tcp = (addresses[1].host, addresses[1].port)
    api.grpc_tcp = str(addresses[-1])
    try:
        yield api
    finally:
        await servers.stop(1)
        if store is None:
            await opened.close()

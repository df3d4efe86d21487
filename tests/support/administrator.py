"""An administrator for tests of just-in-time access: its policies, its callers with signed tokens, and its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tests.fakes.check import RecordingSink
from tests.fakes.snapshots import FixedSnapshot
from tests.fakes.stores import StoreAt
from tests.support.pki import NOW, Signer, jwks
from tests.support.policies import snapshot
from zta_authz.access.lifecycle import OperationRefused
from zta_authz.administrator.access_events import read_event
from zta_authz.administrator.due_steps import DueSteps
from zta_authz.administrator.grants import Grants
from zta_authz.administrator.operator_authorization import Call, OperatorAuthorization, operator_options
from zta_authz.model.options import Options

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from zta_authz.access.lifecycle import Refusal
    from zta_authz.administrator.access_events import AccessEvent
    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Store
    from zta_authz.pdp.snapshot import Snapshot

LOGIN = "https://login.example"
PARTNER = "https://partner.example"
PAGE = "spiffe://cluster.local/ns/tools/sa/page"
DB = "payments/db"
_KEYS = {LOGIN: Signer(kid="login", number=2001), PARTNER: Signer(kid="partner", number=2002)}

PEOPLE = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{app: zta-admin}}}}
  jwtRules:
  - {{issuer: "{LOGIN}", audiences: [zta-admin], jwks: '{jwks([_KEYS[LOGIN]])}'}}
  - {{issuer: "{PARTNER}", audiences: [zta-admin], jwks: '{jwks([_KEYS[PARTNER]])}'}}
"""
OPERATORS = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: everybody-may-ask, namespace: istio-system}
spec:
  selector: {matchLabels: {app: zta-admin}}
  rules:
  - from: [{source: {principals: ["cluster.local/*"]}}, {source: {requestPrincipals: ["*"]}}]
    to: [{operation: {paths: ["/access/*"]}}]
"""
ENTITLEMENT = """
apiVersion: zta.dev/v1
kind: AccessEntitlement
metadata: {name: db, namespace: payments}
spec:
  who: [{source: {requestPrincipals: ["*"]}}, {source: {principals: ["cluster.local/*"]}}]
  when: [{key: "request.auth.claims[groups]", notValues: [guests]}]
  maxDuration: 4h
  pendingFor: 24h
  approvers:
  - from: [{source: {requestPrincipals: ["*"]}}, {source: {principals: ["cluster.local/*"]}}]
    when: [{key: "request.auth.claims[groups]", notValues: [guests]}]
"""
"""Everybody but guests may ask and approve, so that only the rules of the administrator stand in the way."""


def bearer(subject: str | None, issuer: str = LOGIN, **claims: Any) -> str:
    """The `authorization` header of a person, with a token that is valid at `NOW`, and for a year."""
    standard = {"iss": issuer, "sub": subject, "aud": "zta-admin", "iat": NOW - 7200, "exp": NOW + 366 * 86400}
    return f"Bearer {_KEYS[issuer].token(**(standard | claims))}"


def administrator_snapshot(*texts: str) -> Snapshot:
    """`texts` with the issuers of `PEOPLE`, compiled as the administrator does."""
    return snapshot(PEOPLE, *texts, options=operator_options(Options()))


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Administrator:
    """The parts of one replica that handle requests and grants.

    Replicas share `store` and, unless a test gives them others, the clock of the store. `texts` can be replaced.
    """

    def __init__(self, store: Store, *texts: str, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = cast("Store", StoreAt(store, self.clock))
        self.sink = RecordingSink()
        self.snapshots = FixedSnapshot(None)
        self.use(*(texts or (ENTITLEMENT, OPERATORS)))
        self.authorization = OperatorAuthorization(self.snapshots, self.sink, self.clock)
        self.grants = Grants(self.store, lambda: self.snapshot.entitlements)
        self.due_steps = DueSteps(self.store, 0.01)

    @property
    def snapshot(self) -> Snapshot:
        """The policies in force."""
        assert self.snapshots.snapshot is not None
        return self.snapshots.snapshot

    def use(self, *texts: str) -> None:
        """Put other policies into force."""
        self.snapshots.snapshot = administrator_snapshot(*texts)

    def person(self, subject: str | None, issuer: str = LOGIN, principal: str = "", **claims: Any) -> AuthorizedCaller:
        """A person who calls with a token, through `principal` unless it is ""."""
        call = Call("POST", "/access/requests", principal, bearer(subject, issuer, **claims))
        return self.authorization.authorize(call)

    def workload(self, principal: str = PAGE) -> AuthorizedCaller:
        """A workload that calls without a token."""
        return self.authorization.authorize(Call("POST", "/access/requests", principal))

    async def events(self) -> list[AccessEvent]:
        """All events of the store."""
        commits = await self.store.read_since(0)
        return [read_event(event) for commit in commits for event in commit.events]

    async def kinds(self) -> list[str]:
        """The kinds of all events of the store, without `access.`."""
        return [str(event.kind).removeprefix("access.") for event in await self.events()]


async def refusal(operation: Awaitable[object]) -> Refusal:
    """Why `operation` is refused; fails if it is not."""
    try:
        result = await operation
    except OperationRefused as error:
        return error.refusal
    raise AssertionError(f"it was not refused: {result}")

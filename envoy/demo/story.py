"""The requests of the HatShop demo, with the expected results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envoy.demo.access import ENTITLEMENT, ended, granted, revoked
from envoy.demo.client import Answer, Request
from envoy.demo.facts import BRITAIN, SWEDEN
from envoy.demo.identities import spiffe_id
from envoy.demo.tokens import ISSUER

if TYPE_CHECKING:
    from collections.abc import Callable

    from envoy.demo.identities import Layout
    from envoy.demo.stack import Stack

PRINCIPAL = "x-zta-principal"
DECISION_ID = "x-zta-decision-id"
TRUST_LEVEL = "x-zta-trust-level"
FORWARDED_FOR = "x-forwarded-for"
REQUEST_ACCESS = "zta-request-access"
BY_ENVOY = "envoy"
"""The reason of requests that Envoy refuses without a check."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request with the expected HTTP status and the expected reason in the decision log.

    `peer` names the client certificate, None for none; `token` names a token. `policy` is the policy that must decide,
    "" for none. `seen` checks the response, which echoes the request that the upstream received. `before` is done
    first; what it changes is in force within a second.
    """

    what: str
    peer: str | None
    request: Request
    status: int
    reason: str
    policy: str = ""
    token: str | None = None
    seen: Callable[[Answer], bool] = field(default=lambda _: True)
    before: Callable[[Stack], None] | None = None

    def full_request(self, layout: Layout) -> Request:
        """Return the request with its token."""
        if self.token is None:
            return self.request
        bearer = ("authorization", f"Bearer {layout.token(self.token).read_text()}")
        return Request(self.request.method, self.request.path, (bearer, *self.request.headers), self.request.body)


def only_principal(account: str) -> Callable[[Answer], bool]:
    """Return a check that the upstream received exactly one principal header, with the verified identity."""

    def judge(answer: Answer) -> bool:
        principals = [value for name, value in answer.upstream_headers() if name.replace("_", "-") == PRINCIPAL]
        return principals == [spiffe_id(account)]

    return judge


def no_token(answer: Answer) -> bool:
    """Check that the upstream did not receive the token, which it could replay elsewhere."""
    return answer.upstream_header("authorization") is None


def challenged(answer: Answer) -> bool:
    """Check that the response asks for a login as RFC 9470 says, with its strength and its greatest age in seconds."""
    challenge = answer.headers.get("www-authenticate", "")
    parts = ('error="insufficient_user_authentication"', 'acr_values="phr"', 'max_age="300"')
    return all(part in challenge for part in parts)


def trusted(answer: Answer) -> bool:
    """Check that the upstream received the highest trust level."""
    return answer.upstream_header(TRUST_LEVEL) == "HIGH"


def get(path: str, *headers: tuple[str, str]) -> Request:
    """Return a GET request."""
    return Request("GET", path, headers)


def post(path: str, *headers: tuple[str, str]) -> Request:
    """Return a POST request with a small order."""
    return Request("POST", path, (("content-type", "application/json"), *headers), b'{"hat": "bowler"}')


def client_at(address: str) -> tuple[str, str]:
    """Return the header in which the load balancer in front of Envoy names its client."""
    return (FORWARDED_FOR, address)


FRONTEND = "default/hatshop-policy"
PAYMENTS = "default/payments-policy"
LOGIN = "default/account-needs-login"
ADMIN = "default/no-admin-from-here"
STAFF = "default/staff"
ALLOWED = "allow_policy"
UNMATCHED = "no_matching_policy"

PEERS = (
    Row("reads orders", "frontend", get("/orders"), 200, ALLOWED, FRONTEND, seen=only_principal("frontend")),
    Row("places an order", "frontend", post("/orders"), 200, ALLOWED, FRONTEND),
    Row("charges a card, allowed by another policy", "orders", post("/payments/42"), 200, ALLOWED, PAYMENTS),
    Row("method not allowed", "orders", get("/payments/42"), 403, UNMATCHED),
    Row("path not allowed", "orders", post("/orders"), 403, UNMATCHED),
    Row("no DELETE, even for the frontend", "frontend", Request("DELETE", "/orders/1"), 403, UNMATCHED),
    Row("not named by any policy", "payments", get("/orders"), 403, UNMATCHED),
    Row("valid certificate, unknown name", "attacker", get("/orders"), 403, UNMATCHED),
    Row("no certificate", None, get("/orders"), 403, "peer_certificate_missing"),
    Row(
        "certificate of another CA",
        "frontend-other-ca",
        get("/orders"),
        403,
        "peer_certificate_untrusted",
    ),
    Row("expired certificate", "frontend-expired", get("/orders"), 403, "peer_certificate_expired"),
)

TOKENS = (
    Row("valid token", "frontend", get("/account"), 200, ALLOWED, FRONTEND, "valid", no_token),
    Row("missing token", "frontend", get("/account"), 403, "deny_policy", LOGIN),
    Row("expired token", "frontend", get("/account"), 401, "token_expired", token="expired"),
    Row("forged token: another key", "frontend", get("/account"), 401, "token_signature", token="forged"),
    Row("token for another audience", "frontend", get("/account"), 401, "token_audience", token="wrong-audience"),
    Row("token with alg: none", "frontend", get("/account"), 401, "token_algorithm", token="unsigned"),
    Row("bad token where no token is required", "frontend", get("/orders"), 401, "token_signature", token="forged"),
    Row("valid token, wrong peer", "attacker", get("/account"), 403, UNMATCHED, token="valid"),
)

TRICKS = (
    Row("a DENY policy overrules", "frontend", get("/admin/users"), 403, "deny_policy", ADMIN),
    Row("ambiguous path", "frontend", get("//admin/users"), 400, "path_ambiguous"),
    Row(
        "forged x-zta-principal: replaced",
        "frontend",
        get("/orders", (PRINCIPAL, spiffe_id("admin"))),
        200,
        ALLOWED,
        FRONTEND,
        seen=only_principal("frontend"),
    ),
    Row("forged x_zta_principal", "frontend", get("/orders", ("x_zta_principal", spiffe_id("admin"))), 400, BY_ENVOY),
    Row("encoded slash", "frontend", get("/account%2f.."), 400, BY_ENVOY),
)

AT_HOME, ABROAD = client_at(SWEDEN), client_at(BRITAIN)
STATES = (
    Row("managed laptop, allowed country", "laptop", get("/stock", AT_HOME), 200, ALLOWED, STAFF),
    Row("unmanaged laptop", "laptop-unmanaged", get("/stock", AT_HOME), 403, UNMATCHED),
    Row("laptop silent for three days", "laptop-silent", get("/stock", AT_HOME), 403, UNMATCHED),
    Row("from a country that is not allowed", "laptop", get("/stock", ABROAD), 403, UNMATCHED),
    Row(
        "refund, logged in an hour ago",
        "laptop",
        post("/refunds/7", AT_HOME),
        401,
        "step_up_required",
        token="old-login",
        seen=challenged,
    ),
    Row("refund after a fresh login", "laptop", post("/refunds/7", AT_HOME), 200, ALLOWED, STAFF, "fresh-login"),
    Row("restricted data, trust HIGH", "laptop", get("/payroll", AT_HOME), 200, ALLOWED, STAFF, "old-login", trusted),
    Row(
        "restricted data, trust only MEDIUM",
        "laptop-plaintext",
        get("/payroll", AT_HOME),
        403,
        "trust_too_low",
        token="old-login",
    ),
)
"""Requests that are decided by the state of the device, the network and the login."""

DATABASE = get("/payments-db/7")
ACCESS = (
    Row(
        "payments database, without a grant",
        "laptop",
        DATABASE,
        403,
        "grant_required",
        token="dana",
        seen=lambda answer: answer.headers.get(REQUEST_ACCESS) == ENTITLEMENT,
    ),
    Row(
        "asked, and a manager approved",
        "laptop",
        DATABASE,
        200,
        ALLOWED,
        ENTITLEMENT,
        "dora",
        before=granted("dora"),
    ),
    Row(
        "the developer ended the grant",
        "laptop",
        DATABASE,
        403,
        "grant_required",
        token="drew",
        before=ended("drew"),
    ),
    Row(
        "the developer's tokens were revoked",
        "laptop",
        DATABASE,
        401,
        "token_revoked",
        token="dylan",
        before=revoked("dylan", "dylan", ISSUER),
    ),
)
"""Requests that are decided by what developers asked for and a manager approved or revoked."""

EXPLAINED = tuple(row for row in STATES if row.status != 200)

STORY = (*PEERS, *TOKENS, *TRICKS, *STATES, *ACCESS)

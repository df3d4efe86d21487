"""The HatShop story: who asks for what, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from envoy.demo.client import Answer, Request
from envoy.demo.identities import spiffe_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from envoy.demo.identities import Layout

PRINCIPAL = "x-zta-principal"
DECISION_ID = "x-zta-decision-id"
BY_ENVOY = "envoy"
"""Stands where a reason does, for requests that Envoy refuses before it asks."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request and what must come back: the HTTP status, and the reason in the decision log.

    `peer` names a certificate, None sends none; `token` names a token. `policy` is what must have decided, "" for none.
    `seen` judges, for an allow, what reached the upstream.
    """

    what: str
    peer: str | None
    request: Request
    status: int
    reason: str
    policy: str = ""
    token: str | None = None
    seen: Callable[[Answer], bool] = field(default=lambda _: True)

    def full_request(self, layout: Layout) -> Request:
        """The request with its token in place."""
        if self.token is None:
            return self.request
        bearer = ("authorization", f"Bearer {layout.token(self.token).read_text()}")
        return Request(self.request.method, self.request.path, (bearer, *self.request.headers), self.request.body)


def only_principal(account: str) -> Callable[[Answer], bool]:
    """Judges that the upstream was told of one principal, the verified one, in no other spelling either."""

    def judge(answer: Answer) -> bool:
        principals = [value for name, value in answer.upstream_headers() if name.replace("_", "-") == PRINCIPAL]
        return principals == [spiffe_id(account)]

    return judge


def no_token(answer: Answer) -> bool:
    """Judges that the token ended here: the upstream could not replay it elsewhere."""
    return answer.upstream_header("authorization") is None


def get(path: str, *headers: tuple[str, str]) -> Request:
    """A GET."""
    return Request("GET", path, headers)


def post(path: str) -> Request:
    """A POST of a small order."""
    return Request("POST", path, (("content-type", "application/json"),), b'{"hat": "bowler"}')


FRONTEND = "default/hatshop-policy"
PAYMENTS = "default/payments-policy"
LOGIN = "default/account-needs-login"
ADMIN = "default/no-admin-from-here"
ALLOWED = "allow_policy"
UNMATCHED = "no_matching_policy"

PEERS = (
    Row("reads orders", "frontend", get("/orders"), 200, ALLOWED, FRONTEND, seen=only_principal("frontend")),
    Row("places an order", "frontend", post("/orders"), 200, ALLOWED, FRONTEND),
    Row("charges a card, by its own policy", "orders", post("/payments/42"), 200, ALLOWED, PAYMENTS),
    Row("method not allowed", "orders", get("/payments/42"), 403, UNMATCHED),
    Row("path not allowed", "orders", post("/orders"), 403, UNMATCHED),
    Row("no deleting, even for the frontend", "frontend", Request("DELETE", "/orders/1"), 403, UNMATCHED),
    Row("no policy names it", "payments", get("/orders"), 403, UNMATCHED),
    Row("good certificate, wrong name", "attacker", get("/orders"), 403, UNMATCHED),
    Row("no certificate", None, get("/orders"), 403, "peer_certificate_missing"),
    Row(
        "certificate of another CA",
        "frontend-other-ca",
        get("/orders"),
        403,
        "peer_certificate_untrusted",
    ),
    Row("certificate of yesterday", "frontend-expired", get("/orders"), 403, "peer_certificate_expired"),
)

TOKENS = (
    Row("valid token", "frontend", get("/account"), 200, ALLOWED, FRONTEND, "valid", no_token),
    Row("no token where one is needed", "frontend", get("/account"), 403, "deny_policy", LOGIN),
    Row("expired token", "frontend", get("/account"), 401, "token_expired", token="expired"),
    Row("forged token: another key", "frontend", get("/account"), 401, "token_signature", token="forged"),
    Row("token for another audience", "frontend", get("/account"), 401, "token_audience", token="wrong-audience"),
    Row("token that says alg: none", "frontend", get("/account"), 401, "token_algorithm", token="unsigned"),
    Row("bad token where none is needed", "frontend", get("/orders"), 401, "token_signature", token="forged"),
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

STORY = (*PEERS, *TOKENS, *TRICKS)

"""A DENY policy whose response replaces that of token denials: another response, the same denial."""

from __future__ import annotations

import json

import pytest
from msgspec import structs

from tests.support.pki import Signer, jwks
from zta_authz.errors import Reason
from zta_authz.model.decision import NO_RESPONSE, Decision, Verdict
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

SIGNER = Signer()
LOGIN = "https://login.example/"
BROWSER = Evidence("spiffe://cluster.local/ns/shop/sa/gateway")


def rule(text: str) -> str:
    return f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: login}}
spec:
  jwtRules: [{{issuer: "https://issuer.example", jwks: {json.dumps(jwks([SIGNER]))}, fromCookies: [session]}}]
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: everybody}}
spec: {{rules: [{{}}]}}
---
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: log-in}}
spec:
  action: DENY
{text}
"""


PAGES = f"""
  response:
    redirect: {{location: "{LOGIN}"}}
    headers: {{set: [{{name: set-cookie, value: session=; Max-Age=0}}]}}
    tokenDenials: [token_malformed, token_expired]
  rules:
  - from: [{{source: {{notRequestPrincipals: ["*"]}}}}]
    to: [{{operation: {{methods: [GET], paths: ["/orders", "/orders/*"]}}}}]
"""


def snapshot(text: str) -> Snapshot:
    return compile_snapshot([SourceText("a.yaml", rule(text))], Options(trust_proxy=True))


def asked(
    cookie: str = "session=expired", path: str = "/orders", method: str = "GET", host: str = "shop"
) -> RequestAttributes:
    headers = Headers({"cookie": (cookie,)} if cookie else {}, exact=True)
    return RequestAttributes(method=method, path=path, host=host, headers=headers)


def decide_page(request: RequestAttributes, text: str = PAGES) -> Decision:
    return evaluate(snapshot(text), request, BROWSER, 0.0)


def test_a_request_with_a_bad_token_gets_the_response_of_the_rule_that_would_deny_it_without_one() -> None:
    without, bad = decide_page(asked(cookie="")), decide_page(asked())
    assert (without.reason, bad.reason, bad.verdict) == (Reason.DENY_POLICY, Reason.TOKEN_MALFORMED, Verdict.DENY)
    assert bad.response == without.response
    assert (bad.response.status, ("location", LOGIN) in bad.response.set_headers) == (302, True)
    assert (bad.policy, bad.rule) == ("", None)
    assert bad.detail.endswith("; answered as by `default/log-in` rule 0")


@pytest.mark.parametrize(
    "request_",
    [
        asked(path="/api"),
        asked(method="POST"),
        asked(path="/orders/../admin"),
        asked(path="//orders"),
        asked(host="shop/orders"),
    ],
    ids=["another path", "another method", "a dot segment", "an empty segment", "no host"],
)
def test_only_unambiguous_requests_that_the_rule_selects_get_the_response(request_: RequestAttributes) -> None:
    decision = decide_page(request_)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.TOKEN_MALFORMED)
    assert decision.response == NO_RESPONSE
    assert "answered" not in decision.detail


def test_only_reasons_that_the_policy_lists_get_the_response() -> None:
    expired = PAGES.replace("[token_malformed, token_expired]", "[token_expired]")
    assert decide_page(asked(), expired).response == NO_RESPONSE
    every = PAGES.replace("[token_malformed, token_expired]", '["*"]')
    assert decide_page(asked(), every).response.status == 302
    none = PAGES.replace("    tokenDenials: [token_malformed, token_expired]\n", "")
    assert decide_page(asked(), none).response == NO_RESPONSE


def test_the_first_rule_that_lists_the_reason_answers() -> None:
    text = (
        PAGES
        + """
  - to: [{operation: {paths: ["/orders*"]}}]
    response: {status: 418, tokenDenials: ["*"]}
"""
    )
    assert decide_page(asked(), text).response.status == 302
    assert decide_page(asked(path="/orders2"), text).response.status == 418


@pytest.mark.parametrize(("account", "status"), [("gateway", 302), ("other", 0)])
def test_the_rule_sees_the_verified_peer_and_no_token(account: str, status: int) -> None:
    principal = f"cluster.local/ns/shop/sa/{account}"
    text = PAGES.replace('notRequestPrincipals: ["*"]', f'notRequestPrincipals: ["*"], principals: ["{principal}"]')
    assert decide_page(asked(), text).response.status == status


def test_only_the_response_differs() -> None:
    """The policy changes neither verdict nor reason."""
    plain = PAGES.replace("    tokenDenials: [token_malformed, token_expired]\n", "")
    for request in (asked(), asked(path="/api"), asked(cookie=""), asked(cookie="", path="/api")):
        one, other = decide_page(request), decide_page(request, plain)
        assert structs.replace(one, response=NO_RESPONSE, detail="") == structs.replace(
            other, response=NO_RESPONSE, detail=""
        )

"""The workload of a request, and the proxies that may ask for it."""

from __future__ import annotations

import pytest

from tests.support.pki import ISSUER, NOW, Signer, jwks
from zta_authz.errors import Reason, Refused
from zta_authz.model.options import Gateway, NamedWorkload, Options, Workload
from zta_authz.model.request import Evidence, Headers, RequestAttributes
from zta_authz.pdp.decide import evaluate
from zta_authz.pdp.explain import explain
from zta_authz.pdp.snapshot import SourceText, compile_snapshot
from zta_authz.policy.rules.table import MAX_VIEWS
from zta_authz.policy.workloads import WorkloadResolver

ORDERS = "spiffe://cluster.local/ns/shop/sa/orders"
GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"
SHOP = Workload("shop", {"app": "orders"})
SHARED = Options(
    workloads=(NamedWorkload(ORDERS, SHOP),),
    gateways=(Gateway(GATEWAY, ("shop", "team-*")),),
    trust_proxy=True,
)


def named(namespace: str, labels: str = "") -> RequestAttributes:
    extensions = {"zta.workload.namespace": namespace}
    if labels:
        extensions["zta.workload.labels"] = labels
    return RequestAttributes(method="GET", path="/", context_extensions=extensions)


def to(principal: str) -> RequestAttributes:
    return RequestAttributes(method="GET", path="/", destination_principal=principal)


def test_a_single_workload_gets_every_request() -> None:
    resolver = WorkloadResolver(Options(workload=SHOP))
    assert resolver.resolve(named("other"), "") is SHOP


@pytest.mark.parametrize(
    ("request_", "caller", "namespace", "labels"),
    [
        (to(ORDERS), ORDERS, "shop", {"app": "orders"}),
        (to(""), ORDERS, "shop", {"app": "orders"}),
        (to(ORDERS), "", "shop", {"app": "orders"}),
        (to(ORDERS), GATEWAY, "shop", {"app": "orders"}),
        (named("shop"), GATEWAY, "shop", {}),
        (named("team-a", "app=web,version=v2"), GATEWAY, "team-a", {"app": "web", "version": "v2"}),
    ],
)
def test_a_proxy_may_ask_for_its_own_workload(
    request_: RequestAttributes, caller: str, namespace: str, labels: dict[str, str]
) -> None:
    workload = WorkloadResolver(SHARED).resolve(request_, caller)
    assert (workload.namespace, dict(workload.labels)) == (namespace, labels)


@pytest.mark.parametrize(
    ("request_", "caller", "reason"),
    [
        (to(ORDERS), "spiffe://cluster.local/ns/shop/sa/payments", Reason.CALLER_NOT_ALLOWED),
        (named("shop"), ORDERS, Reason.CALLER_NOT_ALLOWED),
        (named("shop"), "", Reason.CALLER_NOT_ALLOWED),
        (named("kube-system"), GATEWAY, Reason.CALLER_NOT_ALLOWED),
        (named("shop", "app"), GATEWAY, Reason.WORKLOAD_UNKNOWN),
        (named("shop", "=x"), GATEWAY, Reason.WORKLOAD_UNKNOWN),
        (to("spiffe://cluster.local/ns/shop/sa/nobody"), GATEWAY, Reason.WORKLOAD_UNKNOWN),
        (to(""), "", Reason.WORKLOAD_UNKNOWN),
        (to(""), GATEWAY, Reason.WORKLOAD_UNKNOWN),
    ],
)
def test_a_proxy_may_not_ask_for_other_workloads(request_: RequestAttributes, caller: str, reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        WorkloadResolver(SHARED).resolve(request_, caller)
    assert refused.value.reason is reason


def test_a_gateway_on_a_unix_socket_is_listed_by_that_name() -> None:
    options = Options(gateways=(Gateway("unix", ("*",)),))
    assert WorkloadResolver(options).resolve(named("shop"), "").namespace == "shop"


POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec:
  selector: {matchLabels: {app: orders}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: team, namespace: team-a}
spec: {rules: [{to: [{operation: {methods: [POST]}}]}]}
"""


def test_each_request_is_decided_by_its_own_workloads_policies() -> None:
    snapshot = compile_snapshot([SourceText("p.yaml", POLICIES)], SHARED)

    def verdict(request: RequestAttributes, caller: str) -> str:
        decision = evaluate(snapshot, request, Evidence(), 0.0, caller)
        return f"{decision.reason} {decision.policy}".strip()

    assert verdict(to(ORDERS), ORDERS) == "allow_policy shop/orders"
    assert verdict(named("team-a"), GATEWAY) == "no_matching_policy"
    assert verdict(named("shop", "app=orders"), GATEWAY) == "allow_policy shop/orders"
    assert verdict(named("shop"), GATEWAY) == "no_matching_policy"
    assert verdict(to(ORDERS), "spiffe://cluster.local/ns/x/sa/y") == "caller_not_allowed"


def test_workloads_with_the_same_policies_share_a_view_and_views_are_bounded() -> None:
    table = compile_snapshot([SourceText("p.yaml", POLICIES)], SHARED).table
    first = table.view(Workload("shop", {"app": "orders", "version": "v1"}))
    assert table.view(Workload("shop", {"app": "orders", "version": "v2"})) is first
    for number in range(2 * MAX_VIEWS):
        table.view(Workload("shop", {"app": "orders", "version": str(number)}))
    assert 0 < len(table._views) <= MAX_VIEWS
    assert table.view(SHOP) is not first


SHADOWS = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch}
spec: {action: AUDIT, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/x"]}}]}]}
"""


def test_audit_and_dry_run_policies_are_reported_and_decide_nothing() -> None:
    snapshot = compile_snapshot([SourceText("p.yaml", SHADOWS)], Options())
    decision = evaluate(snapshot, RequestAttributes(method="GET", path="/x"), Evidence(), 0.0)
    assert decision.allowed
    shadows = [(shadow.action, shadow.policy, shadow.rule, shadow.dry_run) for shadow in decision.shadows]
    assert shadows == [("AUDIT", "default/watch", 0, False), ("DENY", "default/tried", 0, True)]
    other = evaluate(snapshot, RequestAttributes(method="PUT", path="/y"), Evidence(), 0.0)
    assert other.allowed
    assert other.shadows == ()


ISSUER_OF_ORDERS = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: orders, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: orders}}}}
  jwtRules: [{{issuer: "{ISSUER}", jwks: '{jwks()}'}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: users, namespace: istio-system}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: ["*"]}}}}]}}]}}
"""


def test_a_request_is_authenticated_by_its_own_workloads_issuers() -> None:
    snapshot = compile_snapshot([SourceText("p.yaml", ISSUER_OF_ORDERS)], SHARED)
    headers = Headers({"authorization": (f"Bearer {Signer().token()}",)}, exact=True)

    def reason(labels: str) -> str:
        extensions = named("shop", labels).context_extensions
        asked = RequestAttributes(method="GET", path="/", headers=headers, context_extensions=extensions)
        explained = explain(snapshot, asked, Evidence(), NOW, GATEWAY)
        decision = evaluate(snapshot, asked, Evidence(), NOW, GATEWAY)
        assert explained.decision.reason is decision.reason
        return decision.reason.value

    assert reason("app=orders") == "allow_policy"
    assert reason("app=stock") == "no_matching_policy"

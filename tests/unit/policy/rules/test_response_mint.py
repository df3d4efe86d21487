"""`response.mint` of AccessPolicies: what is read, and every fault."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.policies import faults, snapshot
from zta_authz.model.minting import ClaimSource, TokenKind

if TYPE_CHECKING:
    from zta_authz.pdp.snapshot import Snapshot

POLICY = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {{name: p}}
spec: {{action: {action}, response: {response}, rules: [{{}}]}}
"""


def document(response: str, action: str = "ALLOW") -> str:
    return POLICY.format(response=response, action=action)


def compiled(response: str) -> Snapshot:
    return snapshot(document(response))


def test_an_audience_is_enough() -> None:
    [policy] = compiled("{mint: {audience: orders}}").table.policies
    template = policy.rules[0].response
    assert template is not None
    assert template.mint is not None
    mint = template.mint
    assert (mint.audience, mint.header, mint.kind, mint.lifetime) == ("orders", "x-zta-token", TokenKind.SESSION, 60.0)
    assert (mint.scope, mint.claims) == ("", ())


def test_every_field_is_read() -> None:
    text = (
        "{mint: {audience: orders, kind: transaction, lifetime: 5m, scope: orders.read orders.write,"
        " claims: [{name: tenant, claim: [org, id]}, {name: plan, value: gold}]}}"
    )
    [policy] = compiled(text).table.policies
    template = policy.rules[0].response
    assert template is not None
    assert template.mint is not None
    assert (template.mint.header, template.mint.lifetime) == ("txn-token", 300.0)
    assert template.mint.scope == "orders.read orders.write"
    assert template.mint.claims == (ClaimSource("tenant", None, ("org", "id")), ClaimSource("plan", "gold"))


@pytest.mark.parametrize("header", ["x-zta-token", "Txn-Token", "X-Internal"])
def test_no_client_can_send_the_header_to_any_rule(header: str) -> None:
    rules = compiled(f"{{mint: {{audience: orders, header: {header}}}}}")
    assert header.lower() in rules.guarded_names.listed


@pytest.mark.parametrize(
    ("mint", "fault"),
    [
        ("{}", "`mint` has no `audience`"),
        ("{audience: ''}", "`audience` is empty"),
        ("{audience: [a, b]}", "`audience` is a list"),
        ("{audience: a, ttl: 60s}", "unknown field `ttl` in mint"),
        ("{audience: a, kind: jwt}", "`jwt` is not a `kind`"),
        ("{audience: a, kind: transaction}", "needs a `scope`"),
        ("{audience: a, lifetime: 6m}", "not a duration from 1ms to 5m"),
        ("{audience: a, lifetime: 1s}", "`lifetime` is less than 5s"),
        ("{audience: a, scope: a  b}", "`scope` has a space too many"),
        ("{audience: a, header: Authorization}", "`authorization` is for the caller's own credentials"),
        ("{audience: a, header: cookie}", "`cookie` is for the caller's own credentials"),
        ("{audience: a, header: host}", "a policy can't change header `host`"),
        ("{audience: a, header: x-zta-principal}", "a policy can't change header `x-zta-principal`"),
        ("{audience: a, header: 'a b'}", "is not a header name"),
        ("{audience: a, claims: [{name: sub, value: root}]}", "a policy can't set claim `sub`"),
        ("{audience: a, claims: [{name: act, claim: act}]}", "a policy can't set claim `act`"),
        ("{audience: a, claims: [{name: x}]}", "claim `x` needs either `value` or `claim`"),
        ("{audience: a, claims: [{name: x, value: a}, {name: x, value: b}]}", "claim `x` is set twice"),
        ("{audience: a, claims: []}", "`claims` is an empty list"),
    ],
)
def test_each_fault_is_named(mint: str, fault: str) -> None:
    assert fault in "\n".join(map(str, faults(document(f"{{mint: {mint}}}"))))


@pytest.mark.parametrize(
    ("headers", "mint"),
    [
        ("{set: [{name: x-token, value: a}]}", "{audience: a, header: x-token}"),
        ("{set: [{name: x_token, value: a}]}", "{audience: a, header: x-token}"),
        ("{remove: [txn-token]}", "{audience: a, header: txn-token}"),
    ],
)
def test_the_same_policy_can_not_change_the_header_otherwise(headers: str, mint: str) -> None:
    [fault] = faults(document(f"{{headers: {headers}, mint: {mint}}}"))
    assert "has the minted token, and `headers` changes it too" in fault


@pytest.mark.parametrize("action", ["DENY", "AUDIT"])
def test_only_an_allow_mints(action: str) -> None:
    assert faults(document("{mint: {audience: orders}}", action))

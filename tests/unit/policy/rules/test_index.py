"""The index: every lookup finds the lowest rule that holds, and few other rules are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.policies import STRICT, decided, identity, operation, policy, request, source, table, when
from zta_authz.model.identity import Identity
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.lookups import (
    BranchNode,
    CidrLookup,
    KeyedLookup,
    SharedClauseNode,
    ValueLookup,
)
from zta_authz.policy.rules.rule import LinearScan, Rule, RuleIndex

if TYPE_CHECKING:
    from zta_authz.model.request import RequestAttributes

COUNT = 40


def index_of(*rules: dict[str, Any], action: str = "ALLOW") -> RuleIndex:
    policies = [policy(f"p{at:03}", *rules[at : at + 500], action=action) for at in range(0, len(rules), 500)]
    view = table(policies).default_view
    return view.deny if action == "DENY" else view.allow


def first(index: RuleIndex, asked: RequestAttributes, caller: Identity | None = None) -> int | None:
    rule = index.first(Inputs(asked, caller or Identity(), STRICT))
    return None if rule is None else rule.id


_SHAPES: list[tuple[str, Any, Any]] = [
    ("exact path", lambda n: operation(paths=[f"/p{n}"]), lambda n: request(path=f"/p{n}")),
    ("prefix path", lambda n: operation(paths=[f"/p{n}/*"]), lambda n: request(path=f"/p{n}/x")),
    ("suffix host", lambda n: operation(hosts=[f"*.h{n}"]), lambda n: request(host=f"a.H{n}")),
    ("template", lambda n: operation(paths=[f"/{{*}}/p{n}/{{**}}"]), lambda n: request(path=f"/x/p{n}/y/z")),
    ("port", lambda n: operation(ports=[str(n)]), lambda n: request(port=n)),
    ("method", lambda n: operation(methods=[f"M{n}"]), lambda n: request(f"M{n}")),
    ("server name", lambda n: when("connection.sni", f"s{n}"), lambda n: request(sni=f"S{n}")),
    ("IPv4 block", lambda n: source(ipBlocks=[f"10.{n}.0.0/16"]), lambda n: request(source_ip=f"10.{n}.1.2")),
    ("IPv6 address", lambda n: source(ipBlocks=[f"2001:db8::{n:x}"]), lambda n: request(source_ip=f"2001:db8::{n:x}")),
    ("header", lambda n: when(f"request.headers[x-{n}]", "v*"), lambda n: request(headers={f"x-{n}": ["a", "v1"]})),
    ("metadata", lambda n: when("experimental.envoy.filters.f[k]", f"v{n}"), lambda n: request(metadata={"envoy.filters.f": {"k": f"v{n}"}})),
]  # fmt: skip
_CALLERS: list[tuple[str, Any, Any]] = [
    ("principal", lambda n: source(principals=[f"td/{n}"]), lambda n: identity(f"spiffe://td/{n}")),
    ("namespace", lambda n: source(namespaces=[f"n{n}"]), lambda n: identity(f"spiffe://td/ns/n{n}/sa/x")),
    ("service account", lambda n: source(serviceAccounts=[f"a/s{n}"]), lambda n: identity(f"spiffe://td/ns/a/sa/s{n}")),
    ("trust domain", lambda n: source(trustDomains=[f"t{n}"]), lambda n: identity(f"spiffe://t{n}/x")),
    ("user", lambda n: source(requestPrincipals=[f"i/u{n}"]), lambda n: identity(claims={"iss": "i", "sub": f"u{n}"})),
    ("claim", lambda n: when(f"request.auth.claims[c{n}][d]", "v"), lambda n: identity(claims={f"c{n}": {"d": ["v"]}})),
    ("audience", lambda n: when("request.auth.audiences", f"a{n}"), lambda n: identity(claims={"aud": ["x", f"a{n}"]})),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "asked"), [shape[1:] for shape in _SHAPES], ids=[shape[0] for shape in _SHAPES])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_each_of_many_rules_is_found_by_its_request_fields(rule: Any, asked: Any, action: str) -> None:
    index = index_of(*(rule(n) for n in range(COUNT)), action=action)
    assert [first(index, asked(n)) for n in range(COUNT + 1)] == [*range(COUNT), None]


@pytest.mark.parametrize(("rule", "caller"), [shape[1:] for shape in _CALLERS], ids=[shape[0] for shape in _CALLERS])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_each_of_many_rules_is_found_by_its_identity_fields(rule: Any, caller: Any, action: str) -> None:
    index = index_of(*(rule(n) for n in range(COUNT)), action=action)
    assert [first(index, request(), caller(n)) for n in range(COUNT + 1)] == [*range(COUNT), None]


def test_the_lowest_of_several_matching_rules_is_found() -> None:
    fillers = [operation(paths=[f"/x{n}"]) for n in range(20)]
    holding = [
        operation(paths=["/a"]),
        operation(paths=["/{*}"]),
        operation(notPaths=["/b"]),
        operation(paths=["/a*"]),
        operation(paths=["*a"]),
        operation(methods=["GET"]),
        source(ipBlocks=["10.0.0.0/8"]),
        {},
    ]
    for turn in range(len(holding)):
        turned = holding[turn:] + holding[:turn]
        assert first(index_of(*fillers, *turned), request(path="/a")) == len(fillers)
        assert first(index_of(*turned, *fillers), request(path="/a")) == 0


def test_rules_that_share_a_lookup_are_distinguished_by_another() -> None:
    index = index_of(
        *({**operation(paths=["/shared"]), **source(principals=[f"td/{n}"])} for n in range(COUNT)),
        *({**operation(paths=["/other"]), **source(principals=[f"td/{n}"])} for n in range(COUNT)),
    )
    assert first(index, request(path="/shared"), identity("spiffe://td/7")) == 7
    assert first(index, request(path="/other"), identity("spiffe://td/7")) == COUNT + 7
    assert first(index, request(path="/x"), identity("spiffe://td/7")) is None


def test_rules_without_lookups_share_their_clauses() -> None:
    index = index_of(
        *(
            {"when": [{"key": "request.headers[x]", "notValues": ["a", f"v{n % 7}"]}], **operation(notPaths=[f"/p{n}"])}
            for n in range(COUNT)
        )
    )
    assert isinstance(index._root, SharedClauseNode)
    assert first(index, request(path="/p0", headers={"x": "b"})) == 1
    assert first(index, request(path="/p0", headers={"x": "v1"})) == 2
    assert first(index, request(headers={"x": "a"})) is None


def test_a_group_is_found_by_any_of_its_alternatives() -> None:
    def rule(number: int) -> dict[str, Any]:
        return {
            "from": [
                {"source": {"principals": [f"td/{number}"], "notNamespaces": ["x"]}},
                {"source": {"notIpBlocks": ["::/0"], "namespaces": [f"n{number}"]}},
            ]
        }

    index = index_of(*(rule(number) for number in range(COUNT)))
    assert first(index, request(), identity("spiffe://td/9")) == 9
    assert first(index, request(), identity("spiffe://td/ns/n9/sa/x")) == 9


def test_a_group_with_an_alternative_without_lookup_is_still_tried() -> None:
    rules = [
        {"to": [{"operation": {"paths": [f"/p{n}"]}}, {"operation": {"notMethods": ["GET", f"M{n}"]}}]}
        for n in range(COUNT)
    ]
    index = index_of(*rules)
    assert first(index, request(path="/p9")) == 9
    assert first(index, request("POST")) == 0
    assert first(index, request("M0")) == 1


def test_a_joined_header_matches_a_deny_and_not_an_allow() -> None:
    rules = [
        {"when": [{"key": f"request.headers[x-{n % 12}]", "values": [f"v{n}"]}], **operation(paths=[f"/p{n % 3}"])}
        for n in range(COUNT)
    ]
    joined = request(path="/p1", headers={"x-4": "a,b"}, exact=False)
    assert first(index_of(*rules, action="DENY"), joined) == 4
    assert first(index_of(*rules), joined) is None


def test_an_unknown_address_matches_a_deny_and_not_an_allow() -> None:
    rules = [{**source(ipBlocks=[f"10.{n}.0.0/16"]), **operation(methods=[f"M{n % 5}"])} for n in range(COUNT)]
    assert first(index_of(*rules, action="DENY"), request("M3", source_ip="")) == 3
    assert first(index_of(*rules), request("M3", source_ip="")) is None


def parts(node: Any) -> list[Any]:
    """Every node of an index, depth first."""
    children: list[Any] = []
    if isinstance(node, BranchNode):
        children = [*node.entries, *([node.rest] if node.rest else [])]
    elif isinstance(node, KeyedLookup):
        children = [entry for entries in node.entries.values() for entry in entries]
    elif isinstance(node, ValueLookup | CidrLookup):
        children = list(node.all_nodes)
    elif isinstance(node, SharedClauseNode):
        children = node.children
    return [node, *(descendant for child in children for descendant in parts(child))]


def test_few_rules_are_scanned_and_many_looked_up() -> None:
    rules = [operation(paths=[f"/p{n}"]) for n in range(9)]
    assert isinstance(index_of(*rules[:8])._root, LinearScan)
    assert isinstance(index_of(*rules)._root, BranchNode)
    assert table([]).default_view.allow._root is None


def test_many_headers_and_claims_are_looked_up_by_name() -> None:
    for key in ("request.headers[n{}]", "request.auth.claims[n{}]"):
        many = parts(index_of(*(when(key.format(n), "v") for n in range(9)))._root)
        few = parts(index_of(*(when(key.format(n % 8), f"v{n}") for n in range(9)))._root)
        assert [type(part) for part in many].count(KeyedLookup) == 1
        assert [type(part) for part in few].count(KeyedLookup) == 0


def test_a_header_that_authentication_sets_is_looked_up_too() -> None:
    from zta_authz.model.identity import Changes

    index = index_of(*(when(f"request.headers[x-{n}]", "v") for n in range(COUNT)))
    assert first(index, request(), identity(changes=Changes((("x-9", "v"),)))) == 9


def test_only_rules_that_a_lookup_finds_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    holds = Rule.holds

    def counted(self: Rule, inputs: Inputs, deny: bool) -> bool:
        tried.append(self.id)
        return holds(self, inputs, deny)

    monkeypatch.setattr(Rule, "holds", counted)
    shapes = [shape[1:] for shape in _SHAPES[:3]]
    for rule, asked in shapes:
        index = index_of(*({**rule(n), **source(principals=["td/all"])} for n in range(1000)))
        tried.clear()
        assert first(index, asked(777), identity("spiffe://td/all")) == 777
        assert len(tried) <= 8


def test_the_decision_names_the_policy_and_its_rule() -> None:
    policies = [policy(f"p{p:02}", *(operation(paths=[f"/p{p}/r{r}"]) for r in range(10))) for p in range(20)]
    decision = decided(policies, request(path="/p13/r7"))
    assert (decision.policy, decision.rule) == ("default/p13", 7)

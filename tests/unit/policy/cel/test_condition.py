"""Conditions: type-checked when loaded, bounded, and Unknown if they can't be evaluated."""

from __future__ import annotations

import pytest

from zta_authz.model.identity import ANONYMOUS, Changes, Identity, Peer, PeerTrust, Token
from zta_authz.model.options import Options
from zta_authz.model.request import Address, Headers, RequestAttributes
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.cel.condition import MAX_LENGTH, Condition, ConditionError
from zta_authz.policy.cel.fact_variables import DEVICE_FIELDS, FACT_VARIABLES
from zta_authz.policy.cel.variables import VARIABLES
from zta_authz.policy.rules.inputs import Inputs

FRONTEND = "spiffe://cluster.local/ns/shop/sa/frontend"
NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z, a Monday
CLAIMS = {"sub": "alice", "roles": ["buyer", "admin"], "level": 3, "nested": {"a": [1, 2]}, "x": None}


def inputs(identity: Identity | None = None) -> Inputs:
    token = Token("https://issuer", "alice", CLAIMS)
    peer = Peer((FRONTEND,), SpiffeId.parse(FRONTEND), PeerTrust.CERTIFICATE)
    request = RequestAttributes(
        method="GET",
        path="/orders/7?x=1",
        host="Orders:8080",
        scheme="https",
        headers=Headers(
            {"x-team": ("hats", "caps"), "x-one": ("hats",), "via": ("a,b",), "x-empty": ("",)}, exact=True
        ),
        source=Address("10.0.0.1", 1234),
        destination=Address("10.0.0.2", 8080),
        destination_principal="spiffe://cluster.local/ns/shop/sa/orders",
        sni="Orders.Example",
        context_extensions={"tier": "gold"},
    )
    return Inputs(request, Identity(peer, token) if identity is None else identity, Options(), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "request.method == 'GET'",
        "request.path == '/orders/7'",
        "request.query == 'x=1'",
        "request.host == 'orders:8080'",
        "request.scheme == 'https'",
        "request.headers['x-one'] == 'hats'",
        "request.headers.via == 'a,b'",
        "'x-empty' in request.headers",
        f"source.principal == '{FRONTEND}'",
        "source.trustDomain == 'cluster.local'",
        "source.namespace == 'shop'",
        "source.serviceAccount == 'frontend'",
        "source.ip == '10.0.0.1' && source.port == 1234",
        "remote.ip == '10.0.0.1'",
        "destination.ip == '10.0.0.2' && destination.port == 8080",
        "destination.principal.endsWith('/sa/orders')",
        "connection.sni == 'orders.example'",
        "claims.sub == 'alice' && claims.level > 2",
        "claims.roles.exists(r, r == 'admin')",
        "'admin' in claims.roles",
        "claims.nested.a[1] == 2",
        "token.subject == 'alice' && token.issuer == 'https://issuer'",
        "context['tier'] == 'gold'",
        "now > timestamp('2026-01-01T00:00:00Z') && now.getHours('Europe/Berlin') == 17 - 1",
        "request . method == 'GET'",
        "request.path.matches('^/orders/[0-9]+$')",
        "claims.roles.all(r, r.matches(r'^\\w+$'))",
        "!has(claims.missing)",
    ],
)
def test_a_condition_reads_the_request_and_the_verified_identity(text: str) -> None:
    assert Condition(text).evaluate(inputs()) is True


def test_every_documented_variable_can_be_read_without_any_identity() -> None:
    bare = Inputs(RequestAttributes(), ANONYMOUS, Options(), NOW)
    for name, variable in VARIABLES.items():
        compared = {"STRING": "''", "INT": "0"}.get(variable.type.name(), "")
        read = f"{name}.os" if name == DEVICE_FIELDS else name
        text = f"{read} == {compared}" if compared else f"{read} == {read}"
        assert Condition(text).evaluate(bare) is (None if name in FACT_VARIABLES else True), name


@pytest.mark.parametrize(
    "text",
    [
        "claims.missing == 'x'",
        "request.headers['x-none'] == 'a'",
        "claims.roles[9] == 'x'",
        "claims.sub > 1",
        "claims.sub == 'alice' && claims.missing",
        "1 / (destination.port - 8080) == 1",
        "timestamp(claims.sub) < now",
        "now.getHours(claims.sub) == 1",
    ],
)
def test_what_cannot_be_evaluated_is_unknown(text: str) -> None:
    assert Condition(text).evaluate(inputs()) is None


def test_a_claim_that_cel_cannot_represent_makes_every_condition_on_claims_unknown() -> None:
    token = Token("https://issuer", "alice", {"sub": "alice", "huge": 2**70})
    assert Condition("claims.sub == 'alice'").evaluate(inputs(Identity(token=token))) is None


@pytest.mark.parametrize(
    "text",
    [
        "request.headers['x-team'] == 'hats,caps'",
        "!('x-team' in request.headers)",
        "request.headers[request.method] == 'hats'",
        "request.headers.exists(name, name == 'x-one')",
        "size(request.headers) > 0",
        "request.headers == request.headers",
    ],
)
def test_a_condition_that_may_read_a_header_with_several_values_is_unknown(text: str) -> None:
    assert Condition(text).evaluate(inputs()) is None


def test_a_header_value_with_surrounding_blanks_is_unknown_because_the_upstream_may_trim_it() -> None:
    request = RequestAttributes(headers=Headers({"x-role": (" admin",)}, exact=True))
    condition = Condition("request.headers['x-role'] == 'admin'")
    assert condition.evaluate(Inputs(request, Identity(), Options())) is None
    assert condition.evaluate(Inputs(request, Identity(), Options.istio())) is False


def addressed(source: str = "10.0.0.1", forwarded: str | None = None, options: Options | None = None) -> Inputs:
    headers = {} if forwarded is None else {"x-forwarded-for": (forwarded,)}
    request = RequestAttributes(
        "GET", headers=Headers(headers, exact=True), source=Address(source, 1), destination=Address(source, 2)
    )
    return Inputs(request, Identity(), options or Options())


@pytest.mark.parametrize("name", ["source.ip", "destination.ip", "remote.ip"])
@pytest.mark.parametrize("ip", ["::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"])
def test_a_condition_that_depends_on_the_ipv6_or_ipv4_form_of_an_address_is_unknown(name: str, ip: str) -> None:
    """As for address blocks, a DENY on `10.` must not be bypassed, and an ALLOW must not match."""
    for text in (f"{name} == '10.0.0.1'", f"!{name}.startsWith('10.')", f"{name}.contains(':')"):
        assert Condition(text).evaluate(addressed(ip)) is None, text
        assert "stands for an IPv4 address" in Condition(text).why_unknown(addressed(ip))
    for text in (f"{name} != ''", f"{name} == '10.0.0.1' || request.method == 'GET'"):
        assert Condition(text).evaluate(addressed(ip)) is True, text
    assert Condition(f"{name} == '192.0.2.1'").evaluate(addressed(ip)) is False


def test_addresses_are_normalised() -> None:
    assert Condition("source.ip == '2001:db8::1'").evaluate(addressed("2001:DB8:0::1%3")) is True
    assert Condition("remote.ip == '2001:db8::1'").evaluate(addressed(forwarded="2001:0db8::0001")) is True


@pytest.mark.parametrize(
    ("name", "asked"),
    [("source.ip", addressed("fe80::1%eth0")), ("remote.ip", addressed(forwarded="10.0.0.1:80"))],
)
def test_an_unreadable_address_makes_a_condition_that_depends_on_it_unknown(name: str, asked: Inputs) -> None:
    assert Condition(f"{name} == '10.0.0.1'").evaluate(asked) is None
    assert Condition(f"{name} != '10.0.0.1'").evaluate(asked) is None
    assert Condition(f"request.method == 'PUT' && {name} == ''").evaluate(asked) is False
    assert Condition(f"{name} == ''").evaluate(addressed("")) is True  # a Unix socket has none


def test_conditions_read_headers_set_from_a_verified_token() -> None:
    token = Token("https://issuer", "alice", CLAIMS)
    identity = Identity(token=token, changes=Changes(set_headers=(("x-tier", "gold"),), remove_headers=("x-one",)))
    assert Condition("request.headers['x-tier'] == 'gold'").evaluate(inputs(identity)) is True
    assert Condition("'x-one' in request.headers").evaluate(inputs(identity)) is False


@pytest.mark.parametrize(
    ("path", "namespace", "account"),
    [
        ("/ns/shop/sa/web", "shop", "web"),
        ("/ns/sa/sa/admin", "sa", "admin"),
        ("/ns/shop/sa/web/extra", "", ""),
        ("/x/ns/shop/sa/web", "", ""),
        ("/web", "", ""),
    ],
)
def test_namespace_and_account_are_set_only_for_kubernetes_spiffe_ids(path: str, namespace: str, account: str) -> None:
    name = f"spiffe://ns{path}"
    identity = Identity(Peer((name,), SpiffeId.parse(name), PeerTrust.CERTIFICATE))
    assert Condition(f"source.namespace == '{namespace}'").evaluate(inputs(identity)) is True
    assert Condition(f"source.serviceAccount == '{account}'").evaluate(inputs(identity)) is True


def test_a_short_circuit_decides_despite_unknown_operands() -> None:
    assert Condition("request.method == 'PUT'").evaluate(inputs()) is False
    assert Condition("request.method == 'PUT' && claims.missing == 1").evaluate(inputs()) is False
    assert Condition("request.method == 'GET' || claims.missing == 1").evaluate(inputs()) is True


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("request.metod == 'GET'", 1, 8, "undeclared reference to 'request.metod'"),
        ("request.method == 1", 1, 16, "no matching overload"),
        ("request.method", 1, 1, "of type STRING, not bool"),
        ("claims.admin", 1, 1, "of type DYN, not bool"),
        ("request.method ==", 1, 18, "Syntax error"),
        ("true &&\n  nobody == 1", 2, 3, "undeclared reference to 'nobody'"),
        ("claims.l.map(x, x) == []", 1, 10, "`map` may build"),
        ("claims.l . filter (x, true) == []", 1, 12, "`filter` may build"),
        ("claims.l.exists(x, x + 'a' == 'b')", 1, 22, "`+` within a comprehension"),
        ("claims.l.all(x, claims.m.exists(y, x == y))", 1, 26, "`exists` within a comprehension"),
        ("claims.l.all(x, [claims.m.exists_one(y, x == y)][0])", 1, 27, "`exists_one` within a comprehension"),
        ("request.path.matches(request.host)", 1, 14, "not a literal"),
        ("request.path.matches('a' + 'b')", 1, 14, "not a literal"),
        ("matches(request.path, request.host)", 1, 1, "not a literal"),
        ("request.path.matches('(')", 1, 22, "missing )"),
        ("r'\\'.matches(request.path)", 1, 6, "not a literal"),
        ("true" + " && true" * 400, 1, 1, f"more than {MAX_LENGTH}"),
    ],
)
def test_an_invalid_condition_is_reported_with_position_and_reason(
    text: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(ConditionError) as error:
        Condition(text)
    assert (error.value.line, error.value.column) == (line, column)
    assert message in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "request.path == '.map(' // .filter(x, y)",
        "request.path == 'claims.l.map(x, x)'",
        '"""a.map(b)""" == request.path',
        "b'+' == b'.map(' || claims.map == 1",
        "'a' + request.method == 'aGET'",
    ],
)
def test_expressions_that_only_look_unbounded_are_accepted(text: str) -> None:
    assert Condition(text).evaluate(inputs()) in (True, False, None)


def test_only_the_variables_that_an_expression_uses_are_read() -> None:
    condition = Condition("request.method == 'GET' && request.path != 'claims.sub' // now")
    assert condition.variables == ("request.method", "request.path")


def test_conditions_over_the_same_variables_share_their_values() -> None:
    one = inputs()
    assert Condition("claims.sub == 'alice'").evaluate(one)
    assert Condition("claims.level == 3").evaluate(one)
    assert list(one.conditions.activations) == [("claims",)]

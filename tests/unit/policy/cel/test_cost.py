"""The cost of conditions: derived from their text and the sizes of their inputs, and bounded."""

from __future__ import annotations

import pytest

from zta_authz.model.identity import Identity, Token
from zta_authz.model.options import Options
from zta_authz.model.request import Headers, RequestAttributes
from zta_authz.policy.cel.condition import Condition, ConditionError, literal_value, variables_in
from zta_authz.policy.cel.cost import FREE_UNITS, MAX_PATTERN, MAX_UNITS, Cost, Sizes, cost_of, pattern_size
from zta_authz.policy.rules.inputs import Inputs

HEADERS = {"x-team": "hats", "x-request-id": "0" * 36, "accept": "text/html" * 10, "cookie": "a=b; " * 99 + "c=d"}
GROUPS = [f"group-{number}" for number in range(50)]


def inputs(path: str = "/orders/7", claims: dict[str, object] | None = None, **headers: str) -> Inputs:
    made = Headers({name.replace("_", "-"): (value,) for name, value in (HEADERS | headers).items()}, exact=True)
    token = Token("iss", "alice", {"groups": GROUPS, "sub": "alice"} if claims is None else claims)
    return Inputs(RequestAttributes(method="GET", path=path, headers=made), Identity(token=token), Options())


def cost(text: str) -> Cost | None:
    return cost_of(text, variables_in, literal_value)


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("abc", 3),
        ("a+b*", 4),
        ("[a-z]{36}", 36),
        ("[^]]{3}", 3),
        ("[[:alpha:]_]{2}", 2),
        ("a{2,5}", 8),
        ("a{3,}", 5),
        ("(ab){10}", 30),
        ("((a{10}){10}){10}", 1110),
        ("(?:ab|cd){2}", 12),
        ("(?i)ab", 3),
        ("(?P<x>a){4}", 8),
        (r"\Qa{9}\E", 4),
        (r"\pL", 16),
        (r"\x{1F600}a", 2),
        ("a{b}", 4),
        (r"\{5}", 3),
        ("(a?){1000}", 3000),
    ],
)
def test_the_size_of_a_pattern_counts_expanded_repetitions(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


def test_a_pattern_that_is_too_large_is_refused_when_loaded() -> None:
    with pytest.raises(ConditionError, match="steps with its repetitions written out") as error:
        Condition("request.path.matches('" + "(a?){1000}" * 2 + "')")
    assert (error.value.line, error.value.column) == (1, 22)
    assert Condition(f"request.path.matches('[a-z]{{1000}}') && {MAX_PATTERN} > 1000")


@pytest.mark.parametrize(
    "text",
    [
        "request.path.matches('^/api/v[0-9]+/users/[0-9a-f-]{36}/orders$')",
        "request.headers['cookie'].matches('(^|; )session=')",
        "claims.groups.exists(g, g == 'finance')",
        "claims.groups.exists(g, g == request.headers['x-team'])",
        "claims.groups.exists(g, g.startsWith('team-'))",
        "request.headers.exists(h, h.startsWith('x-debug'))",
        "request.headers.all(h, request.headers[h] != 'evil')",
        "size(claims.groups) < 100 && request.path.contains('/admin')",
        "['GET', 'HEAD'].exists(m, m == request.method)",
        "string(destination.port) == '8080'",
        "request.path == '/users/' + claims.sub && destination.port + 1 > 80",
    ],
)
def test_common_conditions_on_common_requests_are_free(text: str) -> None:
    asked = inputs()
    assert Condition(text).evaluate(asked) in (True, False)
    assert asked.conditions.units == MAX_UNITS


@pytest.mark.parametrize("text", ["request.path == '/a'", "claims.sub == 'a' && 'x' in claims.groups"])
def test_conditions_without_costly_calls_have_no_cost(text: str) -> None:
    assert cost(text) is None


LONG = "a" * 60_000
MANY = {"groups": [f"g{number}" for number in range(3000)], "other": [f"h{number}" for number in range(3000)]}


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("request.headers.exists(h, request.headers['x-team'].matches('[ab]+c[ab]{30}'))", inputs(x_team=LONG)),
        ("request.headers['x-team'].matches('(.*a.{30}b)$c')", inputs(x_team=LONG)),
        ("request.headers['x-team'].matches('(.*a.{1000})c')", inputs(x_team=LONG)),
        ("claims.groups.exists(g, g in claims.other)", inputs(claims=MANY)),
        ("claims.groups.exists(g, g.matches('[a-z]{100}b'))", inputs(claims=MANY)),
        ("[1, 2, 3, 4, 5, 6, 7, 8, 9].exists(n, request.path.matches('[ab]*a[ab]{20}c'))", inputs("/" + LONG)),
        ("request.path.contains(request.query)", inputs("/" + LONG + "?" + LONG)),
        (" || ".join(["request.path + request.path == 'x'"] * 30) + " && true", inputs("/" + LONG)),
        ("[request.path, request.path].exists(p, p.matches('[ab]*a[ab]{20}c'))", inputs("/" + LONG)),
    ],
)
def test_a_condition_that_would_cost_too_much_is_unknown(text: str, asked: Inputs) -> None:
    condition = Condition(text)
    assert condition.evaluate(asked) is None
    assert asked.conditions.units == MAX_UNITS
    small = inputs("/a?b", {"groups": ["a"], "other": ["b"]})
    assert condition.evaluate(small) in (True, False)


def test_a_long_header_costs_nothing_to_conditions_on_other_headers() -> None:
    condition = Condition("request.headers.exists(h, request.headers['x-team'].matches('h.*s'))")
    assert condition.evaluate(inputs()) is True
    assert Condition("request.headers['x-team'].matches('h.*s')").evaluate(inputs(cookie=LONG)) is True


def test_the_conditions_of_one_request_share_a_budget() -> None:
    condition = Condition("request.path.matches('^/[a-z]*[0-9]{12}x')")
    asked = inputs("/" + "a" * 20_000)
    values = [condition.evaluate(asked) for _ in range(20)]
    assert values[0] is False
    assert values[-1] is None
    assert all(condition.evaluate(inputs()) is False for _ in range(1000))


def test_the_free_units_are_fewer_than_the_common_budget() -> None:
    assert FREE_UNITS * 10 < MAX_UNITS


def test_an_element_looked_up_by_its_own_name_is_not_counted_as_another_text() -> None:
    own, other = cost("request.headers.all(h, request.headers[h].matches('a'))"), cost(
        "request.headers.all(h, request.headers['x'].matches('a'))"
    )  # fmt: skip
    assert own is not None
    assert other is not None
    sizes = Sizes(10_000, 9_000, 100)
    assert own.units(sizes) * 10 < other.units(sizes)


def test_a_long_claim_costs_nothing_to_conditions_on_other_claims() -> None:
    claims = {"groups": GROUPS, "x": {"groups": list(MANY["groups"])}, "picture": LONG}
    for text in (
        "claims.groups.exists(g, g.matches('^group-4[0-9]$'))",
        "claims['groups'].exists(g, g.matches('^group-4[0-9]$'))",
    ):
        assert Condition(text).evaluate(inputs(claims=claims)) is True
    for text in (
        "claims.x.groups.exists(g, g.matches('^group-4[0-9]{30}$'))",
        "claims.all(c, size(claims.picture) < 9)",
    ):
        assert Condition(text).evaluate(inputs(claims=claims | {"picture": LONG * 9})) is None


def test_repeated_headers_count_with_their_joined_length() -> None:
    headers = Headers({"x-a": ("a" * 60,) * 1000}, exact=True)
    asked = Inputs(RequestAttributes(headers=headers), Identity(), Options.istio())
    assert Condition("request.headers['x-a'].matches('(a|b)*a[ab]{30}c')").evaluate(asked) is None
    assert Condition("request.headers['x-a'].matches('a+,')").evaluate(asked) is True

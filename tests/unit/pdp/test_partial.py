"""Decisions on partly known requests, compared with the decisions on every completion."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from tests.support.policies import STRICT, identity, operation, policy, request, snapshot, table, when
from zta_authz.pdp.decide import combine
from zta_authz.pdp.partial import outlook
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.policy.rules.clauses import Clause


def known(clause: Clause) -> bool:
    return not clause.label.startswith("request.headers")


def evaluate(*documents: dict[str, Any], path: str = "/a", default_allow: bool = False) -> tuple[str, tuple[str, ...]]:
    inputs = Inputs(request(path=path), identity(), STRICT)
    result = outlook(table(documents).default_view, inputs, known, default_allow=default_allow)
    return ("unknown" if result.decision is None else result.decision.verdict.value), result.missing


HEADER = when("request.headers[x-a]", "1")


def both(*parts: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    for part in parts:
        rule |= part
    return rule


def test_a_decision_without_unknown_clauses_is_certain() -> None:
    assert evaluate(policy("p", operation(paths=["/a"]))) == ("allow", ())
    assert evaluate(policy("p", operation(paths=["/b"]))) == ("deny", ())
    assert evaluate(policy("p", operation(paths=["/a"])), policy("d", operation(paths=["/a"]), action="DENY")) == (
        "deny",
        (),
    )


def test_a_rule_that_fails_on_what_is_known_needs_nothing_else() -> None:
    assert evaluate(policy("p", both(operation(paths=["/b"]), HEADER))) == ("deny", ())


def test_a_rule_that_depends_on_a_header_leaves_the_verdict_open_and_names_it() -> None:
    assert evaluate(policy("p", both(operation(paths=["/a"]), HEADER))) == ("unknown", ("request.headers[x-a]",))
    allow = policy("p", operation(paths=["/a"]))
    assert evaluate(allow, policy("d", HEADER, action="DENY")) == ("unknown", ("request.headers[x-a]",))


def test_an_open_deny_rule_does_not_matter_if_nothing_allows() -> None:
    assert evaluate(policy("d", HEADER, action="DENY")) == ("deny", ())


def test_an_open_deny_rule_matters_if_the_default_allows() -> None:
    assert evaluate(policy("d", HEADER, action="DENY"), default_allow=True)[0] == "unknown"
    assert evaluate(default_allow=True) == ("allow", ())


def test_another_rule_that_certainly_allows_settles_the_verdict() -> None:
    assert evaluate(policy("p", HEADER, operation(paths=["/a"]))) == ("allow", ())


def test_one_alternative_that_certainly_holds_settles_a_group() -> None:
    two = {"to": [{"operation": {"paths": ["/a"]}}, {"operation": {"paths": ["/b"]}}]}
    assert evaluate(policy("p", two)) == ("allow", ())
    assert evaluate(policy("p", two), path="/c") == ("deny", ())


VALUES = ("1", "2")
rules = st.builds(
    lambda path, header, negated: both(
        operation(paths=[path]),
        {}
        if header is None
        else when("request.headers[x-a]", *(() if negated else (header,)), negated=(header,) if negated else ()),
    ),
    st.sampled_from(("/a", "/b")),
    st.sampled_from((None, *VALUES)),
    st.booleans(),
)


@given(st.lists(st.tuples(st.sampled_from(("ALLOW", "DENY")), st.lists(rules, min_size=1, max_size=3)), max_size=3))
def test_a_certain_verdict_is_that_of_every_completion(drawn: list[tuple[str, list[dict[str, Any]]]]) -> None:
    view = table([policy(f"p{n}", *its, action=action) for n, (action, its) in enumerate(drawn)]).default_view
    completions: list[Any] = [{}, *({"x-a": list(values)} for n in (1, 2) for values in product(VALUES, repeat=n))]
    verdicts = set()
    for headers in completions:
        inputs = Inputs(request(path="/a", headers=headers), identity(), STRICT)
        verdicts.add(combine(view, inputs, default_allow=False).verdict)
    result = outlook(view, Inputs(request(path="/a"), identity(), STRICT), known, default_allow=False)
    if result.decision is not None:
        assert verdicts == {result.decision.verdict}
    else:
        assert {label.removesuffix(" notValues") for label in result.missing} == {"request.headers[x-a]"}


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_a_request_without_known_attributes_is_open(action: str) -> None:
    inputs = Inputs(request(path="/a"), identity(), STRICT)
    view = table(
        [policy("p", operation(paths=["/a"]), action=action), policy("q", operation(paths=["/b"]))]
    ).default_view
    result = outlook(view, inputs, lambda _: False, default_allow=False)
    assert result.decision is None
    assert "paths" in result.missing


def test_many_costly_conditions_leave_each_rule_decided() -> None:
    """Replay evaluates every rule, a request only those that an index selects."""
    head = "apiVersion: zta.dev/v1\nkind: AccessPolicy\nmetadata: {name: a}\nspec:\n  rules:\n"
    rules = (
        "".join(f"  - condition: request.path.matches('^/[a-z]{{20}}{n}')\n" for n in range(60))
        + "  - condition: request.path.matches('^/[a-z]{20}a')\n"
    )
    view = snapshot(head + rules).table.default_view
    inputs = Inputs(request(path="/" + "a" * 3000), identity(), STRICT)
    result = outlook(view, inputs, lambda _: True, default_allow=False)
    assert result.decision is not None
    assert result.decision.rule == 60

"""Clauses of texts: the precomputed comparison gives the result of trying each matcher on each value."""

from __future__ import annotations

import pytest

from tests.support.policies import ISTIO, STRICT, identity, request
from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import METHOD, PATH, PEER, Dimension, HeaderDimension
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.matchers import Exact, Matcher, Prefix, Present, Suffix
from zta_authz.policy.rules.spellings import RespelledParts

EXACT = Exact("/a")
MATCHERS = (
    (EXACT,),
    (Prefix("/b"),),
    (EXACT, Exact("/d")),
    (EXACT, Prefix("/b")),
    (Prefix("/b"), Prefix("/d"), Suffix(".js")),
    (EXACT, Prefix("/b"), Suffix(".js")),
    (Present(),),
)


@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize("deny", [False, True])
@pytest.mark.parametrize("matchers", MATCHERS)
def test_a_clause_holds_if_a_matcher_matches_a_value(
    matchers: tuple[Matcher, ...], deny: bool, negated: bool, options: object
) -> None:
    clause = TextClause(PATH, matchers, negated, "paths", 1)
    for path in ("/a", "/a/", "/bc", "/c.js", "/d", "/x", "/%61", "/%62c"):
        inputs = Inputs(request(path=path), identity(), options)  # type: ignore[arg-type]
        values = PATH.values(inputs, deny is not negated)
        assert values is not None
        matches = any(matcher.matches(value) for matcher in matchers for value in values)
        assert clause.holds(inputs, deny) is (matches is not negated)


@pytest.mark.parametrize("dimension", [METHOD, PATH, PEER])
def test_a_dimension_that_reads_an_attribute_reads_the_values_that_are_not_widened(dimension: Dimension) -> None:
    inputs = Inputs(request(path="/caf%c3%a9?q", method="PUT"), identity("spiffe://td/a"), STRICT)
    assert dimension.attribute is not None
    assert getattr(inputs, dimension.attribute) == dimension.values(inputs, False) != ()


def test_each_other_spelling_of_a_path_is_compared_as_it_is_spelled() -> None:
    inputs = Inputs(request(path="/caf%c3%a9"), identity(), STRICT)
    others = inputs.respelled(RespelledParts(path=True, query=False, host=False, port=False))
    assert others
    for other in others:
        assert other.paths(False) == (other.path,) != (inputs.path,)


def test_a_header_is_always_read_through_its_dimension() -> None:
    assert HeaderDimension("x-a").attribute is None

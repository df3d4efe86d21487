"""No request contradicts a finding of the linter."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from tests.property.policy_shapes import Shapes
from tests.support.policies import ISTIO, STRICT, table
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy.lint.linter import Kind, lint
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.options import Options
    from zta_authz.policy.rules.rule import Rule

_SETS = 80
_REQUESTS = 25


def _possible(names: list[str], *, strict: bool) -> bool:
    """Whether a verified peer may have these names: one valid SPIFFE ID in strict mode."""
    try:
        return not strict or [str(SpiffeId.parse(name)) for name in names] == names
    except ValueError:
        return False


def _documents(shapes: Shapes, rules: int) -> list[dict[str, Any]]:
    """Policies in which some DENY rules repeat ALLOW rules or parts of them, so that the linter finds some."""
    documents = shapes.documents(rules)
    every = [rule for document in documents for rule in document["spec"]["rules"]]
    part = [
        {section: rule[section] for section in shapes.random.sample(sorted(rule), 1)}
        for rule in shapes.random.sample(every, min(3, len(every)))
        if rule
    ]
    copies = [shapes.document(900, part), shapes.document(901, shapes.random.sample(every, 1))] if part else []
    return [*documents, *copies]


class _Claims:
    """The findings about one table, by rule."""

    def __init__(self, documents: list[dict[str, Any]], options: Options) -> None:
        made = table(documents, options)
        self.rules = {(p.ref.name, r.number): (p.ref.action == "DENY", r) for p in made.policies for r in p.rules}
        self.findings = lint(made)

    def about(self, kind: Kind) -> list[tuple[Rule, str]]:
        return [(self.rules[f.policy, f.rule][1], f.message) for f in self.findings if f.kind is kind]

    def other(self, message: str) -> tuple[bool, Rule]:
        """The rule that a message names."""
        number, name = message.partition("rule ")[2].split(" ")[0], message.split("`")[1]
        return self.rules[name, int(number)]


@pytest.mark.parametrize("options", [STRICT, ISTIO], ids=["strict", "istio"])
def test_no_request_contradicts_a_finding(options: Options) -> None:
    seen: dict[Kind, int] = dict.fromkeys(Kind, 0)
    for seed in range(_SETS):
        shapes = Shapes(Random(f"lint {options.semantics} {seed}"), strict=options.strict)
        documents = _documents(shapes, shapes.random.choice((4, 12, 40)))
        claims = _Claims(documents, options)
        for finding in claims.findings:
            seen[finding.kind] += 1
        every = [rule for document in documents for rule in document["spec"]["rules"]]
        for _ in range(_REQUESTS):
            draft = shapes.aimed(every)
            if _possible(draft.names, strict=options.strict):
                _check(claims, Inputs(draft.request(), draft.identity(), options))
    assert min(seen[kind] for kind in (Kind.NEVER_MATCHES, Kind.SHADOWED, Kind.DUPLICATE)) > 20, seen


def _check(claims: _Claims, inputs: Inputs) -> None:
    sides = {id(rule): deny for deny, rule in claims.rules.values()}
    for rule, message in claims.about(Kind.NEVER_MATCHES):
        assert not rule.holds(inputs, sides[id(rule)]), message
    for rule, message in claims.about(Kind.SHADOWED):
        _, other = claims.other(message)
        assert not rule.holds(inputs, False) or other.holds(inputs, True), message
    for rule, message in claims.about(Kind.DUPLICATE):
        deny, other = claims.other(message)
        assert rule.holds(inputs, deny) == other.holds(inputs, deny), message

"""The compiled, indexed table decides like the reference evaluator: same verdict, same policy, same rule."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.property.policy_shapes import SHAPES, Draft, Shapes
from tests.property.reference_evaluator import Case, decide
from tests.support.policies import ISTIO, STRICT, table
from zta_authz.model.options import Options, Workload
from zta_authz.pdp.decide import combine
from zta_authz.policy.rules.inputs import Inputs

_SETS = 60
_REQUESTS = 12


def _options(random: Random, options: Options) -> Options:
    aliases = random.choice(((), ("old-td",), ("old-td", "td2")))
    workload = Workload("default", {"app": "web"}, random.choice(("cluster.local", "td1")), aliases)
    return replace(
        options,
        workload=workload,
        use_remote_address=random.random() < 0.3,
        xff_num_trusted_hops=random.choice((0, 0, 1)),
        default_allow=random.random() < 0.5,
    )


def _compare(documents: list[dict[str, Any]], drafts: list[Draft], options: Options) -> int:
    """Assert that both evaluators agree on every request; return how many of them a rule decided."""
    view = table(documents, options).default_view
    hits = 0
    for draft in drafts:
        case = Case(draft.request(), draft.identity(), options)
        decision = combine(view, Inputs(case.request, case.identity, options), default_allow=options.default_allow)
        rule = (decision.policy, decision.rule) if decision.policy else None
        assert (str(decision.verdict), rule) == decide(documents, case), _shown(documents, draft, options)
        hits += rule is not None
    return hits


def _shown(documents: list[dict[str, Any]], draft: Draft, options: Options) -> str:
    policies = [{**d["metadata"], **d["spec"]} for d in documents]
    return f"{options}\n{draft}\n" + "\n".join(json.dumps(policy) for policy in policies)


def _round(random: Random, base: Options, rules: int, requests: int) -> int:
    options = _options(random, base)
    shapes = Shapes(random, strict=options.strict)
    documents = shapes.documents(rules)
    every = [rule for document in documents for rule in document["spec"]["rules"]]
    return _compare(documents, [shapes.aimed(every) for _ in range(requests)], options)


@pytest.mark.parametrize("base", [STRICT, ISTIO], ids=["strict", "istio"])
@given(random=st.randoms(use_true_random=False), rules=st.integers(0, 12))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_few_rules_decide_like_the_reference_evaluator(base: Options, random: Random, rules: int) -> None:
    _round(random, base, rules, 3)


@pytest.mark.parametrize("base", [STRICT, ISTIO], ids=["strict", "istio"])
def test_many_rules_decide_like_the_reference_evaluator(base: Options) -> None:
    hits = 0
    for seed in range(_SETS):
        random = Random(f"{base.semantics} {seed}")
        hits += _round(random, base, random.choice((9, 20, 60, 150)), _REQUESTS)
    assert hits > _SETS * _REQUESTS // 2, "most requests are to be decided by a rule, or nothing is tested"


@pytest.mark.parametrize("base", [STRICT, ISTIO], ids=["strict", "istio"])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize("shape", SHAPES)
def test_rules_of_one_shape_decide_like_the_reference_evaluator(shape: str, action: str, base: Options) -> None:
    for seed in range(4):
        random = Random(f"{shape} {action} {base.semantics} {seed}")
        options = _options(random, base)
        shapes = Shapes(random, strict=options.strict)
        rules = [shapes.rule(shape) for _ in range(random.choice((20, 80)))]
        document = {"metadata": {"name": "p"}, "spec": {"action": action, "rules": rules}}
        document |= {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
        _compare([document], [shapes.aimed(rules) for _ in range(10)], options)

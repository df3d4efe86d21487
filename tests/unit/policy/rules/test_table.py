"""The rule table: one view per workload, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.policies import STRICT, identity, operation, policy, request, table
from zta_authz.model.options import Workload
from zta_authz.policy.rules import table as table_module
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    import pytest

    from zta_authz.policy.rules.table import RuleTable


def shops() -> RuleTable:
    """A policy for each of two namespaces, one for a label, and one for all workloads."""
    labelled = policy("web", operation(paths=["/web"]), namespace="a")
    labelled["spec"]["selector"] = {"matchLabels": {"app": "web"}}
    return table(
        [
            policy("a", operation(paths=["/a"]), namespace="a"),
            policy("b", operation(paths=["/b"]), namespace="b"),
            policy("all", operation(paths=["/all"]), namespace="istio-system"),
            labelled,
        ]
    )


def allowed(rule_table: RuleTable, workload: Workload) -> set[str]:
    view = rule_table.view(workload)
    paths = ("/a", "/b", "/all", "/web")
    return {path for path in paths if view.allow.first(Inputs(request(path=path), identity(), STRICT)) is not None}


def test_a_view_has_the_policies_that_select_its_workload() -> None:
    rule_table = shops()
    assert allowed(rule_table, Workload("a")) == {"/a", "/all"}
    assert allowed(rule_table, Workload("a", {"app": "web"})) == {"/a", "/all", "/web"}
    assert allowed(rule_table, Workload("b", {"app": "web"})) == {"/b", "/all"}
    assert allowed(rule_table, Workload("c")) == {"/all"}


def test_policies_are_ordered_by_namespace_and_name() -> None:
    assert [policy.ref.name for policy in shops().policies] == ["a/a", "a/web", "b/b", "istio-system/all"]
    unordered = table([policy("a", namespace="n-x"), policy("b", namespace="n")])
    assert [policy.ref.name for policy in unordered.policies] == ["n/b", "n-x/a"]


def test_a_view_is_made_once_and_shared_by_workloads_with_the_same_policies() -> None:
    rule_table = shops()
    assert rule_table.view(Workload("a")) is rule_table.view(Workload("a"))
    assert rule_table.view(Workload("c")) is rule_table.view(Workload("d", {"x": "y"}))
    assert rule_table.view(Workload("a")) is not rule_table.view(Workload("b"))


def test_the_number_of_views_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "MAX_VIEWS", 2)
    rule_table = shops()
    first = rule_table.view(Workload("a"))
    rule_table.view(Workload("b"))
    rule_table.view(Workload("c"))
    again = rule_table.view(Workload("a"))
    assert again is not first
    assert allowed(rule_table, Workload("a")) == {"/a", "/all"}
    assert len(rule_table._views) <= 2

"""Documents compile to one immutable snapshot, or all their faults are reported."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.support.policies import ISTIO, STRICT, operation, policy, snapshot
from zta_authz.errors import DocumentErrors
from zta_authz.model.options import Gateway, NamedWorkload, Options, Workload
from zta_authz.pdp.snapshot import SourceText, compile_snapshot

ONE = json.dumps(policy("one", operation(methods=["GET"]), {}))
TWO = json.dumps(policy("two", {}))


def test_a_snapshot_names_its_sources_and_counts_its_rules() -> None:
    compiled = snapshot(ONE, TWO)
    assert compiled.sources == ("a.yaml", "b.yaml")
    assert compiled.table.rule_count == 3
    assert compiled.warnings == ()


def test_the_digest_covers_texts_names_and_options() -> None:
    first = snapshot(ONE, TWO).digest
    assert len(first) == 64
    assert snapshot(ONE, TWO).digest == first
    others = {
        snapshot(TWO, ONE).digest,
        snapshot(ONE).digest,
        snapshot(ONE + " ", TWO).digest,
        snapshot(ONE, TWO, options=ISTIO).digest,
        snapshot(ONE, TWO, options=replace(STRICT, workload=Workload(labels={"a": "b"}))).digest,
        compile_snapshot([SourceText("x.yaml", ONE), SourceText("b.yaml", TWO)], STRICT).digest,
    }
    assert first not in others
    assert len(others) == 6


def test_the_digest_covers_the_boundaries_of_texts() -> None:
    texts = [SourceText("a", ONE), SourceText("b", TWO)]
    moved = [SourceText("a", f"{ONE}\n---\n{TWO}")]
    assert compile_snapshot(texts, STRICT).digest != compile_snapshot(moved, STRICT).digest


def test_a_set_with_a_fault_is_not_loaded_and_all_faults_are_reported() -> None:
    bad = json.dumps(policy("bad", operation(ports=["x"], paths=["{*}"])))
    with pytest.raises(DocumentErrors) as raised:
        snapshot(ONE, bad, "[", options=STRICT)
    assert [fault.source for fault in raised.value.faults] == ["b.yaml", "b.yaml", "c.yaml"]


def test_warnings_do_not_prevent_loading() -> None:
    compiled = snapshot(json.dumps(policy("c", {}, action="CUSTOM")), ONE)
    assert [warning.source for warning in compiled.warnings] == ["a.yaml"]
    assert compiled.table.rule_count == 2


def test_a_snapshot_without_sources_is_empty() -> None:
    compiled = compile_snapshot([], STRICT)
    assert (compiled.table.rule_count, compiled.sources) == (0, ())


ELSEWHERE = (
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: elsewhere}\n"
    "spec: {action: DENY, rules: [{}]}\n---\n"
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: b, namespace: shop}\n"
    "spec: {selector: {matchLabels: {app: orders}}, rules: [{}]}\n"
)
ORDERS = Workload("shop", {"app": "orders"})


@pytest.mark.parametrize(
    ("options", "idle"),
    [
        (Options(), "2 of 2 policies select no workload of the settings (namespace `default`, no labels)"),
        (Options(workload=ORDERS), "1 of 2 policies select no workload of the settings (namespace `shop`, app=orders)"),
        (
            Options(workloads=(NamedWorkload("spiffe://td/x", ORDERS),)),
            "1 of 2 policies select no workload of the settings (those of `workloads`)",
        ),
        (Options(gateways=(Gateway("unix", ("*",)),)), ""),
        (Options(workload=ORDERS, root_namespace="elsewhere"), ""),
    ],
)
def test_policies_that_select_no_workload_are_reported(options: Options, idle: str) -> None:
    notes = compile_snapshot([SourceText("p.yaml", ELSEWHERE)], options).notes
    assert [note.message.partition(" and decide nothing: ")[0] for note in notes] == ([idle] if idle else [])


@pytest.mark.parametrize(("namespace", "reported"), [("istio-system", False), ("default", True)])
def test_policies_for_the_administrator_are_not_reported(namespace: str, reported: bool) -> None:
    text = (
        "apiVersion: zta.dev/v1\nkind: AccessPolicy\n"
        f"metadata: {{name: a, namespace: {namespace}}}\n"
        "spec: {selector: {matchLabels: {app: zta-admin}}, rules: [{}]}\n"
    )
    assert bool(compile_snapshot([SourceText("p.yaml", text)], Options()).notes) is reported

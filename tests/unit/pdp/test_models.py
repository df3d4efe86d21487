"""Which models select a workload: the most specific one, whatever the order of the files."""

from __future__ import annotations

import pytest

from tests.support.policies import faults, snapshot
from zta_authz.model.options import Options, Workload
from zta_authz.pdp import models as module
from zta_authz.policy.rules.fact_reader import NO_MODELS


def model(name: str, namespace: str, labels: str = "") -> str:
    selector = f"  selector: {{matchLabels: {{{labels}}}}}\n" if labels else ""
    metadata = f"metadata: {{name: {name}, namespace: {namespace}}}\n"
    return f"apiVersion: zta.dev/v1\nkind: TrustModel\n{metadata}spec:\n{selector}  reverify: 1m\n"


EVERYWHERE = model("everywhere", "istio-system")
OWN = model("own", "shop")
LABELLED = model("labelled", "shop", "app: cart")


@pytest.mark.parametrize(
    ("workload", "name"),
    [
        (Workload(namespace="other"), "istio-system/everywhere"),
        (Workload(namespace="shop"), "shop/own"),
        (Workload(namespace="shop", labels={"app": "cart"}), "shop/labelled"),
    ],
)
def test_the_most_specific_model_applies(workload: Workload, name: str) -> None:
    for texts in ((EVERYWHERE, OWN, LABELLED), (LABELLED, OWN, EVERYWHERE)):
        trust = snapshot(*texts).models.select(workload).trust
        assert getattr(trust, "name", None) == name


def test_no_model_selects_a_workload_of_another_namespace() -> None:
    assert snapshot(OWN).models.select(Workload(namespace="other")).trust is None


def test_without_models_there_is_nothing_to_select() -> None:
    models = snapshot(
        "apiVersion: zta.dev/v1\nkind: RevocationList\nmetadata: {name: a}\nspec: {subjects: [{subject: x, issuer: z}]}\n"
    ).models
    assert models.is_empty
    assert models.select(Workload()) is NO_MODELS


@pytest.mark.parametrize(
    "texts",
    [
        (OWN, model("twin", "shop")),
        (LABELLED, model("b", "shop", "app: cart")),
        (LABELLED, model("b", "shop", "tier: x")),
    ],
)
def test_two_models_of_which_neither_is_more_specific_are_a_fault(texts: tuple[str, str]) -> None:
    assert "may select the same workload" in "\n".join(faults(*texts))


def test_two_models_for_different_workloads_are_none() -> None:
    assert faults(LABELLED, model("b", "shop", "app: till"), OWN, EVERYWHERE) == []


def test_selections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SELECTIONS", 2)
    table = snapshot(OWN, options=Options()).models
    for number in range(5):
        assert table.select(Workload(namespace=f"n{number}")).trust is None
    assert isinstance(table, module.CompiledModels)
    assert len(table._selected) <= 2

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.policies import snapshot
from tests.support.trust import MODEL
from zta_authz.cli import main
from zta_authz.model.documents import Position
from zta_authz.pdp.models import CompiledModels
from zta_authz.policy.documents.reader import read_all

if TYPE_CHECKING:
    import pytest

    from zta_authz.model.trust_documents import TrustModelSpec
    from zta_authz.trust.assessment import CompiledTrustModel

NOWHERE = Position("", 0, 0)


def spec_of(text: str) -> TrustModelSpec:
    (spec,) = read_all([("x", text)], "default", [], [], lambda _: None).trust_models
    components = tuple(
        replace(component, signals=tuple(replace(signal, position=NOWHERE) for signal in component.signals))
        for component in spec.components
    )
    return replace(spec, name="x", position=NOWHERE, components=components)


def compiled(text: str) -> CompiledTrustModel:
    models = snapshot(text).models
    assert isinstance(models, CompiledModels)
    return models.trust_models[0]


def parts(model: CompiledTrustModel) -> list[object]:
    """What a model computes with, without its functions."""
    signals = [
        (component.name, component.weight, component.floor, component.assume, s.name, s.points, s.caps, s.reads)
        for component in model.components
        for s in component.signals
    ]
    return [signals, model.thresholds, model.sessions, model.reverify, model.resource_weight]


def test_the_printed_model_loads_and_compiles_to_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trust", "default"]) == 0
    printed = capsys.readouterr().out
    empty = MODEL + "spec: {}\n"
    assert spec_of(printed) == spec_of(empty)
    assert parts(compiled(printed)) == parts(compiled(empty))


def test_nothing_of_the_printed_model_is_left_to_the_reader(capsys: pytest.CaptureFixture[str]) -> None:
    main(["trust", "default"])
    printed = capsys.readouterr().out
    for number in re.finditer(r"(?<=[ -])\d+", printed):
        if number.start() > printed.index("spec:"):
            changed = printed[: number.start()] + str(int(number[0]) + 1) + printed[number.end() :]
            assert spec_of(changed) != spec_of(printed), f"{number} is written but not read"


def test_it_says_how_to_leave_out_what_nothing_measures(capsys: pytest.CaptureFixture[str]) -> None:
    main(["trust", "default"])
    document = capsys.readouterr().out
    assert "every request has the level DENY until you write\n# `behavior: {assume: 100}`" in document
    behavior = document.index("    behavior:")
    changed = document[:behavior] + "    behavior: {assume: 100}\n"
    assert parts(compiled(changed)) != parts(compiled(document))

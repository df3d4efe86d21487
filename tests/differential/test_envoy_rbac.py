"""Our reading of Istio's documents against a real Envoy that enforces them: a fixed sample, and every past mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.differential.aim import requests_for
from tests.differential.case import Case
from tests.differential.compare import compare
from tests.differential.envoy_runner import envoy_binary
from tests.differential.generator import policy_set
from tests.differential.run import Tally, describe

_SEED = 20260729
_SETS = 250
_REQUESTS = 10
_REGRESSIONS = Path(__file__).with_name("regressions.yaml")


@pytest.fixture(scope="module")
def binary() -> Path:
    found = envoy_binary()
    if found is None:
        pytest.skip("no Envoy: `make setup` installs one, or ZTA_ENVOY names one")
    return found


def _regressions() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = yaml.safe_load(_REGRESSIONS.read_text())
    return cases


async def test_our_verdict_is_envoys_on_a_fixed_sample_of_policies_and_requests(binary: Path) -> None:
    sets = [policy_set(_SEED, number) for number in range(_SETS)]
    tally = Tally()
    for results in await compare(binary, [(policies, requests_for(policies, _SEED, _REQUESTS)) for policies in sets]):
        tally.add(results)
    assert not tally.disagreements, "\n".join(describe(result) for result in tally.disagreements[:3])
    assert tally.answers["200 allowed"] > 600, "the sample hardly allows anything"
    assert tally.answers["403 denied"] > 600, "the sample hardly denies anything"
    assert tally.answers["401 denied"] > 50, "the sample hardly has a bad token"


async def test_every_disagreement_ever_found_stays_settled(binary: Path) -> None:
    kept = _regressions()
    cases = [Case.read(data) for data in kept]
    asked = await compare(binary, [(case.policies, [case.request]) for case in cases])
    wrong = []
    for data, (result,) in zip(kept, asked, strict=True):
        envoys = result.outcome.allowed is (data["verdict"] == "allow")
        refused = data.get("ours")
        ours = result.agrees if refused is None else (result.ours is False and result.reason == refused)
        if not (envoys and ours):
            wrong.append(f"{data['name']}\n{describe(result)}")
    assert not wrong, "\n".join(wrong)


def test_on_purpose_we_only_ever_refuse_more() -> None:
    assert [data["name"] for data in _regressions() if "ours" in data and data["verdict"] != "allow"] == []


def test_the_same_seed_makes_the_same_sets_and_requests() -> None:
    first, second = policy_set(_SEED, 3), policy_set(_SEED, 3)
    assert first == second
    assert requests_for(first, _SEED, 5) == requests_for(second, _SEED, 5)


def test_a_case_written_to_yaml_reads_back_as_it_was() -> None:
    policies = policy_set(_SEED, 5)
    for request in requests_for(policies, _SEED, 20):
        case = Case(policies, request)
        assert Case.read(yaml.safe_load(yaml.safe_dump(case.data()))) == case

"""Assessments: the published formula to the hundredth, and what the floors, caps and demands add to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.trust import DEVICE, NETWORK, USER, inputs, trust_model
from zta_authz.model.facts import ABSENT, Fact, Unknown, known
from zta_authz.model.trust import TrustLevel

SEED = "  seedCompatible: true\n  allowedCountries: [DE]\n  components: {behavior: {assume: 100}}\n"
BAD_DEVICE = dict.fromkeys(DEVICE, False)


def test_the_seeds_worked_example_gives_91() -> None:
    assessment = trust_model(SEED).assess(inputs(resource="confidential"))
    assert (assessment.score, assessment.level) == (9100, TrustLevel.HIGH)
    assert (assessment.session_seconds, assessment.reverify_seconds) == (7200, 300)


def test_the_seeds_formula_hides_a_device_without_any_point() -> None:
    assessment = trust_model(SEED).assess(inputs(device=BAD_DEVICE, resource="internal"))
    assert (assessment.score, assessment.level) == (7050, TrustLevel.MEDIUM)
    assert assessment.components["device"] == 0


def test_the_default_floors_refuse_a_device_without_any_point() -> None:
    assessment = trust_model().assess(inputs(device=BAD_DEVICE, resource="internal"))
    assert assessment.level is TrustLevel.DENY
    assert assessment.capped_by == ("floor device",)
    assert assessment.session_seconds == 0


@pytest.mark.parametrize(
    ("resource", "score"),
    [("public", 10000), ("internal", 9550), ("confidential", 9100), ("restricted", 8800), ("", 9250), ("x", 9250)],
)
def test_the_seeds_formula_averages_the_resources_class(resource: str, score: int) -> None:
    assert trust_model(SEED).assess(inputs(resource=resource)).score == score


def test_a_request_with_every_fact_good_loses_nothing_whatever_its_resource() -> None:
    assessment = trust_model().assess(inputs(resource="restricted"))
    assert (assessment.score, assessment.level, assessment.lost, assessment.capped_by) == (10000, 3, (), ())
    assert assessment.model == "default/m"


@pytest.mark.parametrize(
    ("user", "lost"),
    [
        ({**USER, "amr": ["pwd"]}, {"noMfa": 3000}),
        ({**USER, "amr": ["mfa"]}, {}),
        ({**USER, "amr": "mfa"}, {"noMfa": 3000}),
        ({**USER, "account_created_at": "2027-01-14T00:00:00Z"}, {"newAccount": 2000}),
        ({**USER, "account_created_at": "2020-01-14T00:00:00"}, {"newAccount": 2000}),
        ({**USER, "account_created_at": "2020-01-14T00:00:00+01:00"}, {}),
        ({**USER, "account_created_at": 9e12}, {"newAccount": 2000}),
        ({**USER, "account_created_at": 10**400}, {"newAccount": 2000}),
        ({**USER, "account_created_at": -(10**400)}, {"newAccount": 2000}),
        ({**USER, "account_created_at": float("-inf")}, {"newAccount": 2000}),
        ({**USER, "account_created_at": float("nan")}, {"newAccount": 2000}),
        ({**USER, "account_created_at": True}, {"newAccount": 2000}),
        ({**USER, "security_violations": 2}, {"violations": 2000}),
        ({**USER, "security_violations": 9}, {"violations": 4000}),
        ({**USER, "security_violations": -1}, {"violations": 4000}),
        ({**USER, "security_violations": "none"}, {"violations": 4000}),
        ({}, {"noMfa": 3000, "newAccount": 2000, "violations": 4000}),
        (None, {"noMfa": 3000, "newAccount": 2000, "violations": 4000}),
    ],
)
def test_what_the_users_token_says_costs_points(user: dict[str, object] | None, lost: dict[str, int]) -> None:
    assessment = trust_model().assess(inputs(user=user))
    assert {loss.signal: loss.points for loss in assessment.lost} == lost
    assert assessment.components["user"] == 10000 - sum(lost.values())


@pytest.mark.parametrize("fact", [known(False), ABSENT, Fact(None, Unknown.STALE), Fact(None, Unknown.CONFLICTING)])
def test_an_unknown_field_of_the_device_costs_what_a_bad_one_costs(fact: Fact) -> None:
    assessment = trust_model().assess(inputs(device={**DEVICE, "encrypted": fact}))
    assert [(loss.signal, loss.points, loss.fact) for loss in assessment.lost] == [("unencrypted", 3000, fact)]


def test_a_device_that_no_inventory_knows_loses_every_point() -> None:
    assert trust_model().assess(inputs(device=None)).components["device"] == 0


def test_a_corporate_address_loses_nothing() -> None:
    corporate = replace(NETWORK, corporate=known(True), country=ABSENT, asn=ABSENT, anonymous=ABSENT, reputation=ABSENT)
    assert trust_model().assess(inputs(network=corporate)).components["network"] == 10000


@pytest.mark.parametrize(
    ("change", "signal"),
    [
        ({"country": known("KP")}, "countryNotAllowed"),
        ({"country": ABSENT}, "countryNotAllowed"),
        ({"reputation": known(49)}, "badReputation"),
        ({"reputation": ABSENT}, "badReputation"),
        ({"anonymous": known(True)}, "anonymousNetwork"),
        ({"anonymous": ABSENT, "corporate": ABSENT}, "anonymousNetwork"),
    ],
)
def test_what_is_known_of_the_address_costs_points(change: dict[str, Fact], signal: str) -> None:
    assessment = trust_model().assess(inputs(network=replace(NETWORK, **change)))
    assert [loss.signal for loss in assessment.lost] == [signal]


def test_behavior_that_nothing_measures_loses_every_point_unless_the_operator_assumes_a_score() -> None:
    spec = "  allowedCountries: [DE]\n"
    assert trust_model(spec).assess(inputs()).level is TrustLevel.DENY
    assert (
        trust_model(spec + "  components: {behavior: {assume: 40}}\n").assess(inputs()).components["behavior"] == 4000
    )


def test_a_cap_holds_the_level_down_whatever_the_score() -> None:
    spec = (
        MEASURED_DEVICE + "      - {name: unmanaged, points: -1, caps: LOW}\n"
        "      - {name: other, when: 'claims.team == \"x\"', points: -1, caps: MEDIUM}\n"
    )
    model = trust_model(spec)
    unmanaged = model.assess(inputs(user={**USER, "team": "y"}, device={"managed": False}))
    assert (unmanaged.level, unmanaged.capped_by) == (TrustLevel.LOW, ("signal unmanaged",))
    unknown = model.assess(inputs(device={"managed": True}))
    assert (unknown.level, unknown.capped_by) == (TrustLevel.MEDIUM, ("signal other",))
    assert model.assess(inputs(user={**USER, "team": "y"}, device={"managed": True})).level is TrustLevel.HIGH


MEASURED_DEVICE = """  allowedCountries: [DE]
  components:
    behavior: {assume: 100}
    device:
      signals:
"""


def test_a_score_never_rounds_up_to_the_next_level() -> None:
    spec = "  components: {user: {weight: 1, floor: 0}, device: {weight: 0}, network: {weight: 0}, behavior: {weight: 0}}\n"
    spec += "  levels: {LOW: 40, MEDIUM: 61}\n"
    assessment = trust_model(spec).assess(inputs(user={**USER, "security_violations": 4}, network=NETWORK))
    assert (assessment.score, trust_model(spec).level_of(assessment.score)) == (6000, TrustLevel.LOW)


def test_a_model_with_a_condition_is_asked_each_time() -> None:
    spec = MEASURED_DEVICE + "      - {name: night, when: 'now > timestamp(\"2027-01-15T08:00:01Z\")', points: -5}\n"
    model = trust_model(spec)
    good = inputs()
    assert model.assess(good).lost == ()
    good.now += 5
    good.conditions.values.clear()
    good.conditions.activations.clear()
    assert [loss.signal for loss in model.assess(good).lost] == ["night"]

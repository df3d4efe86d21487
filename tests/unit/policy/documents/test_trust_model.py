"""TrustModel documents: what they say, what they leave to the default model, and every fault at its place."""

from __future__ import annotations

import pytest

from tests.support.policies import faults
from tests.support.trust import MODEL, trust_model
from zta_authz.model.trust import TrustLevel


def test_an_empty_model_has_the_published_numbers_and_a_floor_for_each_component() -> None:
    model = trust_model("")
    assert [(c.name, c.weight, c.floor, c.assume) for c in model.components] == [
        ("user", 25, 4000, None), ("device", 25, 4000, None), ("network", 15, 4000, None), ("behavior", 20, 4000, None),
    ]  # fmt: skip
    assert model.thresholds == ((8000, TrustLevel.HIGH), (6000, TrustLevel.MEDIUM), (4000, TrustLevel.LOW))
    assert (model.sessions[TrustLevel.MEDIUM], model.reverify) == (3600, 300)


def test_a_model_may_set_everything() -> None:
    model = trust_model("""
  levels: {LOW: 30, MEDIUM: 50, HIGH: 90}
  sessions: {HIGH: 15m}
  reverify: 1m
  components:
    user:
      weight: 60
      floor: 20
      signals:
      - {name: noMfa, points: -50, caps: MEDIUM}
      - {name: strikes, count: {claim: risk.strikes}, points: -5, most: -20}
      - {name: young, claimAge: {claim: created, below: 24h}, points: -10}
      - {name: contractor, when: 'claims.employment == "contractor"', points: -15}
    device: {weight: 0}
""")
    user, device, *_ = model.components
    assert (user.weight, user.floor, device.weight) == (60, 2000, 0)
    assert [signal.name for signal in user.signals] == ["noMfa", "strikes", "young", "contractor"]
    assert (model.thresholds[0], model.sessions[TrustLevel.HIGH], model.reverify) == ((9000, TrustLevel.HIGH), 900, 60)
    assert model.sessions[TrustLevel.LOW] == 1800


SIGNALS = "  components:\n    user:\n      signals:\n      - "


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("  score: 1\n", "unknown field `score`"),
        ("  components: {mood: {}}\n", "unknown field `mood`"),
        ("  components: {user: {weight: 101}}\n", "`weight` is not a whole number from 0 to 100"),
        ("  components: {user: {weight: '5'}}\n", "`weight` is not a whole number from 0 to 100"),
        ("  components: {user: {assume: 50, signals: [{name: noMfa, points: -1}]}}\n", "both `assume` and `signals`"),
        ("  components: {user: {weight: 0}, device: {weight: 0}, network: {weight: 0}, behavior: {weight: 0}}\n", "every component has weight 0"),
        (SIGNALS + "{name: noMfa, points: 30}\n", "`points` is not a whole number from -100 to -1"),
        (SIGNALS + "{name: noMfa}\n", "a signal has no `points`"),
        (SIGNALS + "{points: -5}\n", "a signal has no `name`"),
        (SIGNALS + "{name: '1', points: -5}\n", "`1` is not a signal's name"),
        (SIGNALS + "{name: mood, points: -5}\n", "signal `mood` does not say what it looks at"),
        (SIGNALS + "{name: unmanaged, points: -5}\n", "signal `unmanaged` does not say what it looks at"),
        (SIGNALS + "{name: a, when: 'true', count: {claim: a}, points: -5}\n", "signal `a` has `when` and `count`"),
        (SIGNALS + "{name: a, when: 'claims.x', points: -5}\n", "signal `a`, condition line 1 column 1"),
        (SIGNALS + "{name: a, when: 'true', points: -5, most: -9}\n", "`most` without `count`"),
        (SIGNALS + "{name: a, when: 'true', points: -5, caps: HIGH}\n", "`HIGH` is not a level that can cap"),
        (SIGNALS + "{name: a, claimAge: {below: 5m}, points: -5}\n", "`claimAge` has no `claim`"),
        (SIGNALS + "{name: a, claimAge: {claim: x}, points: -5}\n", "`claimAge` has no `below`"),
        (SIGNALS + "{name: noMfa, points: -5}\n      - {name: noMfa, points: -6}\n", "duplicate signal `noMfa` (first at line 8)"),
        ("  levels: {LOW: 60, MEDIUM: 60}\n", "`levels` do not rise from LOW to HIGH"),
        ("  levels: {DENY: 10}\n", "unknown field `DENY`"),
        ("  sessions: {LOW: 90}\n", "`LOW` has the integer `90`"),
        ("  sessions: {LOW: 1500ms}\n", "`LOW` is not a whole number of seconds"),
        ("  sessions: {LOW: 10ms}\n", "`LOW` is not a whole number of seconds"),
        ("  reverify: 1ms\n", "`reverify` is not a whole number of seconds"),
        ("  allowedCountries: [de]\n", "`de` in `allowedCountries` is not a country code"),
        ("  leastReputation: -1\n", "`leastReputation` is not a whole number from 0 to 100"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_a_fault(spec: str, message: str) -> None:
    assert message in "\n".join(faults(MODEL + "spec:\n" + spec))


def test_more_signals_than_the_limit_are_a_fault() -> None:
    signals = "".join(f"      - {{name: s{n}, when: 'true', points: -1}}\n" for n in range(33))
    assert "33 signals, more than the limit of 32" in "\n".join(
        faults(MODEL + "spec:\n  components:\n    user:\n      signals:\n" + signals)
    )

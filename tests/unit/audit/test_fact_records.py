"""Records show the facts that a decision rests on, bounded and masked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
from msgspec import structs

from tests.support.check_requests import DECISION_ID, allow, attributes
from tests.support.facts import DEVICE, FACTS, TRUST
from tests.support.trust import NETWORK, inputs, trust_model
from zta_authz.audit.lines import LineEncoder
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import encode_line, make_record
from zta_authz.audit.sinks import capture
from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import Fact, Unknown, known
from zta_authz.model.trust import LostPoints

SCHEMA = json.loads((Path(__file__).resolve().parents[3] / "docs" / "decision-record.schema.json").read_text())


def recorded(facts: DecisionFacts | None, *rules: MaskRule) -> dict[str, Any]:
    """The line, as the schema allows it, of an allow with these facts."""
    pending = capture(attributes(), structs.replace(allow(), facts=facts), DECISION_ID, 1_800_000_000.0)
    line = LineEncoder(Masker(rules)).line(pending)
    if not rules:
        assert line == encode_line(make_record(pending))
    fields: dict[str, Any] = json.loads(line)
    jsonschema.Draft202012Validator(SCHEMA).validate(fields)
    return fields


def test_every_fact_that_was_read_is_in_the_record() -> None:
    fields = recorded(FACTS)
    assert fields["trust"] == {
        "model": "default/m",
        "score": 70.5,
        "level": "MEDIUM",
        "components": {"user": 100.0, "device": 40.0},
        "lost": [{"component": "device", "signal": "unencrypted", "points": 30.0, "state": "absent"}],
        "capped_by": ["floor network"],
        "signals": {},
    }
    assert fields["device"] == {
        "id": "laptop-1",
        "inventory": "default/fleet",
        "identified_by": "certificate",
        "fields": {"managed": True, "os": "macOS"},
        "unknown": {"encrypted": "absent"},
    }
    assert fields["network"] == {
        "country": "DE",
        "asn": 64500,
        "anonymous": False,
        "reputation": None,
        "corporate": None,
        "unknown": {"reputation": "stale", "corporate": "absent"},
    }
    assert fields["resource_class"] == "internal"


def test_the_state_of_every_signal_is_recorded_by_what_it_reads() -> None:
    model = trust_model(
        "  allowedCountries: [FR, DE]\n  components:\n    behavior: {assume: 100}\n    user:\n      signals:\n"
        "      - {name: noMfa, points: -30}\n"
        "      - {name: young, claimAge: {claim: since, below: 36h}, points: -5}\n"
        "      - {name: strikes, count: {claim: risk.strikes}, points: -10}\n"
        "      - {name: intern, when: 'claims.kind == \"intern\"', points: -5}\n"
    )
    user = {"amr": ["pwd"], "risk": {"strikes": 10**15}, "kind": "staff"}
    network = replace(NETWORK, country=Fact(None, Unknown.STALE))
    trust = recorded(DecisionFacts(trust=model.assess(inputs(user, {"managed": True}, network))))["trust"]
    (condition,) = [name for name in trust["signals"] if name.startswith("when:")]
    assert trust["signals"] == {
        "noMfa": "on",
        "claimAge:since:129600": "absent",
        "count:risk.strikes": 1_000_000,
        condition: "off",
        "unmanaged": "off",
        "unencrypted": "absent",
        "noFirewall": "absent",
        "staleAntivirus": "absent",
        "unknownDevice": "off",
        "countryNotAllowed:DE,FR": "stale",
        "badReputation:50": "off",
        "anonymousNetwork": "off",
    }


def test_states_of_signals_are_bounded() -> None:
    components = [
        f"    {component}:\n      signals:\n"
        + "".join(
            f"      - {{name: s{number}, count: {{claim: {component}{'x' * 500}{number}}}, points: -1}}\n"
            for number in range(32)
        )
        for component in ("user", "device", "network")
    ]
    model = trust_model("  components:\n    behavior: {assume: 100}\n" + "".join(components))
    trust = recorded(DecisionFacts(trust=model.assess(inputs(None))))["trust"]
    assert len(trust["signals"]) == 64
    assert {len(name) for name in trust["signals"]} == {128}
    assert set(trust["signals"].values()) == {"absent"}


def test_facts_that_no_rule_read_are_null() -> None:
    for facts in (None, DecisionFacts()):
        fields = recorded(facts)
        assert [fields[name] for name in ("trust", "device", "network", "resource_class")] == [None, None, None, ""]


def test_facts_are_bounded() -> None:
    many = {f"field{number}": known("x" * 1000) for number in range(100)}
    lost = tuple(LostPoints("device", f"s{number}", 100, known(True)) for number in range(100))
    device = DEVICE.__class__("d" * 1000, "certificate", "i" * 1000, many)
    trust = TRUST.__class__("default/m", 0, TRUST.level, {}, lost)
    fields = recorded(DecisionFacts(device=device, trust=trust))
    assert len(fields["device"]["fields"]) == 32
    assert {len(value) for value in fields["device"]["fields"].values()} == {128}
    assert (len(fields["device"]["id"]), len(fields["device"]["inventory"]), len(fields["trust"]["lost"])) == (
        128,
        128,
        32,
    )


def test_a_device_that_is_no_text_does_not_break_the_line() -> None:
    device = DEVICE.__class__("ä\udc80\n", "certificate", "i", {"os": known("\u2028")})
    assert recorded(DecisionFacts(device=device))["device"]["id"] == "ä\\udc80\n"


def test_the_device_can_be_masked() -> None:
    fields = recorded(FACTS, MaskRule(Maskable.DEVICE, MaskAction.DROP))
    assert (fields["device"]["id"], fields["device"]["fields"]["os"]) == ("", "macOS")
    assert recorded(FACTS, MaskRule(Maskable.DEVICE, MaskAction.TRUNCATE))["device"]["id"] == "laptop-1"


def test_a_hidden_source_hides_where_it_is() -> None:
    assert recorded(FACTS, MaskRule(Maskable.SOURCE, MaskAction.DROP))["network"] is None
    assert recorded(FACTS, MaskRule(Maskable.SOURCE, MaskAction.TRUNCATE))["network"]["country"] == "DE"

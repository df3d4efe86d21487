"""docs/threat-model.md names existing settings and code, and a test for every threat."""

from __future__ import annotations

import re

from tests.docs.fences import ROOT, named_tests
from tests.test_project import setting_names
from zta_authz.settings import Settings

TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
ITEMS = [" ".join(item.split()) for item in re.findall(r"^- \*\*.*(?:\n  .*)*", TEXT, re.MULTILINE)]
THREATS = [item for item in ITEMS if " Where: " in item]


def test_every_threat_names_a_test() -> None:
    assert len(THREATS) >= 30
    assert [threat for threat in THREATS if not named_tests(threat.partition(" Tests: ")[2])] == []


def test_every_place_that_is_named_exists() -> None:
    places = [threat.partition(" Where: ")[2].partition(" Tests: ")[0] for threat in THREATS]
    names = {name for place in places for name in re.findall(r"`([^`]+)`", place)}
    paths = {name for name in names if "/" in name}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    settings = {*setting_names(), *Settings.model_fields, "require.token.bound", "audit.checkpoint"}
    assert sorted(names - paths - settings) == []


def test_every_attacker_of_the_boundaries_has_a_section() -> None:
    attackers = (
        "client",
        "compromised workload",
        "stranger",
        "compromised proxy",
        "writes policies",
        "key servers",
        "log",
    )
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert [attacker for attacker in attackers if not any(attacker in section for section in sections)] == []

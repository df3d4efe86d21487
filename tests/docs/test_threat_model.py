"""docs/threat-model.md names settings and code: they are there, and no threat goes without a test."""

from __future__ import annotations

import re

from tests.docs.fences import ROOT, named_tests
from tests.test_project import setting_names
from zta_authz.settings import Settings

TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
THREATS = [row for row in TEXT.splitlines() if row.count(" | ") == 4 and not row.startswith(("| ---", "| threat"))]


def test_every_threat_names_a_test() -> None:
    assert len(THREATS) >= 30
    assert [row for row in THREATS if not named_tests(row)] == []


def test_every_place_that_is_named_exists() -> None:
    columns = [row.split(" | ")[2] for row in THREATS]
    names = {name for column in columns for name in re.findall(r"`([^`]+)`", column)}
    paths = {name for name in names if "/" in name}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    settings = {*setting_names(), *Settings.model_fields, "require.token.bound", "audit.checkpoint"}
    assert sorted(names - paths - settings) == []


def test_every_attacker_of_the_boundaries_has_a_section() -> None:
    wanted = (
        "client",
        "compromised workload",
        "stranger",
        "compromised proxy",
        "writes policies",
        "key servers",
        "log",
    )
    sections = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    assert [each for each in wanted if not any(each in section for section in sections)] == []

"""docs/settings-reference.md is what the settings' model gives, and what it says of values is what the settings take."""

from __future__ import annotations

import re

from tests.docs.fences import ROOT
from tests.test_project import setting_names
from zta_authz.settings import load_settings
from zta_authz.settings.environment import variable_of
from zta_authz.settings.reference import parse_meanings, reference

MEANINGS = parse_meanings((ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))
PAGE = reference(MEANINGS)
ROWS = re.findall(
    r"^- \*\*`([a-z0-9_.]+)`\*\*\s+\(`(\w+)`\): .*(?:\n  .*)*?\n  Value: (.*)\. Default: (.*)\.$", PAGE, re.MULTILINE
)


def test_the_page_is_what_the_model_gives() -> None:
    written = (ROOT / "docs" / "settings-reference.md").read_text(encoding="utf-8")
    assert written == PAGE, "the settings have changed: run `make docs` and commit the page"


def test_every_setting_is_there_once_with_its_variable() -> None:
    assert sorted(name for name, *_ in ROWS) == sorted(setting_names())
    assert [name for name, variable, *_ in ROWS if variable != variable_of(tuple(name.split(".")))] == []


def test_every_setting_says_what_it_means() -> None:
    assert sorted(name for name, *_ in ROWS if not MEANINGS.get(name)) == []


def test_no_kind_of_value_is_left_without_words() -> None:
    assert [row for row in ROWS if not row[2].strip() or "None" in row[2]] == []


def test_a_default_that_is_shown_can_be_written_in_the_variable() -> None:
    sections = {"tls", "audit.checkpoint"}
    shown = {
        variable: default.strip("`")
        for name, variable, _, default in ROWS
        if default not in {"none", "required"}
        and not any(name.startswith(f"{section}.") for section in optional_sections())
    }
    assert sections <= optional_sections()
    assert len(shown) > 50
    assert load_settings(None, shown) == load_settings(None, {})


def optional_sections() -> set[str]:
    """Sections that are absent by default; naming one of their settings creates them."""
    optional = set()
    for name, *_ in ROWS:
        *sections, _leaf = name.split(".")
        value: object = load_settings(None, {})
        for step in sections:
            value = getattr(value, step)
            if value is None:
                optional.add(".".join(sections))
                break
    return optional

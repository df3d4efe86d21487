"""docs/reload.md and docs/settings.md name the settings that change live, and the settings of reloading with their defaults."""

from __future__ import annotations

import re

import pytest

from tests.docs.fences import ROOT
from tests.test_project import setting_names
from zta_authz.settings.live import LIVE
from zta_authz.settings.model import ReloadSettings

RELOAD = (ROOT / "docs" / "reload.md").read_text(encoding="utf-8")
SETTINGS = " ".join((ROOT / "docs" / "settings.md").read_text(encoding="utf-8").split())


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_]+\.[a-z_.]+)`", text))


@pytest.mark.parametrize(
    "sentence",
    [
        RELOAD.partition("## Settings that change live\n")[2].partition(" take effect when ")[0],
        SETTINGS.partition("a change needs a restart, except for ")[2].partition(", which take effect ")[0],
    ],
    ids=["reload.md", "settings.md"],
)
def test_the_settings_that_change_live_are_named_and_no_other(sentence: str) -> None:
    assert named(sentence) == set(LIVE)
    assert set(LIVE) <= set(setting_names())


def test_every_setting_of_reloading_is_on_the_page_and_its_times_are_the_defaults() -> None:
    words = set(re.findall(r"`(?:reload\.)?([a-z_]+)(?:: \w+)?`", RELOAD))
    assert set(ReloadSettings.model_fields) <= words
    both = ReloadSettings().poll_seconds + ReloadSettings().debounce_seconds
    assert f"`poll_seconds` + `debounce_seconds` ({both:g} s)" in " ".join(RELOAD.split())

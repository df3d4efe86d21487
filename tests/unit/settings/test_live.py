"""What is said of settings that change while the service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zta_authz.settings.live import LiveSettings
from zta_authz.settings.model import LogSettings, Settings

if TYPE_CHECKING:
    import pytest


class Changing:
    """Settings that a test changes, and what is said and taken of them."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        self._caplog = caplog
        self.taken: list[Settings] = []
        self.now = Settings()
        self._live = LiveSettings(self.now, lambda: self.now, self.taken.append)

    def change(self, **fields: Any) -> list[tuple[str, str, Any]]:
        self._caplog.clear()
        self.now = self.now.model_copy(update=fields)
        assert self._live.reread()
        return [(each.levelname, each.message, getattr(each, "settings", None)) for each in self._caplog.records]


RESTART = "changed settings need a restart"


def test_a_setting_that_went_back_warns_no_more(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    assert it.change(drain_seconds=3.0) == [("WARNING", RESTART, ["drain_seconds"])]
    assert it.change() == []
    assert it.change(drain_seconds=10.0) == [
        ("INFO", "the settings are those in force again; no restart is needed", None)
    ]
    assert it.change() == []


def test_all_that_waits_for_a_restart_is_named_whenever_something_changes(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    it.change(drain_seconds=3.0)
    assert it.change(workers=2) == [("WARNING", RESTART, ["drain_seconds", "workers"])]
    assert it.change(drain_seconds=10.0) == [("WARNING", RESTART, ["workers"])]


def test_live_settings_are_taken_and_are_no_reason_to_restart(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    assert it.change(log=LogSettings(level="debug")) == [("INFO", "settings taken", ["log.level"])]
    assert it.change(log=LogSettings(level="info")) == [("INFO", "settings taken", ["log.level"])]
    assert [each.log.level for each in it.taken] == ["debug", "info"]

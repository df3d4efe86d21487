"""What is logged and applied when settings change while the service runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zta_authz.settings.live import LiveSettings
from zta_authz.settings.model import LogSettings, Settings

if TYPE_CHECKING:
    import pytest


class Changing:
    """Settings that a test changes, and what is logged and applied."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        self._caplog = caplog
        self.applied: list[Settings] = []
        self.now = Settings()
        self._live = LiveSettings(self.now, lambda: self.now, self.applied.append)

    def change(self, **fields: Any) -> list[tuple[str, str, Any]]:
        self._caplog.clear()
        self.now = self.now.model_copy(update=fields)
        assert self._live.reread()
        return [
            (record.levelname, record.message, getattr(record, "settings", None)) for record in self._caplog.records
        ]


RESTART = "changed settings need a restart"


def test_a_setting_changed_back_logs_no_more_warnings(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    assert it.change(drain_seconds=3.0) == [("WARNING", RESTART, ["drain_seconds"])]
    assert it.change() == []
    assert it.change(drain_seconds=10.0) == [
        ("INFO", "the settings are those in force again; no restart is needed", None)
    ]
    assert it.change() == []


def test_every_change_logs_all_settings_that_wait_for_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    it.change(drain_seconds=3.0)
    assert it.change(workers=2) == [("WARNING", RESTART, ["drain_seconds", "workers"])]
    assert it.change(drain_seconds=10.0) == [("WARNING", RESTART, ["workers"])]


def test_live_settings_are_applied_and_need_no_restart(caplog: pytest.LogCaptureFixture) -> None:
    it = Changing(caplog)
    assert it.change(log=LogSettings(level="debug")) == [("INFO", "settings taken", ["log.level"])]
    assert it.change(log=LogSettings(level="info")) == [("INFO", "settings taken", ["log.level"])]
    assert [settings.log.level for settings in it.applied] == ["debug", "info"]

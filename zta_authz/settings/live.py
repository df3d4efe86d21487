"""The few settings that a running service takes over: those that change no decision and hold no resource."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zta_authz.errors import FaultsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.settings.model import Settings

LIVE: Final = ("log.level", "tracing.sample_ratio", "audit.sample_allows")

_LOG = logging.getLogger(__name__)


class LiveSettings:
    """`read` gives the settings as they stand now, `apply` puts the live ones of them in force."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], apply: Callable[[Settings], None]) -> None:
        self._started = settings
        self._last = settings
        self._read = read
        self._apply = apply

    def reread(self) -> bool:
        """Read again and apply what can be; say what needs a restart. False: there are faults, and nothing changes."""
        try:
            settings = self._read()
        except FaultsError as error:
            for fault in error.faults:
                _LOG.error("%s", fault)
            _LOG.error("settings refused, those of before stay", extra={"faults": len(error.faults)})
            return False
        changed = _changed(self._last, settings)
        applied = [name for name in changed if name in LIVE]
        if applied:
            self._apply(settings)
            _LOG.info("settings taken", extra={"settings": applied})
        if len(changed) > len(applied):
            self._tell_of_restart(settings)
        self._last = settings
        return True

    def _tell_of_restart(self, settings: Settings) -> None:
        """Settings changed that are not live: name all that differ from what the service started with."""
        waiting = [name for name in _changed(self._started, settings) if name not in LIVE]
        if waiting:
            _LOG.warning("changed settings need a restart", extra={"settings": waiting})
        else:
            _LOG.info("the settings are those in force again; no restart is needed")


def _changed(before: Settings, after: Settings) -> list[str]:
    """The dotted names of the fields that differ. Never their values: some are nobody's business."""
    old, new = _leaves(before.model_dump()), _leaves(after.model_dump())
    return sorted(name for name in old.keys() | new.keys() if old.get(name, ...) != new.get(name, ...))


def _leaves(section: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{prefix}{name}.") or {f"{prefix}{name}": {}}
        else:
            found[f"{prefix}{name}"] = value
    return found

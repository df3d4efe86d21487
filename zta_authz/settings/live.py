"""Settings that a running service reloads: those that affect no decision and hold no resource."""

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
    """Reloads settings: `read` loads the current ones, `apply` applies those that can change live."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], apply: Callable[[Settings], None]) -> None:
        self._started = settings
        self._last = settings
        self._read = read
        self._apply = apply

    def reread(self) -> bool:
        """Read the settings, apply the live ones, and log which others need a restart.

        Return False if they have faults; nothing changes then.
        """
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
            self._log_restart_needed(settings)
        self._last = settings
        return True

    def _log_restart_needed(self, settings: Settings) -> None:
        """Log the changed settings that are not live: all that differ from those at the start."""
        waiting = [name for name in _changed(self._started, settings) if name not in LIVE]
        if waiting:
            _LOG.warning("changed settings need a restart", extra={"settings": waiting})
        else:
            _LOG.info("the settings are those in force again; no restart is needed")


def _changed(before: Settings, after: Settings) -> list[str]:
    """Return the dotted names of the fields that differ; not their values, which may be secret."""
    old, new = _leaves(before.model_dump()), _leaves(after.model_dump())
    return sorted(name for name in old.keys() | new.keys() if old.get(name, ...) != new.get(name, ...))


def _leaves(section: dict[str, object], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{name}.") or {f"{prefix}{name}": {}}
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves

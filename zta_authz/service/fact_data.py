"""The data that facts come from, network data and device inventories: loaded at start, and followed while serving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from zta_authz.facts.devices import DeviceRefresher
from zta_authz.facts.refresher import NetworkRefresher
from zta_authz.policy_sources.pacing import freeze_gc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zta_authz.facts.background import Background
    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.facts import FactSlot
    from zta_authz.settings import Settings

REFUSED: Final = "refused"
STALE: Final = "stale"


class FactData:
    """Keeps network data and device inventories in `slot` up to date. Use it from the event loop's thread only."""

    def __init__(self, settings: Settings, slot: FactSlot, on_load: Callable[[bool], None]) -> None:
        """`on_load` is called after each later load: True if it was taken, False if a file was refused."""
        self._reload = settings.reload
        self._on_load = on_load
        self.networks = NetworkRefresher(settings.networks.sources(), slot, self._loaded)
        self._devices = DeviceRefresher(settings.facts.directory or "", slot, self._loaded)

    def load(self, inventories: Sequence[DeviceInventory]) -> None:
        """Load everything for the first time. Raises `SettingsErrors` with the faults of the first that has any."""
        self.networks.load()
        self._devices.load(inventories)

    def problems(self, now: float) -> dict[tuple[str, str], int]:
        """The number of files that are refused or too old at `now`, by source and problem; 0 without a problem."""
        problems = {("devices", REFUSED): self._devices.refused, ("devices", STALE): self._devices.stale(now)}
        problems["networks", REFUSED] = int(self.networks.refused)
        for source in self.networks.loaded:
            key = (source.name, STALE)
            problems[key] = problems.get(key, 0) + (not source.counts(now))
        return problems

    async def prepare(self, inventories: Sequence[DeviceInventory]) -> None:
        """Load the inventories of other policies before `follow`. The caller has exclusive use of the background."""
        await self._devices.prepare(inventories)

    def follow(self, inventories: Sequence[DeviceInventory]) -> None:
        """Use the inventories of other policies."""
        self._devices.follow(inventories)

    def start(self, background: Background) -> None:
        """Look for changed files from now on, and load them in `background`."""
        poll_seconds = self._reload.poll_seconds if self._reload.enabled else None
        self.networks.start(poll_seconds, background)
        self._devices.start(poll_seconds, background)

    def ask(self) -> None:
        """Look for changed files now, and load again what was refused."""
        self.networks.ask()
        self._devices.ask()

    async def close(self) -> None:
        """Stop looking for changes."""
        await asyncio.gather(self.networks.close(), self._devices.close())

    def _loaded(self, good: bool) -> None:
        self._on_load(good)
        freeze_gc()

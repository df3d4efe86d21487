"""Keeps the device inventories of the policies in force loaded, and follows their files.

Files are below one directory that the settings name: who may write a policy must not make the service read any other
file. A file that has become invalid is logged and counted, and the last good table stays in force and ages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os.path
from functools import partial
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault, SettingsErrors, collect_faults
from zta_authz.facts.background import PlainThread
from zta_authz.facts.device_files import MAX_INVENTORY_BYTES, parse_inventory
from zta_authz.facts.files import NO_FILE, read_file, stamp
from zta_authz.model.pace import no_pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from zta_authz.facts.background import Background
    from zta_authz.facts.device_table import Device, DeviceTable
    from zta_authz.facts.files import Stamp
    from zta_authz.model.device_documents import DeviceInventory, InventorySource
    from zta_authz.model.facts import FactSlot
    from zta_authz.model.pace import Pause

_LOG = logging.getLogger(__name__)
SETTING: Final = "facts.directory"
PREPARE_SECONDS: Final = 30.0


class DeviceTables:
    """A `DeviceView`. Immutable: by inventory (`namespace/name`) its table, and as what it was read."""

    __slots__ = ("tables",)

    def __init__(self, tables: Mapping[str, tuple[InventorySource, DeviceTable]]) -> None:
        self.tables = tables

    def find(self, inventory: str, source: InventorySource, identifier: str) -> Device | None:
        """The device that `inventory`, read as `source`, knows by `identifier`; None where it knows none."""
        held = self.tables.get(inventory)
        if held is None or (held[0] is not source and held[0] != source):
            return None
        return held[1].devices.get(identifier)


class DeviceRefresher:
    """Loads inventories into `slot`. Use it from the event loop's thread only."""

    def __init__(self, directory: str, slot: FactSlot, on_load: Callable[[bool], None]) -> None:
        """`directory` is "" where the settings name none. `on_load` is called after each load but the first."""
        self._directory = directory
        self._slot = slot
        self._on_load = on_load
        self._inventories: tuple[DeviceInventory, ...] = ()
        self._tables: dict[InventorySource, DeviceTable] = {}
        self._stamps: dict[InventorySource, Stamp] = {}
        self._refused: set[InventorySource] = set()
        self._dropped: list[DeviceTable] = []
        self._background: Background = PlainThread()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of devices by inventory."""
        return {name: table.size for name, (_, table) in self._by_name().items()}

    @property
    def refused(self) -> int:
        """The number of files whose newest version is refused, or was never read."""
        return len(self._refused)

    def stale(self, now: float) -> int:
        """The number of inventories with only stale devices, because the export has stopped."""
        tables = ((inventory, self._tables.get(inventory.source)) for inventory in self._inventories)
        return sum(
            table.newest is None or now - table.newest > inventory.posture_max_age
            for inventory, table in tables
            if table is not None
        )

    def load(self, inventories: Sequence[DeviceInventory]) -> None:
        """Load the inventories of the first policies. Raises `SettingsErrors` with every fault."""
        self._inventories = tuple(inventories)
        faults: list[Fault] = []
        for source in {inventory.source for inventory in self._inventories}:
            with collect_faults(faults):
                self._stamps[source] = self._stamp(source)
                self._tables[source] = _read(self._directory, source)
        if faults:
            raise SettingsErrors(faults)
        self._publish()

    async def prepare(self, inventories: Sequence[DeviceInventory]) -> None:
        """Load the tables of sources that are new before the policies that name them apply: then no device is unknown.

        Returns after `PREPARE_SECONDS` at the latest, because a reload may also revoke something. A file that could not
        be loaded until then is loaded and reported after `follow`. The caller has exclusive use of the background.
        """
        background = self._background
        new = {inventory.source for inventory in inventories} - self._tables.keys()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PREPARE_SECONDS):
                for source in new:
                    current = await asyncio.to_thread(self._stamp, source)
                    with contextlib.suppress(SettingsErrors):
                        read = partial(_read, self._directory, source, background.pause)
                        self._tables[source] = await background.run(read)
                        self._stamps[source] = current
                        self._refused.discard(source)

    def follow(self, inventories: Sequence[DeviceInventory]) -> None:
        """Take over the inventories of other policies. Tables of sources that are new are loaded soon."""
        self._inventories = tuple(inventories)
        sources = {inventory.source for inventory in self._inventories}
        self._dropped += [table for source, table in self._tables.items() if source not in sources]
        self._tables = {source: table for source, table in self._tables.items() if source in sources}
        self._stamps = {source: seen for source, seen in self._stamps.items() if source in sources}
        self._refused &= sources
        self._publish()
        self._wake.set()

    def start(self, poll_seconds: float | None, background: Background | None = None) -> None:
        """Look for changed files from now on: every `poll_seconds`, and when asked to. Load them in `background`."""
        self._background = background or self._background
        self._task = asyncio.get_running_loop().create_task(self._poll(poll_seconds), name="device inventories")

    def ask(self) -> None:
        """Look for changed files now, and load again those that were refused."""
        for source in self._refused:
            self._stamps.pop(source, None)
        self._wake.set()

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self, seconds: float | None) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            self._wake.clear()
            await self.refresh(seconds or 0.0)

    async def refresh(self, settle_seconds: float = 0.0) -> None:
        """Load each file that is new or has changed. One that is still being written is left for the next time."""
        while self._dropped:
            table = self._dropped.pop()
            async with self._background.exclusive():
                await self._release(table)
        for source in dict.fromkeys(inventory.source for inventory in self._inventories):
            current = await asyncio.to_thread(self._stamp, source)
            if source in self._tables and current == self._stamps.get(source):
                continue
            if current == self._stamps.get(source) and current == NO_FILE:
                continue
            if settle_seconds and source in self._tables:
                await asyncio.sleep(settle_seconds)
                if await asyncio.to_thread(self._stamp, source) != current:
                    continue
            await self._load(source, current)

    async def _load(self, source: InventorySource, current: Stamp) -> None:
        if source in self._refused and self._stamps.get(source) == current:
            return
        async with self._background.exclusive():
            before = self._tables.get(source)
            await self._replace(source, current)
            if before is not None and self._tables.get(source) is not before:
                await self._release(before)

    async def _release(self, table: DeviceTable) -> None:
        await self._background.run(partial(table.devices.release, self._background.pause))

    async def _replace(self, source: InventorySource, current: Stamp) -> None:
        self._stamps[source] = current
        self._refused.add(source)
        try:
            table = await self._background.run(partial(_read, self._directory, source, self._background.pause))
        except SettingsErrors as error:
            for fault in error.faults[:10]:
                _LOG.error("the device inventory is refused: %s", fault)
            self._on_load(False)
            return
        except Exception:  # noqa: BLE001  polling must go on
            _LOG.exception("loading a device inventory failed", extra={"file": source.file})
            self._on_load(False)
            return
        self._refused.discard(source)
        if any(inventory.source == source for inventory in self._inventories):
            self._tables[source] = table
            self._publish()
        self._on_load(True)
        details = {"file": source.file, "devices": table.size, "skipped": table.skipped}
        _LOG.info("device inventory taken", extra=details)

    def _stamp(self, source: InventorySource) -> Stamp:
        return stamp(os.path.join(self._directory, source.file)) if self._directory else NO_FILE

    def _by_name(self) -> dict[str, tuple[InventorySource, DeviceTable]]:
        return {
            inventory.full_name: (inventory.source, self._tables[inventory.source])
            for inventory in self._inventories
            if inventory.source in self._tables
        }

    def _publish(self) -> None:
        devices = DeviceTables(self._by_name()) if self._inventories else None
        self._slot.replace_devices(devices)


def read_tables(directory: str, inventories: Sequence[DeviceInventory]) -> dict[str, DeviceTable]:
    """The table of each inventory by `namespace/name`, once. Raises `SettingsErrors` with the faults of all files."""
    faults: list[Fault] = []
    tables: dict[str, DeviceTable] = {}
    for inventory in inventories:
        with collect_faults(faults):
            tables[inventory.full_name] = _read(directory, inventory.source)
    if faults:
        raise SettingsErrors(faults)
    return tables


def _read(directory: str, source: InventorySource, pause: Pause = no_pause) -> DeviceTable:
    path = _resolved(directory, source)
    content, _ = read_file(path, MAX_INVENTORY_BYTES, SETTING)
    return parse_inventory(path, content, source, pause)


def _resolved(directory: str, source: InventorySource) -> str:
    """The file's path, without links. Raises `SettingsErrors` if it is not below the directory."""
    if not directory:
        hint = f"set `{SETTING}`: documents may only name files below it"
        message = "a DeviceInventory names a file, and no directory is set"
        raise SettingsErrors([Fault(source.file, 0, 0, message, hint)])
    path = os.path.join(directory, source.file)
    root, resolved = os.path.realpath(directory), os.path.realpath(path)
    if os.path.commonpath((root, resolved)) != root:
        raise SettingsErrors([Fault(path, 0, 0, f"leads out of `{SETTING}`", "remove the link")])
    return resolved

"""Inventories follow their documents and files; only files below the directory are read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import NOW, inventory, record
from zta_authz.errors import SettingsErrors
from zta_authz.facts.background import PlainThread
from zta_authz.facts.devices import DeviceRefresher, DeviceTables
from zta_authz.model.facts import NO_FACTS, FactSlot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from zta_authz.model.device_documents import DeviceInventory

FLEET = inventory()


def write(path: Path, *names: str) -> None:
    path.write_text("\n".join(json.dumps(record(name, spiffe="")) for name in names))


def spoil(path: Path) -> None:
    path.write_text("{")


def of(file: str) -> DeviceInventory:
    return replace(FLEET, source=replace(FLEET.source, file=file))


def has(slot: FactSlot, device: str, inventory: DeviceInventory = FLEET) -> bool:
    view = slot.views.devices
    return view is not None and view.find("default/fleet", inventory.source, "id:" + device) is not None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "devices.jsonl", "a")
    return tmp_path / "devices.jsonl"


def refresher(file: Path, slot: FactSlot, loads: list[bool]) -> DeviceRefresher:
    return DeviceRefresher(str(file.parent), slot, loads.append)


async def test_a_changed_file_is_taken_and_an_invalid_one_is_not(file: Path) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([FLEET])
    assert (has(slot, "a"), devices.sizes, loads) == (True, {"default/fleet": 1}, [])
    await devices.refresh()
    assert loads == []
    write(file, "b", "c")
    await devices.refresh()
    assert (has(slot, "a"), has(slot, "b"), loads) == (False, True, [True])
    spoil(file)
    await devices.refresh()
    await devices.refresh()
    assert (has(slot, "b"), loads) == (True, [True, False])


async def test_inventories_of_new_policies_are_loaded_and_old_ones_go(file: Path) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([])
    assert slot.views is NO_FACTS
    devices.follow([FLEET])
    assert not has(slot, "a")
    await devices.refresh()
    assert (has(slot, "a"), loads) == (True, [True])
    devices.follow([of("other.jsonl")])
    await devices.refresh()
    assert not has(slot, "a")
    write(file.parent / "other.jsonl", "z")
    await devices.refresh()
    assert has(slot, "z", of("other.jsonl"))
    devices.follow([])
    assert slot.views.devices is None


async def test_a_prepared_source_is_in_force_together_with_the_policies_that_name_it(file: Path) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([FLEET])
    other = of("other.jsonl")
    write(file.parent / "other.jsonl", "b")
    await devices.prepare([other])
    assert (has(slot, "a"), has(slot, "b", other)) == (True, False)
    devices.follow([other])
    assert (has(slot, "a"), has(slot, "b", other)) == (False, True)
    await devices.refresh()
    assert (has(slot, "b", other), loads) == (True, [])  # it is not read twice
    write(file.parent / "other.jsonl", "c")
    await devices.refresh()
    assert (has(slot, "c", other), loads) == (True, [True])


async def test_a_source_that_cannot_be_prepared_is_reported_once_its_policies_are_in_force(file: Path) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([FLEET])
    broken, missing = of("broken.jsonl"), of("missing.jsonl")
    spoil(file.parent / "broken.jsonl")
    await devices.prepare([broken, missing])
    assert (has(slot, "a"), loads) == (True, [])
    devices.follow([broken])
    await devices.refresh()
    assert (has(slot, "a", broken), loads) == (False, [False])


async def test_a_source_that_takes_too_long_does_not_hold_up_the_policies(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([])
    monkeypatch.setattr("zta_authz.facts.devices.PREPARE_SECONDS", 0.0)
    await devices.prepare([FLEET])
    devices.follow([FLEET])
    assert not has(slot, "a")
    await devices.refresh()
    assert has(slot, "a")


async def test_refused_files_and_inventories_without_recent_devices_are_counted(file: Path) -> None:
    devices = refresher(file, FactSlot(), [])
    devices.load([FLEET])
    assert (devices.refused, devices.stale(NOW), devices.stale(NOW + 2 * 86400)) == (0, 0, 1)
    spoil(file)
    await devices.refresh()
    assert (devices.refused, devices.stale(NOW)) == (1, 0)
    write(file)
    await devices.refresh()
    assert (devices.refused, devices.sizes, devices.stale(NOW)) == (0, {"default/fleet": 0}, 1)


async def test_polling_notices_new_policies_at_once_and_ends(file: Path) -> None:
    slot, taken = FactSlot(), asyncio.Event()
    devices = DeviceRefresher(str(file.parent), slot, lambda _: taken.set())
    devices.load([])
    devices.start(3600)
    devices.follow([FLEET])
    async with asyncio.timeout(5):
        await taken.wait()
    await devices.close()
    assert has(slot, "a")


async def test_an_inventory_that_goes_and_comes_back_is_loaded_again(file: Path) -> None:
    slot = FactSlot()
    devices = refresher(file, slot, [])
    devices.load([FLEET])
    devices.follow([])
    devices.follow([FLEET])
    await devices.refresh()
    assert has(slot, "a")


async def test_without_polling_files_are_read_when_asked_for(file: Path) -> None:
    slot, loads, woken = FactSlot(), list[bool](), asyncio.Event()

    def loaded(good: bool) -> None:
        loads.append(good)
        woken.set()

    devices = DeviceRefresher(str(file.parent), slot, loaded)
    devices.load([FLEET])
    devices.start(None)
    for write_file, good in ((spoil, False), (lambda path: write(path, "b"), True)):
        woken.clear()
        write_file(file)
        devices.ask()
        async with asyncio.timeout(5):
            await woken.wait()
        assert loads[-1] is good
    await devices.close()
    assert has(slot, "b")


async def test_what_was_refused_is_read_again_only_when_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, loads = FactSlot(), list[bool]()
    devices = refresher(file, slot, loads)
    devices.load([FLEET])
    monkeypatch.setattr("zta_authz.facts.devices.MAX_INVENTORY_BYTES", 1)
    write(file, "b")
    await devices.refresh()
    monkeypatch.undo()
    await devices.refresh()
    assert loads == [False]
    devices.ask()
    await devices.refresh()
    assert (loads, has(slot, "b")) == ([False, True], True)


async def test_a_file_written_with_its_old_times_is_read_again(file: Path) -> None:
    slot = FactSlot()
    devices = refresher(file, slot, [])
    devices.load([FLEET])
    before = os.stat(file)
    write(file, "b")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(file)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    await devices.refresh()
    assert has(slot, "b")


class Recorded(PlainThread):
    """A background that records what runs, and whether the lock was held."""

    def __init__(self) -> None:
        self.held = False
        self.ran: list[bool] = []
        self.pauses = 0

    def pause(self) -> None:  # type: ignore[override]
        self.pauses += 1

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        self.held = True
        yield
        self.held = False

    async def run(self, work: Callable[[], Any]) -> Any:
        self.ran.append(self.held)
        return work()


async def test_a_reload_pauses_and_releases_the_old_table_bit_by_bit(file: Path) -> None:
    slot, background = FactSlot(), Recorded()
    devices = refresher(file, slot, [])
    devices.load([FLEET])
    assert isinstance(slot.views.devices, DeviceTables)
    [(_, old)] = slot.views.devices.tables.values()
    before = list(old.devices)
    devices.start(3600, background)
    write(file, *(f"b{number}" for number in range(50)))
    await devices.refresh()
    await devices.close()
    assert has(slot, "b7")
    assert before
    assert [old.devices.get(identifier) for identifier in before] == [None] * len(before)
    assert background.ran == [True, True]
    assert background.pauses > 50


async def test_the_table_of_an_inventory_that_no_policy_names_any_more_is_released_in_the_background(
    file: Path,
) -> None:
    slot, background = FactSlot(), Recorded()
    devices = refresher(file, slot, [])
    devices.load([FLEET])
    assert isinstance(slot.views.devices, DeviceTables)
    [(_, old)] = slot.views.devices.tables.values()
    before = list(old.devices)
    devices.start(3600, background)
    devices.follow([])
    assert [old.devices.get(identifier) is not None for identifier in before] == [True] * len(before)
    await devices.refresh()
    await devices.close()
    assert before
    assert [old.devices.get(identifier) for identifier in before] == [None] * len(before)
    assert background.ran == [True]


def test_without_a_directory_no_file_is_read(file: Path) -> None:
    with pytest.raises(SettingsErrors, match=r"names a file, and no directory is set; set `facts\.directory`"):
        DeviceRefresher("", FactSlot(), lambda _: None).load([of(str(file))])


def test_a_link_may_not_lead_out_of_the_directory(file: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    write(outside, "x")
    (file.parent / "link.jsonl").symlink_to(outside)
    with pytest.raises(SettingsErrors, match=r"leads out of `facts\.directory`"):
        DeviceRefresher(str(file.parent), FactSlot(), lambda _: None).load([of("link.jsonl")])


def test_a_mounted_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    version = tmp_path / "..2026_12_01"
    version.mkdir()
    write(version / "devices.jsonl", "a")
    (tmp_path / "..data").symlink_to("..2026_12_01")
    (tmp_path / "devices.jsonl").symlink_to("..data/devices.jsonl")
    slot = FactSlot()
    DeviceRefresher(str(tmp_path), slot, lambda _: None).load([FLEET])
    assert has(slot, "a")


def test_a_bad_file_at_the_start_is_a_fault(file: Path) -> None:
    spoil(file)
    with pytest.raises(SettingsErrors, match="the line is not JSON"):
        DeviceRefresher(str(file.parent), FactSlot(), lambda _: None).load([FLEET])


def test_policies_that_read_other_fields_never_get_a_table_of_these(file: Path) -> None:
    slot = FactSlot()
    DeviceRefresher(str(file.parent), slot, lambda _: None).load([FLEET])
    swapped = replace(FLEET, source=replace(FLEET.source, fields=tuple(reversed(FLEET.source.fields))))
    equal = replace(FLEET, source=replace(FLEET.source))
    assert (has(slot, "a", swapped), has(slot, "a", equal)) == (False, True)

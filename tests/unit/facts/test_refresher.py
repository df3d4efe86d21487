"""Network data follow their files; a file that has become invalid leaves the last good data in force."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from tests.support.mmdb import write_mmdb
from zta_authz.errors import SettingsErrors
from zta_authz.facts.networks import ListSource, NetworkDatabases, NetworkSources
from zta_authz.facts.refresher import NetworkRefresher
from zta_authz.model.facts import NO_FACTS, FactSlot, FactViews

if TYPE_CHECKING:
    from pathlib import Path

    from zta_authz.model.pace import Pause

ADDRESS = ip_address("193.99.144.80")


def country(slot: FactSlot) -> object:
    assert slot.views.networks is not None
    return slot.views.networks.look_up(ADDRESS, time.time()).country.value


def reputation(slot: FactSlot) -> object:
    assert slot.views.networks is not None
    return slot.views.networks.look_up(ADDRESS, time.time()).reputation.value


def write(path: Path, code: str) -> None:
    write_mmdb(path, {"193.99.0.0/16": {"country": code}})


def spoil(path: Path, content: bytes = b"half") -> None:
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "a.mmdb", "DE")
    return tmp_path / "a.mmdb"


async def test_a_changed_file_is_taken_and_devices_stay(path: Path) -> None:
    slot, loads = FactSlot(FactViews(devices=None)), list[bool]()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, loads.append)
    refresher.load()
    assert (country(slot), refresher.loaded[0].name, loads) == ("DE", "country", [])
    await refresher.refresh()
    assert loads == []
    write(path, "FR")
    await refresher.refresh()
    assert (country(slot), loads) == ("FR", [True])


async def test_an_invalid_file_changes_nothing_and_a_good_one_is_taken_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slot, loads = FactSlot(), list[bool]()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, loads.append)
    refresher.load()
    spoil(path)
    await refresher.refresh()
    remove(path)
    await refresher.refresh()
    assert (country(slot), loads) == ("DE", [False, False])
    assert "the changed network data are refused" in caplog.text
    write(path, "FR")
    await refresher.refresh()
    assert (country(slot), loads[-1]) == ("FR", True)


async def test_a_list_that_becomes_empty_changes_nothing_and_one_that_shrinks_is_taken_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, slot, loads = tmp_path / "bad.txt", FactSlot(), list[bool]()
    path.write_text("".join(f"193.99.144.{number}\n" for number in range(70, 90)))
    sources = NetworkSources(reputation=(ListSource(str(path), 10, float("inf")),))
    refresher = NetworkRefresher(sources, slot, loads.append)
    refresher.load()
    path.write_text("# the download failed\n")
    await refresher.refresh()
    assert (reputation(slot), loads) == (10, [False])
    path.write_text("193.99.144.80\n")
    await refresher.refresh()
    assert (reputation(slot), loads, refresher.loaded[0].entries) == (10, [False, True], 1)
    [warning] = [record for record in caplog.records if "more than half" in record.message]
    assert (warning.__dict__["entries"], warning.__dict__["entries_before"]) == (1, 20)
    path.write_text("193.99.144.80\n193.99.144.81\n")
    await refresher.refresh()
    assert caplog.text.count("more than half") == 1


async def test_a_file_that_is_still_being_written_is_waited_for(path: Path) -> None:
    slot, loads = FactSlot(), list[bool]()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, loads.append)
    refresher.load()
    spoil(path, b"ha")
    refreshing = asyncio.create_task(refresher.refresh(0.05))
    await asyncio.sleep(0.02)
    spoil(path)
    await refreshing
    assert loads == []


async def test_polling_notices_a_change_and_ends(path: Path) -> None:
    slot, taken = FactSlot(), asyncio.Event()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, lambda _: taken.set())
    refresher.load()
    refresher.start(0.01)
    write(path, "FR")
    async with asyncio.timeout(5):
        await taken.wait()
    await refresher.close()
    assert country(slot) == "FR"


async def test_a_file_that_is_written_while_it_is_read_is_read_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, loads = FactSlot(), list[bool]()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, loads.append)
    refresher.load()

    def read_slowly(sources: NetworkSources, pause: Pause) -> NetworkDatabases:
        databases = NetworkDatabases(sources, pause)
        write(path, "SE")
        return databases

    write(path, "FR")
    monkeypatch.setattr("zta_authz.facts.refresher.NetworkDatabases", read_slowly)
    await refresher.refresh()
    assert (country(slot), loads) == ("DE", [])
    monkeypatch.undo()
    await refresher.refresh()
    assert (country(slot), loads) == ("SE", [True])


async def test_without_polling_files_are_read_when_asked_for(path: Path) -> None:
    slot, taken = FactSlot(), asyncio.Event()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, lambda _: taken.set())
    refresher.load()
    refresher.start(None)
    write(path, "FR")
    refresher.ask()
    async with asyncio.timeout(5):
        await taken.wait()
    await refresher.close()
    assert country(slot) == "FR"


async def test_what_was_refused_is_read_again_when_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slot, loads = FactSlot(), list[bool]()
    refresher = NetworkRefresher(NetworkSources(str(path)), slot, loads.append)
    refresher.load()
    monkeypatch.setattr("zta_authz.facts.databases.MAX_DATABASE_BYTES", 1)
    write(path, "FR")
    await refresher.refresh()
    monkeypatch.undo()
    await refresher.refresh()
    assert (country(slot), loads) == ("DE", [False])
    refresher.ask()
    await refresher.refresh()
    assert (country(slot), loads) == ("FR", [False, True])


async def test_without_sources_nothing_is_loaded_or_polled() -> None:
    slot = FactSlot()
    refresher = NetworkRefresher(NetworkSources(), slot, lambda _: None)
    refresher.load()
    refresher.start(0.01)
    await refresher.close()
    assert slot.views is NO_FACTS
    assert refresher.loaded == ()


def test_a_bad_file_at_the_start_is_a_fault(path: Path) -> None:
    path.write_bytes(b"half")
    with pytest.raises(SettingsErrors):
        NetworkRefresher(NetworkSources(str(path)), FactSlot(), lambda _: None).load()

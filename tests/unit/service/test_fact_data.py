"""The data of facts are loaded at start, and followed as the settings say."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.devices import inventory, record
from zta_authz.errors import SettingsErrors
from zta_authz.facts.background import PlainThread
from zta_authz.model.facts import FactSlot
from zta_authz.service.fact_data import FactData
from zta_authz.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path


def fact_data(folder: Path, slot: FactSlot, taken: asyncio.Event, **settings: Any) -> FactData:
    networks = {"reputation": [{"file": str(folder / "bad.txt"), "score": 10}]}
    given = {"facts": {"directory": str(folder)}, "networks": networks, **settings}
    return FactData(parse_settings("settings.yaml", json.dumps(given), {}), slot, lambda _: taken.set())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bad.txt").write_text("203.0.113.7\n")
    (tmp_path / "devices.jsonl").write_text(json.dumps(record()))
    return tmp_path


@pytest.mark.parametrize("file", ["bad.txt", "devices.jsonl"])
async def test_without_watching_both_kinds_of_data_are_read_again_when_asked_for(folder: Path, file: str) -> None:
    slot, taken = FactSlot(), asyncio.Event()
    data = fact_data(folder, slot, taken, reload={"enabled": False})
    data.load([inventory()])
    before = slot.views
    data.start(PlainThread())
    (folder / file).write_text("203.0.113.8\n" if file == "bad.txt" else json.dumps(record("laptop-2")))
    data.ask()
    async with asyncio.timeout(5):
        await taken.wait()
    await data.close()
    assert (slot.views.networks is not before.networks, slot.views.devices is not before.devices) == (
        file == "bad.txt",
        file != "bad.txt",
    )


def test_a_bad_file_at_the_start_is_a_fault(folder: Path) -> None:
    (folder / "bad.txt").write_text("nobody\n")
    with pytest.raises(SettingsErrors, match="is not an address or network"):
        fact_data(folder, FactSlot(), asyncio.Event()).load([])

"""Changes made during the start are noticed as soon as watching begins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from zta_authz.service.reloading import Reloading
from zta_authz.settings import Settings
from zta_authz.settings.live import LiveSettings

if TYPE_CHECKING:
    from pathlib import Path


async def test_settings_that_changed_between_loading_and_watching_are_applied(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("log: {level: debug}\n")
    before, after = Settings(), Settings.model_validate({"log": {"level": "debug"}})
    taken: list[str] = []
    reloading = Reloading(before, before.options(), [])
    reloading.start(LiveSettings(before, lambda: after, lambda settings: taken.append(settings.log.level)), str(config))
    try:
        async with asyncio.timeout(5):
            while not taken:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await reloading.close()
    assert taken == ["debug"]

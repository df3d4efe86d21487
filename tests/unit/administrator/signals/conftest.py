"""A store whose clock is that of the test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.pki import NOW
from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(str(tmp_path / "store.db"), clock=lambda: NOW)
    await opened.epoch()
    yield opened
    await opened.close()

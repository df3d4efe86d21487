"""The stores that the conformance tests run over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.stores import SqlitePlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.stores import StorePlace
    from zta_authz.administrator.store.port import Store


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    return SqlitePlace(tmp_path)


@pytest.fixture
async def store(place: StorePlace) -> AsyncIterator[Store]:
    store = await place.open()
    await store.epoch()
    yield store
    await store.close()

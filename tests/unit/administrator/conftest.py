"""The stores that tests run over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.support.redis_server import RedisServer, find_redis
from tests.support.stores import SqlitePlace, ValkeyPlace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.stores import StorePlace
    from zta_authz.administrator.store.port import Store


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of a module with `ON_UVLOOP` also on uvloop, as the administrator runs. Its transports differ."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if isinstance(item, pytest.Function) and getattr(item.module, "ON_UVLOOP", False):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture(scope="session")
def redis_program() -> str:
    program = find_redis()
    if program is None:
        pytest.skip("no redis-server or valkey-server on the PATH: `make tools` fetches one, where apt-get is")
    return program


@pytest.fixture(scope="session")
def redis_server(redis_program: str) -> Iterator[RedisServer]:
    server = RedisServer(redis_program)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def valkey_place(redis_server: RedisServer) -> ValkeyPlace:
    place = ValkeyPlace(redis_server)
    await place.forget()
    return place


@pytest.fixture(params=["sqlite", "valkey"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StorePlace:
    if request.param == "sqlite":
        return SqlitePlace(tmp_path)
    place: ValkeyPlace = request.getfixturevalue("valkey_place")
    return place


@pytest.fixture
async def store(place: StorePlace) -> AsyncIterator[Store]:
    store = await place.open()
    await store.epoch()
    yield store
    await store.close()

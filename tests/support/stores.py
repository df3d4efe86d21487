"""Stores for tests: a place for each kind of store that can be opened, closed and opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.redis_server import RedisServer
    from zta_authz.administrator.store.port import Store
    from zta_authz.administrator.store.valkey import ValkeyStore


class StorePlace(Protocol):
    """Where a store keeps its data."""

    async def open(self, *, retained: int = 1000) -> Store:
        """Open the store, or create it. The caller closes it."""
        ...

    async def forget(self) -> None:
        """Delete all data of the store, while no store is open."""
        ...


class SqlitePlace:
    """A database in a directory. `now` can be set."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.sqlite"
        self.now: float | None = None

    async def open(self, *, retained: int = 1000) -> SqliteStore:
        """See `StorePlace`."""
        return await SqliteStore.open(str(self.path), retained=retained, **self._clock())

    def _clock(self) -> dict[str, Callable[[], float]]:
        return {} if self.now is None else {"clock": lambda: self.now or 0.0}

    async def forget(self) -> None:
        """See `StorePlace`."""
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink()


class ValkeyPlace:
    """An empty database of a server."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    async def open(self, *, retained: int = 1000) -> ValkeyStore:
        """See `StorePlace`."""
        from zta_authz.administrator.store.valkey import ValkeyAddress, ValkeyStore

        return await ValkeyStore.open(ValkeyAddress(path=str(self.server.socket)), retained=retained)

    async def forget(self) -> None:
        """See `StorePlace`."""
        store = await self.open()
        await store._execute("FLUSHALL")
        await store.close()

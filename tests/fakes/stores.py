"""Stores around a real one: one that fails or dies at one of its calls, and one whose time a test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zta_authz.administrator.store.port import Head, Window

if TYPE_CHECKING:
    from zta_authz.administrator.store.port import Store
    from zta_authz.ports import Clock


class Killed(BaseException):
    """The process died here."""


class FailingStore:
    """Passes calls on to `store`. Call number `at` (from 0) raises `error`, before or after it took effect."""

    def __init__(self, store: Store, at: int, error: BaseException, *, after: bool = False) -> None:
        self._store = store
        self._left = at
        self._error = error
        self._after = after
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            now = self._left == 0
            self._left -= 1
            if now and not self._after:
                raise self._error
            result = await method(*args, **kwargs)
            if now:
                raise self._error
            return result

        return call


class StoreAt:
    """Passes calls on to `store`, whose time is that of `clock`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._shifts: dict[float, float] = {}

    async def head(self) -> Head:
        """The newest revision, at the clock's time."""
        return Head((await self._store.head()).revision, self._clock())

    async def reserve(self, key: str, window: Window, want: int, limit: int, holder: str) -> int:
        """Reserve in `window`, which contains the clock's time, by a window that contains the store's."""
        behind = (await self._store.head()).time - self._clock()
        shift = self._shifts.setdefault(window.starts, behind)
        return await self._store.reserve(key, Window(window.starts + shift, window.ends + shift), want, limit, holder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

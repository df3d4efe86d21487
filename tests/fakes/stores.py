"""A store that fails or dies at one of its calls, around a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zta_authz.administrator.store.port import Store


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

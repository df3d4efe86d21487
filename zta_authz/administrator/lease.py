"""A lease: what only one replica of the administrator does at a time."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from zta_authz.administrator.store.port import StoreError, Window, WindowClosed

if TYPE_CHECKING:
    from zta_authz.administrator.store.port import Store

LEASE_SECONDS: Final = 15.0


class Hold(NamedTuple):
    """Whether this replica has the lease, for how many seconds nothing changes, and whether it just got the lease."""

    held: bool
    seconds: float
    fresh: bool


class Lease:
    """The lease `key`, for one holder. Times are cut into windows of the store's clock; the first to ask gets one.

    A replica that dies keeps the lease until its window ends.
    """

    def __init__(self, store: Store, key: str, holder: str, seconds: float = LEASE_SECONDS) -> None:
        """`holder` is the replica's name, which no other process ever has."""
        self._store = store
        self._key = key
        self._holder = holder
        self._seconds = seconds
        self._number = -1

    async def hold(self) -> Hold:
        """Take the lease if nobody has it. Raises `StoreError`."""
        now = (await self._store.head()).time
        number = int(now // self._seconds)
        window = self._window(number)
        left = window.ends - now
        if number == self._number:
            return Hold(held=True, seconds=left, fresh=False)
        try:
            got = await self._store.reserve(self._key, window, 1, 1, self._holder)
        except WindowClosed:
            return Hold(held=False, seconds=0.0, fresh=False)
        if got:
            self._number = number
        return Hold(held=bool(got), seconds=left, fresh=bool(got))

    async def release(self) -> None:
        """Let another replica have the lease at once. Does nothing if that fails: the lease ends soon anyway."""
        number, self._number = self._number, -1
        if number >= 0:
            with suppress(StoreError):
                await self._store.reserve(self._key, self._window(number), -1, 1, self._holder)

    def _window(self, number: int) -> Window:
        return Window(number * self._seconds, (number + 1) * self._seconds)

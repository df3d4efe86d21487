"""When a call came, as near as can be known of bytes that wait in a socket until there is time to read them.

While one connection has its turn the others' bytes wait, its own next ones too; and where what came at once takes many
turns, nothing is read between them. What is read next may have come at any time since, and the earliest is taken: a
call too many is then told that it is late, and none too few. Times are `time.monotonic`'s.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LONG_SECONDS: Final = 0.001
"""Turns that take less delay others by nothing to speak of."""
_APART_SECONDS: Final = 0.0002
"""A turn that begins later after another one was waited for."""
_WHOLE_READ_BYTES: Final = 128 * 1024
"""A read that brings less has emptied its socket: uvloop and asyncio ask for 250 KiB."""


class LoopTurns:
    """The rounds of an event loop: turns of all connections, and then a look at what else has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = self._ended = 0.0  # the turns that followed each other, up to the last one
        self._long: deque[float] = deque()  # when what took long in this round and in the last one began

    @property
    def since(self) -> float | None:
        """What is read now may have waited since then; None where it has not waited."""
        return self._long[0] if self._long else None

    def turn_over(self, began: float) -> None:
        """A turn that began then is over."""
        if began - self._ended > _APART_SECONDS:
            self._began = began
        now = self._ended = time.monotonic()
        if now - self._began > _LONG_SECONDS:
            self._long.append(self._began)
            self.after_next_look(self._long.popleft)
            self._began = now

    def after_next_look(self, do: Callable[[], object]) -> None:
        """Call `do` when what waits now has been read: in this round, or, with asyncio's own loop, in the next one."""
        self._loop.call_soon(self._loop.call_soon, do)


class ReceiveTime:
    """Of one connection. What is being dealt with, all its backlog included, came `at` that time.

    `paused`: nothing is read.
    """

    __slots__ = ("_paused_at", "_rounds", "at", "paused")

    def __init__(self, rounds: LoopTurns) -> None:
        self._rounds = rounds
        self.paused = False
        self._paused_at = rounds.since  # for as long the connection itself may have waited
        if self._paused_at is not None:
            rounds.after_next_look(self._look)
        self.at = 0.0

    def came(self, size: int, now: float) -> None:
        """So many bytes were read, and nothing from before is left to deal with."""
        waited = [since for since in (self._paused_at, self._rounds.since) if since is not None]
        self.at = min(waited) if waited else now
        if size < _WHOLE_READ_BYTES:
            self._paused_at = None

    def pause(self) -> None:
        """Nothing is read from now on."""
        self.paused = True
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def resume(self) -> None:
        """It is read again."""
        self.paused = False
        self._rounds.after_next_look(self._look)

    def _look(self) -> None:
        if not self.paused:
            self._paused_at = None

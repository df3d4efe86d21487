"""Estimate when a call was received, although its bytes may have waited in the socket.

While one connection has its turn, bytes of the others wait, and so do its own next ones; while a large input takes
several turns, nothing is read at all. Bytes read afterwards may have arrived at any time since, and the earliest
possible time counts: that may report a call as late too early, never too late. Times are those of `time.monotonic`.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_LONG_SECONDS: Final = 0.001
"""Shorter turns delay other connections insignificantly."""
_GAP_SECONDS: Final = 0.0002
"""A turn that starts later than this after the previous one ended is not consecutive: the loop was idle."""
_WHOLE_READ_BYTES: Final = 128 * 1024
"""A shorter read has emptied its socket: uvloop and asyncio ask for 250 KiB."""


class LoopTurns:
    """The iterations of an event loop: turns of all connections, then a poll for new input."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = self._ended = 0.0  # of the latest run of consecutive turns
        self._long: deque[float] = deque()  # start times of long runs in this iteration and the last

    @property
    def since(self) -> float | None:
        """The earliest time since which input read now may have waited, or None if it has not waited."""
        return self._long[0] if self._long else None

    def end_turn(self, began: float) -> None:
        """End a turn that started at `began`."""
        if began - self._ended > _GAP_SECONDS:
            self._began = began
        now = self._ended = time.monotonic()
        if now - self._began > _LONG_SECONDS:
            self._long.append(self._began)
            self.after_next_read(self._long.popleft)
            self._began = now

    def after_next_read(self, callback: Callable[[], object]) -> None:
        """Call `callback` once all input waiting now has been read.

        That is in this iteration of the loop, or with asyncio's own loop in the next one.
        """
        self._loop.call_soon(self._loop.call_soon, callback)


class ReceiveTime:
    """When the input of one connection was received. `at` applies to the input being handled, including its backlog.

    `paused` is True while nothing is read.
    """

    __slots__ = ("_loop_turns", "_paused_at", "at", "paused")

    def __init__(self, loop_turns: LoopTurns) -> None:
        self._loop_turns = loop_turns
        self.paused = False
        self._paused_at = loop_turns.since  # the connection itself may have waited as long
        if self._paused_at is not None:
            loop_turns.after_next_read(self._end_pause)
        self.at = 0.0

    def received(self, size: int, now: float) -> None:
        """Note that `size` bytes were read at `now`, while no earlier input is left to handle."""
        waiting_since = [since for since in (self._paused_at, self._loop_turns.since) if since is not None]
        self.at = min(waiting_since) if waiting_since else now
        if size < _WHOLE_READ_BYTES:
            self._paused_at = None

    def pause(self) -> None:
        """Note that reading pauses."""
        self.paused = True
        if self._paused_at is None:
            self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Note that reading resumes."""
        self.paused = False
        self._loop_turns.after_next_read(self._end_pause)

    def _end_pause(self) -> None:
        if not self.paused:
            self._paused_at = None

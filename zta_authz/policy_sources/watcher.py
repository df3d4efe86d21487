"""Waits until policy files have changed and are no longer being written.

Files are looked at again and again instead of asking the kernel to tell: that is right for every file system, mount,
link and directory that comes and goes, costs 0.1 ms of a thread a second, and a mounted ConfigMap takes kubelet longer
to write than any poll waits.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.policy_sources.fingerprint import Fingerprint, fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Run = Callable[[Callable[[], Fingerprint]], Awaitable[Fingerprint]]

MAX_DEBOUNCES: Final = 20
"""After so many waits in a row for files that keep changing, they are taken as they are."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """`poll`: between two looks. `debounce`: for how long nothing must have changed. Both in seconds."""

    poll: float = 1.0
    debounce: float = 0.2


class Watcher:
    """Watches `paths`. All methods are for the event loop's thread; the file system is only touched by `run`'s."""

    def __init__(self, paths: Sequence[str], timing: WatchTiming, run: Run) -> None:
        """What `paths` hold now counts as seen. `run` calls a function in a thread of its own."""
        self._paths = tuple(paths)
        self._timing = timing
        self._run = run
        self._asked = asyncio.Event()
        self._seen = fingerprint(self._paths)

    def ask(self) -> None:
        """Let the next `changed` return soon, whether or not anything changed."""
        self._asked.set()

    async def changed(self) -> None:
        """Return when the files differ from what they were at the last return, or when that was asked for."""
        while not self._asked.is_set():
            if await self._look() != self._seen:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.poll):
                    await self._asked.wait()
        self._asked.clear()
        self._seen = await self._settled()

    async def _settled(self) -> Fingerprint:
        """The fingerprint once it has stopped changing, taken before anything is read: what changes later is seen."""
        last = await self._look()
        for _ in range(MAX_DEBOUNCES):
            await asyncio.sleep(self._timing.debounce)
            now = await self._look()
            if now == last:
                return now
            last = now
        _LOG.warning("policy files keep changing; they are read as they are")
        return last

    async def _look(self) -> Fingerprint:
        return await self._run(lambda: fingerprint(self._paths))

"""Waits until policy files have changed and are no longer being written.

It polls instead of using kernel notifications. Polling works for every file system, mount, link and directory that
appears or disappears, and costs 0.1 ms of a thread per second. Kubelet takes longer to update a ConfigMap than a poll
interval.
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
"""After this many consecutive waits, files that keep changing are read anyway."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """`poll`: the polling interval. `debounce`: how long files must be unchanged. Both in seconds."""

    poll: float = 1.0
    debounce: float = 0.2


class Watcher:
    """Watches `paths`. Call all methods in the event loop's thread; file access happens in the thread of `run`."""

    def __init__(self, paths: Sequence[str], timing: WatchTiming, run: Run) -> None:
        """Take the current state of `paths` as seen. `run` calls a function in another thread."""
        self._paths = tuple(paths)
        self._timing = timing
        self._run = run
        self._requested = asyncio.Event()
        self._seen = fingerprint(self._paths)

    def request_check(self) -> None:
        """Make the next `wait_for_change` return soon, even without a change."""
        self._requested.set()

    async def wait_for_change(self) -> None:
        """Return when the files have changed since the last return, or on request."""
        while not self._requested.is_set():
            if await self._fingerprint() != self._seen:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.poll):
                    await self._requested.wait()
        self._requested.clear()
        self._seen = await self._wait_until_stable()

    async def _wait_until_stable(self) -> Fingerprint:
        """Return the fingerprint once it stops changing. It is taken before reading, so later changes are noticed."""
        last = await self._fingerprint()
        for _ in range(MAX_DEBOUNCES):
            await asyncio.sleep(self._timing.debounce)
            now = await self._fingerprint()
            if now == last:
                return now
            last = now
        _LOG.warning("policy files keep changing; they are read anyway")
        return last

    async def _fingerprint(self) -> Fingerprint:
        return await self._run(lambda: fingerprint(self._paths))

"""Keeps the views of facts in force up to date: polls the files, and loads what changed in another thread.

A file that has become invalid is logged and counted, and the last good data stay in force and age.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from zta_authz.errors import SettingsErrors
from zta_authz.facts.background import PlainThread
from zta_authz.facts.files import stamp
from zta_authz.facts.networks import NetworkDatabases

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.facts.background import Background
    from zta_authz.facts.files import Stamp
    from zta_authz.facts.networks import LoadedSource, NetworkSources
    from zta_authz.model.facts import FactSlot

_LOG = logging.getLogger(__name__)


class NetworkRefresher:
    """Loads the network databases into `slot`. Use it from the event loop's thread only."""

    def __init__(self, sources: NetworkSources, slot: FactSlot, on_load: Callable[[bool], None]) -> None:
        """`on_load` is called after each later load: True if it was taken, False if a file was refused."""
        self._sources = sources
        self._slot = slot
        self._on_load = on_load
        self._stamps: dict[str, Stamp] = {}
        self._databases: NetworkDatabases | None = None
        self._refused = False
        self._background: Background = PlainThread()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def loaded(self) -> tuple[LoadedSource, ...]:
        """What is in force."""
        return () if self._databases is None else self._databases.loaded

    @property
    def refused(self) -> bool:
        """Whether files have changed since, and are refused."""
        return self._refused

    def load(self) -> None:
        """Load everything for the first time. Raises `SettingsErrors` with every fault."""
        if self._sources.configured:
            self._stamps = self._current()
            self._publish(NetworkDatabases(self._sources))

    def start(self, poll_seconds: float | None, background: Background | None = None) -> None:
        """Look for changed files from now on, if there are files: every `poll_seconds`, and when asked to.

        They are loaded in `background`.
        """
        self._background = background or self._background
        if self._sources.files:
            self._task = asyncio.get_running_loop().create_task(self._poll(poll_seconds), name="network data")

    def ask(self) -> None:
        """Look for changed files now, and load again what was refused."""
        if self._refused:
            self._stamps = {}
        self._wake.set()

    async def close(self) -> None:
        """Stop polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self, seconds: float | None) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            self._wake.clear()
            await self.refresh(seconds or 0.0)

    async def refresh(self, settle_seconds: float = 0.0) -> None:
        """Load the files if any changed. Stamps are taken before reading, so a change meanwhile is seen later.

        A file that is still being written is waited for: stamps must be equal twice, `settle_seconds` apart, and again
        after reading. Otherwise what was read may be half of one version and half of another.
        """
        stamps = await asyncio.to_thread(self._current)
        if stamps == self._stamps:
            return
        if settle_seconds:
            await asyncio.sleep(settle_seconds)
            if await asyncio.to_thread(self._current) != stamps:
                return
        async with self._background.exclusive():
            await self._load(stamps)

    async def _load(self, stamps: dict[str, Stamp]) -> None:
        self._stamps, self._refused = stamps, True
        read = partial(NetworkDatabases, self._sources, self._background.pause)
        try:
            databases = await self._background.run(read)
        except SettingsErrors as error:
            for fault in error.faults[:10]:
                _LOG.error("the changed network data are refused: %s", fault)
            self._on_load(False)
            return
        except Exception:  # noqa: BLE001  polling must go on
            _LOG.exception("loading network data failed")
            self._on_load(False)
            return
        if await asyncio.to_thread(self._current) != stamps:
            return
        self._refused = False
        self._warn_if_shrunk(databases)
        self._publish(databases)
        self._on_load(True)
        entries = {source.file: source.entries for source in databases.loaded if source.entries}
        _LOG.info("network data taken", extra={"sources": [s.name for s in databases.loaded], "entries": entries})

    def _warn_if_shrunk(self, databases: NetworkDatabases) -> None:
        """Warn of each list that lost more than half of its entries: its download may have ended early."""
        before = {source.file: source.entries for source in self.loaded}
        for source in databases.loaded:
            if source.entries * 2 < before.get(source.file, 0):
                details = {"file": source.file, "entries": source.entries, "entries_before": before[source.file]}
                _LOG.warning("a reputation list has lost more than half of its entries", extra=details)

    def _publish(self, databases: NetworkDatabases) -> None:
        self._databases = databases
        self._slot.replace_networks(databases)

    def _current(self) -> dict[str, Stamp]:
        return {path: stamp(path) for path in self._sources.files}

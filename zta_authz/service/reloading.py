"""Reload, while serving, the policies, the shadow policies and the few settings that can change live."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from zta_authz.model.options import DocumentScope
from zta_authz.policy_sources.compile_executor import CompileExecutor
from zta_authz.policy_sources.reloader import PolicyReloader
from zta_authz.policy_sources.shadow import SET as SHADOW_SET
from zta_authz.policy_sources.watcher import Watcher, WatchTiming

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.model.options import Options
    from zta_authz.policy_sources.reloader import PolicySet
    from zta_authz.settings import Settings
    from zta_authz.settings.live import LiveSettings


class Reloading:
    """Watches files from `start` to `close`. Use it from the event loop's thread only.

    It also loads the shadow policies for the first time, after the start, so that they don't delay it.
    """

    def __init__(self, settings: Settings, options: Options, sets: Iterable[PolicySet]) -> None:
        """Reload `sets`, compiled with `options`."""
        self._executor = CompileExecutor()
        self._watches = settings.reload.enabled
        self._timing = WatchTiming(settings.reload.poll_seconds, settings.reload.debounce_seconds)
        shadow = replace(options, root_documents=DocumentScope())  # shadow policies verify no credentials
        self._reloaders = [
            PolicyReloader(policies, shadow if policies.name == SHADOW_SET else options, self._timing, self._executor)
            for policies in sets
        ]
        self._config: Watcher | None = None
        self._live: asyncio.Task[None] | None = None

    @property
    def background(self) -> CompileExecutor:
        """The thread that loads everything, one thing at a time."""
        return self._executor

    def start(self, live: LiveSettings | None = None, config: str | None = None) -> None:
        """Start watching. `live` is read again when the settings file `config` changes."""
        for reloader in self._reloaders:
            reloader.start(watches=self._watches)
        if live is not None:
            paths = (config,) if config is not None and self._watches else ()
            self._config = Watcher(paths, self._timing, self._executor.run)
            if paths:
                self._config.request_check()  # it may have changed during the start
            self._live = asyncio.get_running_loop().create_task(self._follow(self._config, live), name="live settings")

    def ask(self) -> None:
        """Schedule a reload of everything."""
        for reloader in self._reloaders:
            reloader.request_reload()
        if self._config is not None:
            self._config.request_check()

    async def close(self) -> None:
        """Stop watching."""
        for reloader in self._reloaders:
            await reloader.close()
        if self._live is not None:
            self._live.cancel()
            await asyncio.gather(self._live, return_exceptions=True)
        self._executor.close()

    async def _follow(self, config: Watcher, live: LiveSettings) -> None:
        while True:
            await config.wait_for_change()
            await self._executor.run(live.reread)

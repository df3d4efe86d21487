"""Starts and stops all sources of trust bundles and of the service's own SVID together."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zta_authz.authn.own_svid import SvidSlot
from zta_authz.errors import FaultsError, SettingsErrors
from zta_authz.keys.bundle_endpoint import ENDPOINT_TIMING, BundleEndpoint, BundleEndpointRefresher
from zta_authz.keys.bundle_files import BundleFile, BundleFiles, read_bundle_file
from zta_authz.keys.bundle_store import BundleSource, BundleStatus, BundleStore
from zta_authz.keys.workload_api import WorkloadApi

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.bundles import BundleSlot
    from zta_authz.authn.own_svid import OwnSvid
    from zta_authz.errors import Fault
    from zta_authz.keys.bundle_endpoint import FetchObserver
    from zta_authz.keys.refresh_schedule import Timing
    from zta_authz.ports import Clock


@dataclass(frozen=True, slots=True)
class TrustSources:
    """The configured sources. Each endpoint comes with the file of its first bundle, if any.

    `agent` is the Workload API's address (`unix:/path`, "" for none). `agent_bundles` uses its trust bundles;
    `agent_svid` uses its SVID, without which the service is not ready.
    """

    files: tuple[BundleFile, ...] = ()
    endpoints: tuple[tuple[BundleEndpoint, BundleFile | None], ...] = ()
    agent: str = ""
    agent_bundles: bool = False
    agent_svid: bool = False


class TrustRefresher:
    """Creates and runs the sources. `changed` is called when the result of `obstacles` may have changed."""

    def __init__(
        self,
        sources: TrustSources,
        changed: Callable[[], None] = lambda: None,
        *,
        clock: Clock = time.time,
        on_fetch: FetchObserver = lambda _host, _outcome: None,
        timing: Timing = ENDPOINT_TIMING,
    ) -> None:
        """Read the files. Raises `SettingsErrors` with the faults of all files."""
        self._clock = clock
        self._changed = changed
        self._needs_svid = sources.agent_svid
        claims = {file.trust_domain.name: BundleSource.FILE for file in sources.files}
        claims |= {endpoint.trust_domain.name: BundleSource.ENDPOINT for endpoint, _ in sources.endpoints}
        self.store = BundleStore(claims, clock)
        self.svid = SvidSlot()
        self._files = BundleFiles(sources.files, self.store)
        self._endpoints = [
            BundleEndpointRefresher(endpoint, self.store, timing=timing, on_fetch=on_fetch)
            for endpoint, _ in sources.endpoints
        ]
        self._agent = self._build_agent(sources)
        self._tasks: list[asyncio.Task[None]] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._read_files([file for _, file in sources.endpoints])

    def _build_agent(self, sources: TrustSources) -> WorkloadApi | None:
        if not sources.agent or not (sources.agent_bundles or sources.agent_svid):
            return None
        return WorkloadApi(
            sources.agent,
            bundles=self.store if sources.agent_bundles else None,
            svid=self.svid if sources.agent_svid else None,
            changed=self._svid_changed,
            clock=self._clock,
        )

    def _read_files(self, seeds: list[BundleFile | None]) -> None:
        faults: list[Fault] = []
        try:
            self._files.load()
        except FaultsError as error:
            faults.extend(error.faults)
        for endpoint, file in zip(self._endpoints, seeds, strict=True):
            try:
                if file is not None:
                    endpoint.seed(read_bundle_file(file))
            except FaultsError as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)

    def bind(self, slot: BundleSlot) -> None:
        """Keep the verifier's `slot` filled from now on."""
        self.store.bind(slot)

    def current_svid(self) -> OwnSvid | None:
        """Return the service's SVID, None while it has none. May be called from any thread."""
        return self.svid.current

    def obstacles(self) -> tuple[str, ...]:
        """Return the reasons why the service is not ready; () if it is."""
        if not self._needs_svid:
            return ()
        svid = self.svid.current
        if svid is None:
            return ("no SVID from the Workload API",)
        now = self._clock()
        if now < svid.validity.not_before:
            return ("our SVID is not valid yet",)
        return ("our SVID has expired",) if svid.validity.not_after < now else ()

    def status(self) -> list[BundleStatus]:
        """List the trust bundles in force."""
        return self.store.status()

    async def start(self, patience: float = 0.0) -> None:
        """Start all sources. Return when each was tried once, or after `patience` seconds."""
        loop = asyncio.get_running_loop()
        tried = [endpoint.tried for endpoint in self._endpoints]
        self._tasks = [loop.create_task(endpoint.run(), name="bundle endpoint") for endpoint in self._endpoints]
        self._tasks.append(loop.create_task(self._files.run(), name="bundle files"))
        if self._agent is not None:
            self._tasks.append(loop.create_task(self._agent.run(), name="Workload API"))
            tried.extend(self._agent.tried.values())
        waiting = [asyncio.ensure_future(event.wait()) for event in tried]
        if waiting and patience:
            await asyncio.wait(waiting, timeout=patience)
        for task in waiting:
            task.cancel()

    async def close(self) -> None:
        """Stop all sources. Bundles and SVID stay in force."""
        if self._expiry is not None:
            self._expiry.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _svid_changed(self) -> None:
        """Call `changed` now, and again when the SVID expires without renewal."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        svid = self.svid.current
        if svid is not None:
            wait = max(0.0, svid.validity.not_after - self._clock()) + 1.0
            self._expiry = asyncio.get_running_loop().call_later(wait, self._changed)
        self._changed()

"""Trust bundles in files (PEM or SPIFFE bundle format), read at start and whenever a file changes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundle_formats import MAX_BUNDLE_BYTES, Bundle, read_bundle
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.bundle_store import BundleSource
from zta_authz.keys.regular_files import file_stamp, read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.keys.bundle_store import BundleStore
    from zta_authz.keys.regular_files import Stamp
    from zta_authz.model.spiffe import TrustDomain

_LOG = logging.getLogger(__name__)
POLL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file with one trust domain's bundle."""

    trust_domain: TrustDomain
    path: str


class BundleFiles:
    """Keeps the bundles of `files` in `store` current. If a file becomes invalid, its last good bundle stays."""

    def __init__(self, files: Sequence[BundleFile], store: BundleStore, poll_seconds: float = POLL_SECONDS) -> None:
        self._files = tuple(files)
        self._store = store
        self._poll = poll_seconds
        self._stamps: dict[BundleFile, Stamp] = {}

    def load(self) -> None:
        """Read every file. Raises `SettingsErrors` with the faults of all files."""
        faults: list[Fault] = []
        for file in self._files:
            self._stamps[file] = file_stamp(file.path)
            try:
                self._store.put(BundleSource.FILE, read_bundle_file(file).authorities)
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)

    async def run(self) -> None:
        """Poll for changes until cancelled."""
        while self._files:
            await asyncio.sleep(self._poll)
            for file in self._files:
                await self._refresh(file)

    async def _refresh(self, file: BundleFile) -> None:
        """Load the file if it changed. The stamp is taken before reading, so a change during the read is seen later."""
        stamp = await asyncio.to_thread(file_stamp, file.path)
        if stamp == self._stamps.get(file):
            return
        self._stamps[file] = stamp
        try:
            bundle = await asyncio.to_thread(read_bundle_file, file)
        except SettingsErrors as error:
            _LOG.warning("the changed trust bundle is refused: %s", error, extra={"file": file.path})
            return
        self._store.put(BundleSource.FILE, bundle.authorities)
        _LOG.info("trust bundle changed", extra={"trust_domain": file.trust_domain.name, "file": file.path})


def read_bundle_file(file: BundleFile) -> Bundle:
    """Read the bundle in `file`. Raises `SettingsErrors`."""
    bundle, faults = read_bundle(file.trust_domain, read_regular(file.path, MAX_BUNDLE_BYTES, "bundles"))
    if faults:
        raise SettingsErrors(Fault(file.path, 0, 0, fault.message, fault.hint) for fault in faults)
    return bundle

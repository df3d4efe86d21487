"""Trust bundles in files, PEM or SPIFFE bundle: read at start, and again whenever a file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundle_formats import MAX_BUNDLE_BYTES, Bundle, read_bundle
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.keys.bundle_store import BundleSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.keys.bundle_store import BundleStore
    from zta_authz.model.spiffe import TrustDomain

_LOG = logging.getLogger(__name__)
POLL_SECONDS: Final = 5.0
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class BundleFile:
    """The file with one trust domain's bundle."""

    trust_domain: TrustDomain
    path: str


class BundleFiles:
    """Keeps the bundles of `files` in `store`. A file that goes bad changes nothing: its last good bundle stays."""

    def __init__(self, files: Sequence[BundleFile], store: BundleStore, poll_seconds: float = POLL_SECONDS) -> None:
        self._files = tuple(files)
        self._store = store
        self._poll = poll_seconds
        self._stamps: dict[BundleFile, _Stamp] = {}

    def load(self) -> None:
        """Read every file. Raises `SettingsErrors` with everything that is wrong with them."""
        faults: list[Fault] = []
        for file in self._files:
            self._stamps[file] = _stamp(file.path)
            try:
                self._store.put(BundleSource.FILE, read_bundle_file(file).authorities)
            except SettingsErrors as error:
                faults.extend(error.faults)
        if faults:
            raise SettingsErrors(faults)

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while self._files:
            await asyncio.sleep(self._poll)
            for file in self._files:
                await self._refresh(file)

    async def _refresh(self, file: BundleFile) -> None:
        """Take the file if it changed. The stamp is from before reading: what changes meanwhile is read again."""
        stamp = await asyncio.to_thread(_stamp, file.path)
        if stamp == self._stamps.get(file):
            return
        self._stamps[file] = stamp
        try:
            bundle = await asyncio.to_thread(read_bundle_file, file)
        except SettingsErrors as error:
            _LOG.warning("the changed trust bundle is not taken: %s", error, extra={"file": file.path})
            return
        self._store.put(BundleSource.FILE, bundle.authorities)
        _LOG.info("trust bundle changed", extra={"trust_domain": file.trust_domain.name, "file": file.path})


def read_bundle_file(file: BundleFile) -> Bundle:
    """The bundle in `file`. Raises `SettingsErrors`."""
    bundle, wrong = read_bundle(file.trust_domain, _read(file.path))
    if wrong:
        raise SettingsErrors(Fault(file.path, 0, 0, each.message, each.hint) for each in wrong)
    return bundle


def _read(path: str) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise SettingsErrors([Fault(path, 0, 0, "is not a regular file", "mend `bundles`")])
            return stream.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        fault = Fault(path, 0, 0, f"cannot be read: {error.strerror}", "mend `bundles` or the file's permissions")
        raise SettingsErrors([fault]) from error


def _stamp(path: str) -> _Stamp:
    """Changes when the file does, also where a link to it is swapped; zeros for a file that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)

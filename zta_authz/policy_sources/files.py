"""Reads policy files from disk and compiles complete sets of them to snapshots."""

from __future__ import annotations

import gc
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from zta_authz.errors import DocumentErrors, Fault
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot
from zta_authz.policy_sources.walk import PolicyWalk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.options import Options

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
_MIB: Final = 1024 * 1024


class SnapshotHolder:
    """Holds the snapshot in force. Publishing swaps one reference, so readers see either the old or the new set."""

    __slots__ = ("snapshot",)

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        """The snapshot in force, None until the first is published."""

    def current(self) -> Snapshot | None:
        """Return the snapshot in force, None until the first is published."""
        return self.snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force. Its verifier takes over the state that must survive a reload."""
        if self.snapshot is not None:
            snapshot.verifier.inherit_state(self.snapshot.verifier)
        self.snapshot = snapshot


def load_snapshot(paths: Iterable[str], options: Options) -> Snapshot:
    """Compile every document under `paths`, all or nothing. Raises `DocumentErrors` with the faults of all files."""
    faults: list[Fault] = []
    notes: list[Fault] = []
    sources = read_sources(paths, faults, notes)
    try:
        with _no_collections():
            snapshot = compile_snapshot(sources, options, notes=notes)
    except DocumentErrors as error:
        raise DocumentErrors([*faults, *error.faults]) from None
    if faults:
        raise DocumentErrors(faults)
    return snapshot


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disable garbage collection: compiling creates hardly any garbage, and is three times as fast without it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_sources(paths: Iterable[str], faults: list[Fault], notes: list[Fault] | None = None) -> list[SourceText]:
    """Read every policy file under `paths` once.

    Appends unreadable files to `faults` and skipped names to `notes`.
    """
    sources: list[SourceText] = []
    seen: set[str] = set()
    for path in paths:
        for name, file in _files_of(path, faults, [] if notes is None else notes):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            text = _read(name, file, faults)
            if text is not None:
                sources.append(SourceText(name, text))
    return sources


def _files_of(path: str, faults: list[Fault], notes: list[Fault]) -> list[tuple[str, str]]:
    """List the files of `path`: the name to report and the path to read."""
    walk = PolicyWalk()
    try:
        walk.scan(path)
    except FileNotFoundError:
        faults.append(Fault(path, 0, 0, "there is no such file or directory", "create it, or correct `policies`"))
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        faults.append(Fault(path, 0, 0, f"cannot be read: {reason}", "let this service's user read it"))
        return []
    notes += walk.notes()
    faults += walk.faults
    if not walk.files and not walk.faults:
        hint = "put *.yaml, *.yml or *.json files there, or into directories below it"
        faults.append(Fault(path, 0, 0, "the directory holds no policy files", hint))
    return walk.files


def _read(name: str, file: str, faults: list[Fault]) -> str | None:
    """Read one file, after checking its size."""

    def refuse(message: str, hint: str) -> None:
        faults.append(Fault(name, 1, 1, message, hint))

    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                refuse("is not a regular file", "name policy files only")
                return None
            content = stream.read(MAX_FILE_BYTES + 1) if status.st_size <= MAX_FILE_BYTES else b""
            size = max(status.st_size, len(content))
    except OSError as error:
        refuse(f"cannot be read: {error.strerror}", "let this service's user read it")
        return None
    if size > MAX_FILE_BYTES:
        refuse(
            f"the file has {size / _MIB:.1f} MiB, more than the limit of {MAX_FILE_BYTES // _MIB} MiB",
            "split it into several files",
        )
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        faults.append(Fault(name, line, column, "the file is not UTF-8", "save it as UTF-8 text"))
        return None

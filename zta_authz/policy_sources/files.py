"""Policy files from disk: files and directories to `SourceText`s, and whole sets of them to snapshots.

A directory gives its `*.yaml` and `*.yml`, sorted by name, not those of directories below. Where kubelet mounted a
ConfigMap, each name is a link to `..data/NAME` and `..data` a link that one rename swaps; it is resolved once, so that
all files come from one version of the ConfigMap.
"""

from __future__ import annotations

import gc
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.errors import DocumentErrors, Fault
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zta_authz.model.options import Options

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
SUFFIXES: Final = (".yaml", ".yml")
_MIB: Final = 1024 * 1024
KUBELET_DATA: Final = "..data"


class SnapshotHolder:
    """The snapshot in force. One reference is swapped, so a reader sees the old set or the new one, never a mixture."""

    __slots__ = ("_snapshot",)

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None

    def current(self) -> Snapshot | None:
        """The snapshot in force, None until the first is published."""
        return self._snapshot

    def publish(self, snapshot: Snapshot) -> None:
        """Put `snapshot` in force; what must outlive a reload it takes over from the one before."""
        if self._snapshot is not None:
            snapshot.verifier.take_over(self._snapshot.verifier)
        self._snapshot = snapshot


def load_snapshot(paths: Iterable[str], options: Options) -> Snapshot:
    """Compile every document under `paths`, all or none. Raises `DocumentErrors` with every fault of every file."""
    faults: list[Fault] = []
    sources = read_sources(paths, faults)
    try:
        with _no_collections():
            snapshot = compile_snapshot(sources, options)
    except DocumentErrors as error:
        raise DocumentErrors([*faults, *error.faults]) from None
    if faults:
        raise DocumentErrors(faults)
    return snapshot


@contextmanager
def _no_collections() -> Iterator[None]:
    """Without garbage collections: hardly any of what compiling makes is garbage, and it is three times as fast."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_sources(paths: Iterable[str], faults: list[Fault]) -> list[SourceText]:
    """The text of every policy file under `paths`, each file once. What can't be read goes to `faults`."""
    sources: list[SourceText] = []
    seen: set[str] = set()
    for path in paths:
        for name, file in _files_of(path, faults):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            text = _read(name, file, faults)
            if text is not None:
                sources.append(SourceText(name, text))
    return sources


def _files_of(path: str, faults: list[Fault]) -> Iterator[tuple[str, Path]]:
    """What to call each file of `path`, and where to read it."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            yield path, Path(path)
            return
        data = Path(path, KUBELET_DATA)
        base = data.resolve() if data.is_dir() else Path(path)
        names = sorted(name for name in os.listdir(base) if name.endswith(SUFFIXES) and not name.startswith("."))
    except FileNotFoundError:
        faults.append(Fault(path, 0, 0, "there is no such file or directory", "create it, or mend `policies`"))
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        faults.append(Fault(path, 0, 0, f"cannot be read: {reason}", "let this service's user read it"))
        return
    if not names:
        faults.append(Fault(path, 0, 0, "the directory holds no policy files", "put *.yaml or *.yml files there"))
    yield from ((str(Path(path, name)), base / name) for name in names)


def _read(name: str, file: Path, faults: list[Fault]) -> str | None:
    """The text of one file; its size is judged before anything is read."""

    def refuse(message: str, hint: str) -> None:
        faults.append(Fault(name, 1, 1, message, hint))

    try:
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                refuse("is not a regular file", "name policy files only")
                return None
            content = stream.read(MAX_FILE_BYTES + 1) if found.st_size <= MAX_FILE_BYTES else b""
            size = max(found.st_size, len(content))
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

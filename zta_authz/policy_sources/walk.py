"""Finds policy files: every configured file, and the files with a policy file's name below a configured directory.

In a directory and its subdirectories these are `*.yaml`, `*.yml` and `*.json`, in upper or lower case, sorted by name.
Hidden names (a leading dot) and kustomize's own files are not policies. Other names are skipped and reported. Names
that can't be accessed are faults.

In a ConfigMap mounted by kubelet, each name links through `..data`, a link that one rename swaps. It is resolved once,
so that all files come from the same version of the ConfigMap. Other mounts can lie beside those links.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_DEPTH: Final = 32
"""Levels of nested directories."""
MAX_ENTRIES: Final = 50_000
"""Names below one path, including skipped ones."""
SHOWN_SKIPPED: Final = 20
"""Skipped names of one path that are reported separately."""
_DATA: Final = "..data"
_KUBELET: Final = ".."
_KUSTOMIZATIONS: Final = frozenset(("kustomization.yaml", "kustomization.yml"))
_LOST: Final = "lost+found"
_HIDDEN: Final = "its name begins with a dot"
_ENDING: Final = "its name does not end in .yaml, .yml or .json"


def why_skipped(name: str) -> str | None:
    """Return why a file of this name in a directory is skipped; "" for a policy file, None for kubelet's own names."""
    if name.startswith(_KUBELET):
        return None
    if name.startswith("."):
        return _HIDDEN
    if name.lower() in _KUSTOMIZATIONS:
        return "it is kustomize's own"
    return "" if name.lower().endswith(SUFFIXES) else _ENDING


def is_policy_path(path: Iterable[str]) -> bool:
    """Whether the file at this path (its names below a directory) is read."""
    *folders, name = path
    return not any(folder.startswith(".") or folder == _LOST for folder in folders) and why_skipped(name) == ""


@dataclass(slots=True)
class PolicyWalk:
    """The result of scanning one path. `files` has the name to report and the path to read of each file.

    `skipped` has the names that are not read, with the reason; `roots` has the scanned directories.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _entry_count: int = 0

    def notes(self) -> list[Fault]:
        """Return notes about the skipped names."""
        hint = "if it holds policies, rename it: names end in .yaml, .yml or .json and do not begin with a dot"
        notes = [
            Fault(name, 0, 0, f"is not read as policies: {why}", hint if why in (_HIDDEN, _ENDING) else "")
            for name, why in self.skipped
        ]
        more = len(notes) - SHOWN_SKIPPED
        if more > 0:
            del notes[SHOWN_SKIPPED:]
            notes.append(Fault(self.roots[0], 0, 0, f"{more} more names are not read as policies", hint))
        return notes

    def scan(self, path: str) -> None:
        """Scan a configured path. Raises OSError and ValueError if it can't be accessed."""
        if stat.S_ISDIR(os.stat(path).st_mode):
            self._directory(os.path.normpath(path), path, 0)
        else:
            self.files.append((path, path))

    def _directory(self, label: str, real: str, depth: int) -> None:
        status = os.stat(real)
        if (status.st_dev, status.st_ino) in self._seen:
            self.skipped.append((label, "it links to a directory that is already read"))
            return
        self._seen.add((status.st_dev, status.st_ino))
        self.roots.append(real)
        if depth > MAX_DEPTH:
            self.faults.append(
                Fault(label, 0, 0, f"directories are nested deeper than {MAX_DEPTH}", "configure a lower one")
            )
            return
        for name, entry in sorted(_directory_entries(real).items()):
            self._entry_count += 1
            if self._entry_count > MAX_ENTRIES:
                if self._entry_count == MAX_ENTRIES + 1:
                    message = f"contains more than {MAX_ENTRIES} names"
                    self.faults.append(Fault(label, 0, 0, message, "is it the directory of your policies?"))
                return
            self._add_entry(name if label == os.curdir else os.path.join(label, name), name, entry, depth)

    def _add_entry(self, label: str, name: str, real: str, depth: int) -> None:
        why = why_skipped(name)
        if why is None:
            return
        try:
            is_directory = stat.S_ISDIR(os.stat(real).st_mode)
            if is_directory and not name.startswith(".") and name != _LOST:
                self._directory(label, real, depth + 1)
                return
        except OSError as error:
            if not name.startswith("."):
                self.faults.append(_unreadable(label, real, error))
            return
        if why == "" and not is_directory:
            self.files.append((label, real))
        elif is_directory:
            self.skipped.append((label, why if name.startswith(".") else "it is the file system's own"))
        else:
            self.skipped.append((label, why))


def _unreadable(label: str, real: str, error: OSError) -> Fault:
    if isinstance(error, FileNotFoundError) and os.path.islink(real):
        message = f"links to `{os.readlink(real)}`, which does not exist: policies may be missing"
        return Fault(label, 0, 0, message, "mount or create the link's target, or remove the link")
    return Fault(label, 0, 0, f"cannot be read: {error.strerror}", "let this service's user read it, or remove it")


def _directory_entries(folder: str) -> dict[str, str]:
    """Map the names in a directory to the paths to read. In a ConfigMap, these lie in its current version."""
    names = _list_names(folder)
    data = os.path.join(folder, _DATA)
    if not os.path.isdir(data):
        return names
    others = {name: path for name, path in names.items() if not _links_to_data(path)}
    return {**others, **_list_names(os.path.realpath(data))}


def _list_names(folder: str) -> dict[str, str]:
    with os.scandir(folder) as entries:  # one more than the limit, so that an excess is noticed
        return {entry.name: entry.path for entry in islice(entries, MAX_ENTRIES + 1)}


def _links_to_data(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).split(os.sep, 1)[0] == _DATA

"""Which files are policy files: a file that is named itself, and below a directory each that its name makes one.

A directory gives every `*.yaml`, `*.yml` and `*.json` in it and in the directories below, whatever the case of the
ending, in the order of their names, directories among them. What begins with a dot is hidden, and kustomize's own
files are no policies. Whatever else is there is skipped, and said to be; what can't be looked at is a fault.

Where kubelet mounted a ConfigMap, each name is a link through `..data`, a link that one rename swaps; it is resolved
once, so that all files come from one version of the ConfigMap. What is mounted below it stands beside those links.
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
"""Directories inside each other."""
MAX_ENTRIES: Final = 50_000
"""Names below one path, those that are skipped included."""
SHOWN_SKIPPED: Final = 20
"""Skipped names of one path that are said one by one."""
_DATA: Final = "..data"
_KUBELET: Final = ".."
_KUSTOMIZATIONS: Final = frozenset(("kustomization.yaml", "kustomization.yml"))
_LOST: Final = "lost+found"
_HIDDEN: Final = "its name begins with a dot"
_ENDING: Final = "its name does not end in .yaml, .yml or .json"


def why_skipped(name: str) -> str | None:
    """Why a file of this name below a directory is no policy file; "" for one that is, None for kubelet's own."""
    if name.startswith(_KUBELET):
        return None
    if name.startswith("."):
        return _HIDDEN
    if name.lower() in _KUSTOMIZATIONS:
        return "it is kustomize's own"
    return "" if name.lower().endswith(SUFFIXES) else _ENDING


def is_policy_path(path: Iterable[str]) -> bool:
    """Whether the file at these names below a directory is read."""
    *folders, name = path
    return not any(each.startswith(".") or each == _LOST for each in folders) and why_skipped(name) == ""


@dataclass(slots=True)
class Walk:
    """What one path holds. `files` are what to call each file and where to read it, `faults` what keeps it from us.

    `skipped` are the names that are not read, with the reason; `roots` the directories that were looked into.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _entries: int = 0

    def notes(self) -> list[Fault]:
        """What to tell of the names that are skipped."""
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

    def look(self, path: str) -> None:
        """Look at a path of the settings. Raises OSError and ValueError where it can't be looked at."""
        if stat.S_ISDIR(os.stat(path).st_mode):
            self._directory(os.path.normpath(path), path, 0)
        else:
            self.files.append((path, path))

    def _directory(self, shown: str, real: str, depth: int) -> None:
        found = os.stat(real)
        if (found.st_dev, found.st_ino) in self._seen:
            self.skipped.append((shown, "it is a link to a directory that is read already"))
            return
        self._seen.add((found.st_dev, found.st_ino))
        self.roots.append(real)
        if depth > MAX_DEPTH:
            self.faults.append(Fault(shown, 0, 0, f"directories go deeper than {MAX_DEPTH}", "name a lower one"))
            return
        for name, entry in sorted(_entries(real).items()):
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                if self._entries == MAX_ENTRIES + 1:
                    message = f"holds more than {MAX_ENTRIES} names"
                    self.faults.append(Fault(shown, 0, 0, message, "is it the directory of your policies?"))
                return
            self._one(name if shown == os.curdir else os.path.join(shown, name), name, entry, depth)

    def _one(self, shown: str, name: str, real: str, depth: int) -> None:
        why = why_skipped(name)
        if why is None:
            return
        try:
            is_directory = stat.S_ISDIR(os.stat(real).st_mode)
            if is_directory and not name.startswith(".") and name != _LOST:
                self._directory(shown, real, depth + 1)
                return
        except OSError as error:
            if not name.startswith("."):
                self.faults.append(_unreadable(shown, real, error))
            return
        if why == "" and not is_directory:
            self.files.append((shown, real))
        elif is_directory:
            self.skipped.append((shown, why if name.startswith(".") else "it is the file system's own"))
        else:
            self.skipped.append((shown, why))


def _unreadable(shown: str, real: str, error: OSError) -> Fault:
    if isinstance(error, FileNotFoundError) and os.path.islink(real):
        message = f"is a link to `{os.readlink(real)}`, which is not there: policies may be missing"
        return Fault(shown, 0, 0, message, "mount or create what it leads to, or remove the link")
    return Fault(shown, 0, 0, f"cannot be read: {error.strerror}", "let this service's user read it, or remove it")


def _entries(folder: str) -> dict[str, str]:
    """The names in a directory and where each is read; what kubelet links, in the version that holds now."""
    found = _listed(folder)
    data = os.path.join(folder, _DATA)
    if not os.path.isdir(data):
        return found
    beside = {name: path for name, path in found.items() if not _leads_to_data(path)}
    return {**beside, **_listed(os.path.realpath(data))}


def _listed(folder: str) -> dict[str, str]:
    with os.scandir(folder) as entries:  # one more than may be, so that too many are seen to be
        return {entry.name: entry.path for entry in islice(entries, MAX_ENTRIES + 1)}


def _leads_to_data(path: str) -> bool:
    return os.path.islink(path) and os.readlink(path).split(os.sep, 1)[0] == _DATA

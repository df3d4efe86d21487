"""What tells that policy files changed, without reading them: names, inodes, sizes and times.

Where kubelet mounted a ConfigMap, the target of `..data` says it all, because kubelet writes each version to a new
directory and then swaps that link in one rename. Plain files are told apart by inode (editors replace a file by
renaming another over it), size, and the times of their content and of their inode, to the nanosecond.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from zta_authz.policy_sources.files import KUBELET_DATA, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

Fingerprint = tuple[object, ...]


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """Equal for two calls only if nothing under `paths` changed in between; what can't be looked at counts, too."""
    return tuple(_of_path(path) for path in paths)


def _of_path(path: str) -> tuple[object, ...]:
    try:
        found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            return (path, _of_stat(found))
        data = os.path.join(path, KUBELET_DATA)
        base = os.path.realpath(data) if os.path.isdir(data) else path
        with os.scandir(base) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(SUFFIXES))
    except (OSError, ValueError) as error:
        return (path, type(error).__name__, getattr(error, "errno", None))
    return (path, base, *((name, _of_file(os.path.join(base, name))) for name in names if not name.startswith(".")))


def _of_file(path: str) -> tuple[object, ...]:
    try:
        return _of_stat(os.stat(path))
    except OSError as error:
        return (error.errno,)


def _of_stat(found: os.stat_result) -> tuple[object, ...]:
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

"""What tells that policy files changed, without reading them: names, inodes, sizes and times.

The files are those that are read (`walk`), in directories below as well. Where kubelet mounted a ConfigMap, they lie
in a directory that it makes anew for each version. Files are told apart by inode (editors replace a file by renaming
another over it), size, and the times of their content and of their inode, to the nanosecond.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zta_authz.policy_sources.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable

Fingerprint = tuple[object, ...]


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """Equal for two calls only if nothing under `paths` changed in between; what can't be looked at counts, too."""
    return tuple(_of_path(path) for path in paths)


def _of_path(path: str) -> tuple[object, ...]:
    walk = Walk()
    try:
        walk.look(path)
    except (OSError, ValueError) as error:
        return (path, type(error).__name__, getattr(error, "errno", None))
    files = ((name, file, _of_file(file)) for name, file in walk.files)
    return (path, *walk.roots, *((fault.source, fault.message) for fault in walk.faults), *files)


def _of_file(path: str) -> tuple[object, ...]:
    try:
        return _of_stat(os.stat(path))
    except OSError as error:
        return (error.errno,)


def _of_stat(found: os.stat_result) -> tuple[object, ...]:
    return (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

"""Detects changes of policy files without reading them, by names, inodes, sizes and times.

It looks at the files that `walk` finds, including those in subdirectories. In a mounted ConfigMap, kubelet creates a
new directory for each version. A file's fingerprint is its inode (editors replace a file by renaming another over it),
size, modification time and change time in nanoseconds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from zta_authz.policy_sources.walk import PolicyWalk

if TYPE_CHECKING:
    from collections.abc import Iterable

Fingerprint = tuple[object, ...]


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """Return a value that differs between two calls if anything under `paths` changed, including access errors."""
    return tuple(_of_path(path) for path in paths)


def _of_path(path: str) -> tuple[object, ...]:
    walk = PolicyWalk()
    try:
        walk.scan(path)
    except (OSError, ValueError) as error:
        return (path, type(error).__name__, getattr(error, "errno", None))
    files = ((name, file, _of_file(file)) for name, file in walk.files)
    return (path, *walk.roots, *((fault.source, fault.message) for fault in walk.faults), *files)


def _of_file(path: str) -> tuple[object, ...]:
    try:
        return _of_stat(os.stat(path))
    except OSError as error:
        return (error.errno,)


def _of_stat(file: os.stat_result) -> tuple[object, ...]:
    return (file.st_dev, file.st_ino, file.st_mode, file.st_size, file.st_mtime_ns, file.st_ctime_ns)

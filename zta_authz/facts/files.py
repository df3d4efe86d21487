"""Reads data files with a bound on their size, and notices that one has changed."""

from __future__ import annotations

import os
import stat
from typing import Final

from zta_authz.errors import Fault, SettingsErrors

Stamp = tuple[int, int, int, int]
"""Inode, modification and status change times (ns), and size of the file behind any links; zeros if there is none.

The status change time covers what the others miss: a file that became readable, or that was written with its old times.
"""
NO_FILE: Final[Stamp] = (0, 0, 0, 0)


def stamp(path: str) -> Stamp:
    """The file's stamp. A file that is replaced or written gets another one."""
    try:
        status = os.stat(path)
    except OSError:
        return NO_FILE
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def read_file(path: str, most: int, setting: str) -> tuple[bytes, float]:
    """The content of a regular file of at most `most` bytes, and when it was modified (seconds since the epoch).

    Raises `SettingsErrors`; `setting` names the setting that gives the path.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SettingsErrors([Fault(path, 0, 0, "is not a regular file", f"correct `{setting}`")])
            content = stream.read(most + 1)
    except OSError as error:
        hint = f"correct `{setting}` or the file's permissions"
        raise SettingsErrors([Fault(path, 0, 0, f"cannot be read: {error.strerror}", hint)]) from error
    if len(content) > most:
        message = f"has more than {most} bytes"
        raise SettingsErrors([Fault(path, 0, 0, message, "use a smaller file")])
    return content, status.st_mtime

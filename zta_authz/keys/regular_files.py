"""Small regular files: read them with a bound, and notice that one has changed."""

from __future__ import annotations

import os
import stat

from zta_authz.errors import Fault, SettingsErrors

Stamp = tuple[int, int, int, int]


def read_regular(path: str, most: int, setting: str) -> bytes:
    """Read at most `most` + 1 bytes of a regular file. Raises `SettingsErrors`; `setting` names what to correct."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise SettingsErrors([Fault(path, 0, 0, "is not a regular file", f"correct `{setting}`")])
            return stream.read(most + 1)
    except OSError as error:
        hint = f"correct `{setting}` or the file's permissions"
        raise SettingsErrors([Fault(path, 0, 0, f"cannot be read: {error.strerror}", hint)]) from error


def file_stamp(path: str) -> Stamp:
    """Return inode, modification and status change times (ns), and size of the file behind any links.

    All are zeros if it is missing.
    """
    try:
        status = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)

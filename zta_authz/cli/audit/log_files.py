"""Read the files of decision logs and access logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.audit.segments import finished_segments
from zta_authz.errors import Fault, FaultsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

MAX_LINE_BYTES: Final = 4 * 1024 * 1024


def all_segments(paths: Sequence[str]) -> list[str]:
    """Return the files of the logs at these paths, oldest first. Raises `FaultsError` if a directory can't be read."""
    files = []
    for name in paths:
        path = Path(name)
        try:
            files += [str(segment) for segment in finished_segments(path)]
        except OSError as error:
            raise _unreadable(name, error) from error
        files.append(name)
    return list(dict.fromkeys(files))


def read_lines(name: str) -> Iterator[bytes]:
    r"""Yield the lines of a file with their `\n`. Overlong lines are split, and the parts are not valid records."""
    with _open(name) as file:
        while line := file.readline(MAX_LINE_BYTES):
            yield line


def read_beginning(name: str, size: int = MAX_LINE_BYTES) -> bytes:
    """Return the first `size` bytes of a file. Raises `FaultsError` if it can't be read."""
    with _open(name) as file:
        try:
            return file.read(size)
        except OSError as error:
            raise _unreadable(name, error) from error


def _open(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: OSError) -> FaultsError:
    return FaultsError([Fault(name, 0, 0, f"cannot be read: {error.strerror}", "name a readable file")])

"""Reads the files of a log from their end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from zta_authz.audit.segments import finished_segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_BLOCK_BYTES: Final = 1024 * 1024


def newest_lines(path: Path) -> Iterator[bytes]:
    r"""Yield the complete lines of all files of the log at `path` without their `\n`, newest first. Raises OSError."""
    for file in (path, *reversed(finished_segments(path))):
        with file.open("rb") as opened:
            yield from _lines_backwards(opened)


def _lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    end = file.seek(0, os.SEEK_END)
    rest: bytes | None = None  # the beginning of the line that continues in what was read before
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        file.seek(begin)
        first, *lines = file.read(end - begin).split(b"\n")
        if lines:
            if rest is not None:
                yield lines.pop() + rest
            else:
                lines.pop()  # what follows the last line end is no complete line
            yield from reversed(lines)
            rest = first
        else:
            rest = first + (rest or b"") if rest is not None else None
        end = begin
    if rest is not None:
        yield rest

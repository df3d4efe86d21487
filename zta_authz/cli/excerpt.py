"""Excerpts of files for faults: the line of the fault, and a marker below its column.

Lines that may contain a secret are never printed, because faults end up in CI logs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.cli.output import one_line

if TYPE_CHECKING:
    from zta_authz.errors import Fault

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_EXCERPTS: Final = 100
_WIDTH: Final = 100
"""The maximum number of columns that are printed of a line."""
_BEFORE: Final = 40
"""The number of columns that are printed before the fault's column."""
_SPAN: Final = re.compile(r"[^\s:,\[\]{}]+")
_SECRET_NAME: Final = re.compile(
    r"auth[a-z]*['\"]?\s*:|bearer|token\b|secret|passw|passphrase|cookie|credential|api[-_]?key|private[-_]?key|headers['\"]?\s*:",
    re.IGNORECASE,
)
_OPAQUE: Final = re.compile(
    r"(?=[\w+/=.~-]*[a-z])(?=[\w+/=.~-]*[A-Z])(?=[\w+/=.~-]*\d)[\w+/=.~-]{16,}|[0-9a-fA-F]{24,}"
)


class Excerpts:
    """Returns excerpts, and reads each file only once."""

    def __init__(self) -> None:
        self._files: dict[str, list[str]] = {}
        self._given = 0

    def of(self, fault: Fault) -> list[str]:
        """Return the lines to print below `fault`; [] if it has no line, or the line may contain a secret."""
        lines = self._lines(fault.source) if fault.line and self._given < MAX_EXCERPTS else []
        if not 0 < fault.line <= len(lines):
            return []
        text = lines[fault.line - 1]
        if not text.strip() or _SECRET_NAME.search(text) or _OPAQUE.search(text):
            return []
        self._given += 1
        number = str(fault.line)
        gutter = " " * len(number)
        shown = [f"{gutter} |", f"{number} | {_cut(text, fault.column)[0]}"]
        if 0 < fault.column <= len(text):
            shown.append(f"{gutter} | {_cut(text, fault.column)[1]}")
        return shown

    def _lines(self, name: str) -> list[str]:
        if name not in self._files:
            self._files[name] = _read(name)
        return self._files[name]


def _cut(text: str, column: int) -> tuple[str, str]:
    """Return the part of a line to print, and the marker to print below it."""
    from rich.cells import cell_len

    at = max(0, min(column, len(text)) - 1)
    start = 0 if len(text) <= _WIDTH else max(0, at - _BEFORE)
    end = start + _WIDTH
    left, right = "…" if start else "", "…" if end < len(text) else ""
    span = _SPAN.match(text, at, end)
    before = left + one_line(text[start:at])
    marked = one_line(text[at : span.end() if span else at + 1])
    return left + one_line(text[start:end]) + right, " " * cell_len(before) + "^" * max(1, cell_len(marked))


def _read(name: str) -> list[str]:
    """Return the lines of a file as the YAML reader counts them; [] if it is not a file or too large."""
    try:
        file = Path(name)
        if not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
            return []
        return re.split("\r\n|[\r\n\x85\u2028\u2029]", file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):  # the file was deleted, or `name` is not a path
        return []

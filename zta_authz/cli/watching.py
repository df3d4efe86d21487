"""Doing something again whenever files change."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POLL_SECONDS: Final = 0.5
MAX_FILES: Final = 20_000
"""So many files are looked at; changes of the others are not noticed."""


def repeat_on_change(run: Callable[[], Iterable[str]], sleep: Callable[[float], None] = time.sleep) -> None:
    """Call `run`, which returns the files and directories to watch, and again after each change; never returns."""
    paths = list(run())
    before = _fingerprint(paths)
    while True:
        sleep(POLL_SECONDS)
        now = _fingerprint(paths)
        if now != before:
            before = now  # what changes while it runs is noticed afterwards
            again = list(run())
            if again != paths:
                paths, before = again, _fingerprint(again)


def _fingerprint(paths: Iterable[str]) -> dict[str, tuple[int, int]]:
    fingerprint: dict[str, tuple[int, int]] = {}
    for name in _files(paths):
        if len(fingerprint) >= MAX_FILES:
            break
        try:
            status = os.stat(name)
        except OSError:  # it is gone, which is a change
            continue
        fingerprint[name] = (status.st_mtime_ns, status.st_size)
    return fingerprint


def _files(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, _, names in os.walk(path):
            for name in names:
                yield os.path.join(folder, name)

"""Run a function again whenever files change."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

POLL_SECONDS: Final = 0.5
MAX_FILES: Final = 20_000
"""The maximum number of files that are watched. Changes of further files are not noticed."""


def repeat_on_change(run: Callable[[], Iterable[str]], sleep: Callable[[float], None] = time.sleep) -> None:
    """Call `run` now and after each change of the files and directories that it returns. Never returns."""
    paths = list(run())
    before = _fingerprint(paths)
    while True:
        sleep(POLL_SECONDS)
        now = _fingerprint(paths)
        if now != before:
            before = now  # changes during `run` are noticed in the next turn
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
        except OSError:  # the file was deleted, which is a change
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

"""Chooses what of a working corpus is worth keeping: inputs that run lines of ours, in an order, that no other has run.

libFuzzer's own merge starts the program once more by its name, which a module that Python runs has not.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import FrameType

    from tests.fuzz.target import Target

MAX_KEPT_BYTES = 2048
_OURS = "/zta_authz/"

Arc = tuple[str, int, int]


def arcs_of(target: Target, data: bytes) -> set[Arc]:
    """Which line of ours came after which while `data` was checked; with what was raised, if anything was."""
    found: set[Arc] = set()

    def trace(frame: FrameType, _event: str, _value: Any) -> Any:
        name = frame.f_code.co_filename
        if _OURS not in name:
            return None
        last = frame.f_lineno

        def line(inner: FrameType, _event: str, _value: Any) -> Any:
            nonlocal last
            found.add((name, last, inner.f_lineno))
            last = inner.f_lineno
            return line

        return line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target.check(data)
    finally:
        sys.settrace(before)
    return found


def keep(target: Target, candidates: Iterable[Path], folder: Path) -> int:
    """Copy to `folder` those candidates, smallest first, that add to what seeds and kept inputs run; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    known: set[Arc] = set()
    for data in (*target.seeds().values(), *(path.read_bytes() for path in folder.iterdir())):
        known |= arcs_of(target, data)
    added = 0
    for path in sorted(candidates, key=lambda each: (each.stat().st_size, each.name)):
        data = path.read_bytes()
        if len(data) <= MAX_KEPT_BYTES and not (new := arcs_of(target, data)) <= known:
            known |= new
            (folder / path.name).write_bytes(data)
            added += 1
    return added

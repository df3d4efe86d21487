"""Sharing one interpreter between deciding and compiling, so that a reload is not felt by those who wait for answers.

Three things would be felt, each measured (docs/decisions/0006): a thread that never gives the interpreter up, a
garbage collection over all that is being compiled, and the end of the old rules, which is one call in C. Compiling
therefore rests after each slice of work, the collector looks at young objects only, and old rules end in pieces.
"""

from __future__ import annotations

import gc
import sys
import time
import types
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zta_authz.model.pace import Pause

WORK_SECONDS: Final = 0.00025
REST_SECONDS: Final = 0.00075
SWITCH_SECONDS: Final = 0.0005
"""How long compiling may keep the interpreter where it does not pause by itself. CPython's own interval is 5 ms."""

COLLECTIONS: Final = (700, 2, 1_000_000_000)
"""Meanwhile: after how many new objects, how many of those collections, and (never) how many of the next."""

FEW_BLOCKS: Final = 60_000
"""Of memory, in what was made: some 2,000 rules. A full collection over them takes 3 ms, which nobody notices."""

_NOT_OURS: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)


class CooperativePause:
    """A `Pause` that sleeps for `rest` seconds whenever `work` seconds have passed since it last did."""

    __slots__ = ("_clock", "_rest", "_sleep", "_until", "_work")

    def __init__(
        self,
        work: float = WORK_SECONDS,
        rest: float = REST_SECONDS,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work = work
        self._rest = rest
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + work

    def hurry(self) -> None:
        """Rest no more."""
        self._rest = 0.0

    def __call__(self) -> None:
        """Rest, if it is time."""
        if self._clock() >= self._until:
            self._sleep(self._rest)
            self._until = self._clock() + self._work


@contextmanager
def beside_deciding() -> Iterator[None]:
    """While large things are made in another thread: short turns for it, and no collection over all objects.

    Young objects are still collected, so that what requests leave behind does not pile up meanwhile. Whoever puts the
    result in force calls `freeze_gc` before this ends, or the next collection looks at all of it.
    """
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    _making.begin()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


class _Making:
    """How much was made since `begin`, told by the memory in use: counting objects takes long where there are many."""

    def __init__(self) -> None:
        self._before = 0

    def begin(self) -> None:
        self._before = sys.getallocatedblocks()

    @property
    def is_large(self) -> bool:
        return sys.getallocatedblocks() - self._before > FEW_BLOCKS


_making: Final = _Making()


def freeze_gc(*, at_start: bool = False) -> None:
    """Put everything that is alive out of the collector's sight: a full collection over 100,000 rules takes 127 ms.

    Frozen objects still end when nobody refers to them, but what is in a cycle by then stays for ever: whatever else is
    under way just now, connections and errors among it. So that is done `at_start`, and where much was made beside
    deciding; and what is frozen then should leave no cycles behind: tests hold verifiers and exporters to that. What is
    garbage already is collected before: `at_start` all of it, since nobody waits yet, else the young, in a millisecond.
    """
    if not at_start and not _making.is_large:
        return
    gc.collect() if at_start else gc.collect(1)
    gc.freeze()
    gc.collect()  # nothing is left in sight; else the next full one waits for a quarter as much as was


def release_gradually(roots: list[object], pause: Pause) -> int:
    """Let go of `roots`, which is emptied, and of all that only they hold, one object at a time; how many were held.

    Each object is let go of before those that it refers to, while these are still held here: so none takes more than
    itself with it. Objects that somebody else holds too stay with them.
    """
    held = deque(roots)
    roots.clear()
    seen = {id(each) for each in held}
    found: deque[object] = deque()
    while held:
        each = held.popleft()
        found.append(each)
        for below in gc.get_referents(each):
            if id(below) not in seen and gc.is_tracked(below) and not isinstance(below, _NOT_OURS):
                seen.add(id(below))
                held.append(below)
        del each
        pause()
    count = len(found)
    while found:
        found.popleft()
        pause()
    return count

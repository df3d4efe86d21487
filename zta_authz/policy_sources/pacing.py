"""Shares the interpreter between deciding and compiling, so that a reload does not delay answers.

Three things would delay answers, each measured (docs/decisions/0006): a thread that never releases the interpreter, a
full garbage collection during compilation, and freeing the old rules, which is one C call. So compilation pauses after
each slice of work, the collector looks only at young objects, and old rules are released one object at a time.
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
"""How long compilation may hold the interpreter between its own pauses. CPython's default interval is 5 ms."""

COLLECTIONS: Final = (700, 2, 1_000_000_000)
"""Thresholds of the three garbage collector generations during compilation. The oldest is never collected."""

RARELY: Final = (700, 10, 1000)
"""The same, with about a hundredth of CPython's full collections."""

FEW_BLOCKS: Final = 60_000
"""Memory blocks of about 2,000 rules. A full collection over them takes only 3 ms."""

_SHARED_TYPES: Final = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)


class CooperativePause:
    """A `Pause` that sleeps for `rest` seconds after every `work` seconds."""

    __slots__ = ("_clock", "_next_rest", "_rest", "_sleep", "_work")

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
        self._next_rest = clock() + work

    def hurry(self) -> None:
        """Stop sleeping from now on."""
        self._rest = 0.0

    def __call__(self) -> None:
        """Sleep if it is time."""
        if self._clock() >= self._next_rest:
            self._sleep(self._rest)
            self._next_rest = self._clock() + self._work


@contextmanager
def background_compilation() -> Iterator[None]:
    """Shorten the thread switch interval and prevent full collections while another thread compiles.

    Young objects are still collected, so that garbage of requests does not pile up. Call `freeze_gc` before this ends
    when you put the result in force; otherwise the next collection looks at all of it.
    """
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    _growth.start()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    gc.set_threshold(*COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


class _MemoryGrowth:
    """The growth of memory since `start`, in allocated blocks, because counting many objects is slow."""

    def __init__(self) -> None:
        self._before = 0

    def start(self) -> None:
        self._before = sys.getallocatedblocks()

    @property
    def is_large(self) -> bool:
        return sys.getallocatedblocks() - self._before > FEW_BLOCKS


_growth: Final = _MemoryGrowth()


def freeze_gc(*, at_start: bool = False) -> None:
    """Hide all live objects from the collector: a full collection over 100,000 rules takes 127 ms.

    Reference counting still frees frozen objects, but a frozen cycle stays forever, including cycles of connections and
    errors that happen to be alive now. So freeze only `at_start` and after a large compilation. Frozen objects must not
    leave cycles behind; tests check this for verifiers and exporters. Existing garbage is collected first: all of it
    `at_start`, when nobody waits yet, and otherwise only the young, which takes a millisecond.
    """
    if not at_start and not _growth.is_large:
        return
    gc.collect() if at_start else gc.collect(1)
    gc.freeze()
    gc.collect()  # resets the count of old objects, which otherwise postpones the next full collection


def collect_rarely() -> None:
    """Make full collections rare in a process with many long-lived objects, such as the streams of 1,000 followers.

    A full collection over those takes 100 ms and more. Young garbage is collected as before.
    """
    gc.set_threshold(*RARELY)


def freeze_growth() -> None:
    """Hide all live objects from the collector while many are added: a full collection over them delays answers.

    As `freeze_gc` says, a frozen cycle stays forever, so do it rarely. Garbage among young objects is collected first.
    """
    gc.collect(1)
    gc.freeze()


def release_gradually(roots: list[object], pause: Pause) -> int:
    """Release `roots` and all objects that only they refer to, one object at a time, and return how many were visited.

    Empties `roots`. Each object is released before the objects that it refers to, while this function still holds
    those, so no release frees more than one object. Objects with other references stay alive.
    """
    unvisited = deque(roots)
    roots.clear()
    seen = {id(root) for root in unvisited}
    visited: deque[object] = deque()
    while unvisited:
        parent = unvisited.popleft()
        visited.append(parent)
        for child in gc.get_referents(parent):
            if id(child) not in seen and gc.is_tracked(child) and not isinstance(child, _SHARED_TYPES):
                seen.add(id(child))
                unvisited.append(child)
        del parent
        pause()
    count = len(visited)
    while visited:
        visited.popleft()
        pause()
    return count

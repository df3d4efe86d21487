"""The times at which one check passes its stages, recorded only for timed calls, because reading a clock costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Stages:
    """The end of each stage of one call, in nanoseconds since the epoch by `clock`; 0 if not reached.

    `conditions` counts the CEL conditions evaluated, and `conditions_ns` is their time, a part of that from
    `identified` to `decided`. `sampled` asks for a span. Recording changes no decision.
    """

    __slots__ = ("clock", "conditions", "conditions_ns", "decided", "identified", "parsed", "sampled")

    def __init__(self, clock: Callable[[], int], *, sampled: bool = False) -> None:
        self.clock = clock
        self.sampled = sampled
        self.parsed = 0
        self.identified = 0
        self.decided = 0
        self.conditions = 0
        self.conditions_ns = 0

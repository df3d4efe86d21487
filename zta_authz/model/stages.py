"""How far one check has come, and when: noted only for calls that are timed, because each look at a clock costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Stages:
    """When each stage of one call ended, in nanoseconds since the epoch as `clock` tells; 0 where it was not reached.

    `conditions` CEL conditions were evaluated in `conditions_ns`, a part of the time from `identified` to `decided`.
    `sampled`: a span is wanted. Noting changes no decision.
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

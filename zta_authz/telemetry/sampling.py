"""Which calls are traced: as their parent says, else by chance, and some whatever was said.

Source: W3C Trace Context (traceparent); OpenTelemetry's ParentBased sampler.
"""

from __future__ import annotations

from random import random as _chance  # from 0, and below 1
from typing import TYPE_CHECKING, Final, Literal

from zta_authz.errors import ANSWERS
from zta_authz.model.trace_context import call_parent

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from zta_authz.ports import CheckEvent

Keep = Literal["denials", "errors"]

KEPT_PER_SECOND: Final = 1000
"""Spans that are kept although not sampled: a flood of denials must not become a flood of spans."""

_NANOSECONDS: Final = 1_000_000_000
_SERVER_FAULT: Final = 500


class Sampling:
    """Says which calls are traced. `ratio` (0 to 1) is for calls whose metadata has no parent, and may be changed.

    `keep`: what is kept although it was not sampled: `denials` each call that was denied, `errors` each that we
    answered with a 5xx status. Past `KEPT_PER_SECOND` they are counted in `skipped` instead.
    """

    __slots__ = ("_denials", "_errors", "_kept", "_second", "ratio", "skipped")

    def __init__(self, ratio: float, keep: Collection[Keep]) -> None:
        self.ratio = ratio
        self._denials = "denials" in keep
        self._errors = "errors" in keep
        self._second = 0
        self._kept = 0
        self.skipped = 0

    def samples(self, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        """Whether the call with this metadata is sampled: as its parent was, by chance where it has none."""
        parent = call_parent(metadata)
        if parent is not None:
            return parent.sampled
        return _chance() < self.ratio  # noqa: S311  chance, not secrecy

    def keeps(self, event: CheckEvent) -> bool:
        """Whether an answered call that was not sampled is traced all the same."""
        decision = event.decision
        if decision.allowed or not (self._denials or self._failed(event)):
            return False
        second = event.ended_ns // _NANOSECONDS
        if second != self._second:
            self._second, self._kept = second, 0
        if self._kept >= KEPT_PER_SECOND:
            self.skipped += 1
            return False
        self._kept += 1
        return True

    def _failed(self, event: CheckEvent) -> bool:
        if not self._errors:
            return False
        answer = ANSWERS.get(event.decision.reason)
        return answer is not None and answer.status >= _SERVER_FAULT

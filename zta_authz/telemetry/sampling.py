"""Decides which calls are traced: by the parent's flag, else at random, and some kinds always.

Source: W3C Trace Context (traceparent); OpenTelemetry's ParentBased sampler.
"""

from __future__ import annotations

from random import random as _random  # 0 <= x < 1
from typing import TYPE_CHECKING, Final, Literal

from zta_authz.errors import DENIAL_RESPONSES
from zta_authz.model.trace_context import call_parent

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from zta_authz.ports import CheckEvent

Keep = Literal["denials", "errors"]

KEPT_PER_SECOND: Final = 1000
"""Limit for spans kept without sampling, so that a flood of denials does not become a flood of spans."""

_NANOSECONDS: Final = 1_000_000_000
_SERVER_FAULT: Final = 500


class Sampling:
    """Decides which calls are traced. `ratio` (0 to 1) applies to calls without a parent and may be changed.

    `keep` names unsampled calls that are traced too: `denials` for every denied call, `errors` for every call answered
    with a 5xx status. Past `KEPT_PER_SECOND` they are only counted in `skipped`.
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
        """Whether a call with this metadata is sampled: like its parent, or at random without one."""
        parent = call_parent(metadata)
        if parent is not None:
            return parent.sampled
        return _random() < self.ratio  # noqa: S311  not security-relevant

    def keeps(self, event: CheckEvent) -> bool:
        """Whether an answered, unsampled call is traced anyway."""
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
        answer = DENIAL_RESPONSES.get(event.decision.reason)
        return answer is not None and answer.status >= _SERVER_FAULT

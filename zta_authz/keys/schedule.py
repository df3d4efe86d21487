"""When to fetch a key set next, and until when the one at hand holds. No clock: every method is told the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EARLY: Final = (0.75, 0.9)
"""Keys are refreshed after this share of their lifetime, so that many services do not ask in the same second."""
_RETRY_SHARE: Final = (0.5, 1.0)
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds.

    `refresh`: how long keys are fresh where the answer does not say; what it says counts between `min_refresh` and
    `max_refresh`. `max_stale`: how much longer keys hold when they can't be renewed. `unknown_kid`: how long after one
    fetch a token with an unknown key may cause the next. `retry`, `max_retry`: first and longest wait after a failure.
    """

    refresh: float = 300.0
    min_refresh: float = 10.0
    max_refresh: float = 24 * 3600.0
    max_stale: float = 3600.0
    unknown_kid: float = 30.0
    retry: float = 1.0
    max_retry: float = 60.0


DEFAULT_TIMING: Final = Timing()


class Schedule:
    """Of one source of keys. `next_at`: when to fetch; `drop_at`: when its keys no longer hold, None without keys."""

    __slots__ = ("_jitter", "_started_at", "_timing", "drop_at", "failures", "next_at")

    def __init__(self, timing: Timing, now: float, jitter: Callable[[float, float], float]) -> None:
        """Due at once. `jitter` gives a number between the two that it gets."""
        self._timing = timing
        self._jitter = jitter
        self._started_at = now - timing.unknown_kid
        self.next_at = now
        self.drop_at: float | None = None
        self.failures = 0

    def started(self, now: float) -> None:
        """A fetch begins."""
        self._started_at = now

    def succeeded(self, now: float, max_age: float | None) -> None:
        """It brought keys, whose sender says that they are fresh for `max_age` seconds (None: does not say)."""
        timing = self._timing
        said = timing.refresh if max_age is None else max_age
        lifetime = min(max(said, timing.min_refresh), timing.max_refresh)
        self.failures = 0
        self.next_at = now + lifetime * self._jitter(*_EARLY)
        self.drop_at = now + lifetime + timing.max_stale

    def failed(self, now: float) -> None:
        """It brought none: wait twice as long as after the failure before."""
        timing = self._timing
        wait = min(timing.retry * 2.0 ** min(self.failures, _MAX_DOUBLINGS), timing.max_retry)
        self.failures += 1
        self.next_at = now + wait * self._jitter(*_RETRY_SHARE)

    def key_unknown(self, now: float) -> None:
        """A token named a key that is not there: fetch soon, but not too soon after the last time."""
        self.next_at = min(self.next_at, max(now, self._started_at + self._timing.unknown_kid))

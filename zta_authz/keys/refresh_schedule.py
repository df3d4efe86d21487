"""When to fetch a key set next, and when the current one expires. Has no clock: callers pass the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_EARLY: Final = (0.75, 0.9)
"""Keys are refreshed after a random share of their lifetime, so that services don't all fetch in the same second."""
_RETRY_SHARE: Final = (0.5, 1.0)
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Timing:
    """Refresh intervals, all in seconds.

    `refresh`: how long keys are fresh if the response does not say. `min_refresh`, `max_refresh`: bounds for what the
    response says. `max_stale`: how long keys stay valid after that if they can't be renewed. `unknown_kid`: least time
    between a fetch and the next one caused by an unknown key ID. `retry`, `max_retry`: first and longest wait after a
    failure.
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
    """The schedule of one source. `next_at`: when to fetch; `drop_at`: when its keys expire, None without keys."""

    __slots__ = ("_jitter", "_started_at", "_timing", "drop_at", "failures", "next_at")

    def __init__(self, timing: Timing, now: float, jitter: Callable[[float, float], float]) -> None:
        """Create a schedule that is due at once. `jitter` returns a number between its two arguments."""
        self._timing = timing
        self._jitter = jitter
        self._started_at = now - timing.unknown_kid
        self.next_at = now
        self.drop_at: float | None = None
        self.failures = 0

    def started(self, now: float) -> None:
        """Record that a fetch starts."""
        self._started_at = now

    def succeeded(self, now: float, max_age: float | None) -> None:
        """Record a fetch of keys that are fresh for `max_age` seconds (None: the server does not say)."""
        timing = self._timing
        stated = timing.refresh if max_age is None else max_age
        lifetime = min(max(stated, timing.min_refresh), timing.max_refresh)
        self.failures = 0
        self.next_at = now + lifetime * self._jitter(*_EARLY)
        self.drop_at = now + lifetime + timing.max_stale

    def failed(self, now: float) -> None:
        """Record a failed fetch and double the wait."""
        timing = self._timing
        wait = min(timing.retry * 2.0 ** min(self.failures, _MAX_DOUBLINGS), timing.max_retry)
        self.failures += 1
        self.next_at = now + wait * self._jitter(*_RETRY_SHARE)

    def key_unknown(self, now: float) -> None:
        """Move the next fetch forward because a token names an unknown key, within the `unknown_kid` limit."""
        self.next_at = min(self.next_at, max(now, self._started_at + self._timing.unknown_kid))

"""Refuse calls that have no time left for an answer, and count answers that were ready too late."""

from __future__ import annotations

from typing import Final, Protocol

from zta_authz.errors import Reason

MARGIN_SECONDS: Final = 0.002
"""A call with less time left than this is late: its answer still has to be made, sent and read."""


class TimedCall(Protocol):
    """The context of a call, such as `grpc.aio.ServicerContext`."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller gives up (0 or less: it has), or None without a deadline."""
        ...


class Deadlines:
    """Deadline checks shared by all servers of the process. `late_answers` counts answers ready after the deadline."""

    __slots__ = ("late_answers",)

    def __init__(self) -> None:
        self.late_answers = 0

    def judge(self, context: TimedCall) -> Reason | None:
        """Return the reason to refuse this call, or None to decide it."""
        return Reason.DEADLINE_EXCEEDED if self.is_late(context) else None

    def is_late(self, context: TimedCall) -> bool:
        """Return True if no time is left for an answer."""
        left = context.time_remaining()
        return left is not None and left < MARGIN_SECONDS

    def answered(self, context: TimedCall) -> None:
        """Count the answer, which is ready now, as late if the deadline has passed."""
        left = context.time_remaining()
        if left is not None and left <= 0:
            self.late_answers += 1

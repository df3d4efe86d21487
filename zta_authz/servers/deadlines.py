"""The caller's deadline: a call without time for its answer is turned away, and an answer that came late is counted."""

from __future__ import annotations

from typing import Final, Protocol

from zta_authz.errors import Reason

MARGIN_SECONDS: Final = 0.002
"""A call with less time than this is late: its answer has to be made, sent and read."""


class Timed(Protocol):
    """The context of a call; `grpc.aio.ServicerContext` is one."""

    def time_remaining(self) -> float | None:
        """Seconds until its caller waits no longer, 0 or less once it does not; None without a deadline."""
        ...


class Deadlines:
    """One for all servers of the process. `late_answers` are decisions that took until after the deadline."""

    __slots__ = ("late_answers",)

    def __init__(self) -> None:
        self.late_answers = 0

    def judge(self, context: Timed) -> Reason | None:
        """Why this call is turned away; None where it is to be decided."""
        return Reason.DEADLINE_EXCEEDED if self.is_late(context) else None

    def is_late(self, context: Timed) -> bool:
        """Whether there is no time left for an answer."""
        left = context.time_remaining()
        return left is not None and left < MARGIN_SECONDS

    def answered(self, context: Timed) -> None:
        """The call was decided, and its answer is ready."""
        left = context.time_remaining()
        if left is not None and left <= 0:
            self.late_answers += 1

"""Records a collector's reply to the SDK's exporters, which don't return it."""

from __future__ import annotations

from typing import Any, Final

from zta_authz.otlp.messages import Signal, printable

MAX_REPLY_BYTES: Final = 64 * 1024
_REJECTED: Final = {Signal.TRACES: "rejected_spans", Signal.METRICS: "rejected_data_points"}


class ReplyRecorder:
    """The reply to the last request: the status of a failure, or how many items were rejected and why."""

    __slots__ = ("detail", "rejected")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the last reply, before a new batch."""
        self.rejected, self.detail = 0, ""

    def refused(self, status: str) -> None:
        """Record that the last attempt failed."""
        self.rejected, self.detail = 0, status

    def accepted(self, reply: Any, signal: Signal) -> None:
        """Record that the collector accepted the request; `reply` is its Export...ServiceResponse."""
        partial = reply.partial_success
        self.rejected = max(0, getattr(partial, _REJECTED[signal]))
        self.detail = printable(partial.error_message)

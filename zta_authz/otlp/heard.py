"""What a collector said to a request of the SDK's exporters, which keep it to themselves."""

from __future__ import annotations

from typing import Any, Final

from zta_authz.otlp.messages import Signal, printable

MAX_REPLY_BYTES: Final = 64 * 1024
_REJECTED: Final = {Signal.TRACES: "rejected_spans", Signal.METRICS: "rejected_data_points"}


class Heard:
    """What the collector said to the last request: a status if it was not taken, else what it rejected, and why."""

    __slots__ = ("rejected", "said")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A new batch begins."""
        self.rejected, self.said = 0, ""

    def refused(self, status: str) -> None:
        """The last try failed."""
        self.rejected, self.said = 0, status

    def taken(self, reply: Any, signal: Signal) -> None:
        """The collector took the request; `reply` is its Export...ServiceResponse."""
        partial = reply.partial_success
        self.rejected = max(0, getattr(partial, _REJECTED[signal]))
        self.said = printable(partial.error_message)

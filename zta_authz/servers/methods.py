"""The gRPC methods that both servers answer: Envoy's `Check`, as bytes in and bytes out, and the caller's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from zta_authz.errors import Reason

MARGIN_SECONDS: Final = 0.002
"""A call with less time left than this is late: its answer still has to be made, sent and read."""


class TimedCall(Protocol):
    """The context of a call, such as `grpc.aio.ServicerContext`."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller gives up (0 or less: it has), or None without a deadline."""
        ...


class CallContext:
    """A call's metadata and deadline: the part of `grpc.aio.ServicerContext` that methods use, for the fast server."""

    __slots__ = ("_deadline", "_metadata")

    def __init__(self, metadata: Sequence[tuple[str, str | bytes]], deadline: float | None) -> None:
        """`deadline` is a `time.monotonic` time, or None without a deadline."""
        self._metadata = metadata
        self._deadline = deadline

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return the call's metadata, with names in lower case."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, negative once it has passed, or None without a deadline."""
        return None if self._deadline is None else self._deadline - time.monotonic()


class Deadlines:
    """Deadline checks shared by all servers of the process. `late_answers` counts answers ready after the deadline."""

    __slots__ = ("late_answers",)

    def __init__(self) -> None:
        self.late_answers = 0

    def judge(self, context: TimedCall) -> Reason | None:
        """Return the reason to refuse this call, or None to decide it."""
        left = context.time_remaining()
        return Reason.DEADLINE_EXCEEDED if left is not None and left < MARGIN_SECONDS else None

    def answered(self, context: TimedCall) -> None:
        """Count the answer, which is ready now, as late if the deadline has passed."""
        left = context.time_remaining()
        if left is not None and left <= 0:
            self.late_answers += 1


AUTHORIZATION_SERVICE: Final = "envoy.service.auth.v3.Authorization"


CHECK: Final = "Check"


Unary = Callable[[bytes, Any, str], bytes]
"""A unary method: (request bytes, the call's context, the caller's SPIFFE ID) to response bytes. It never blocks."""


Methods = Mapping[str, Mapping[str, Unary]]
"""Methods by service name and method name."""


MAX_CHECK_BYTES: Final = 4 * 1024 * 1024
"""Fits a CheckRequest with the largest headers and body; larger ones are denied."""


class Checks(Protocol):
    """Answers Check calls and never raises."""

    @property
    def wants_metadata(self) -> bool:
        """True if the servicer reads the calls' metadata."""
        ...

    def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]], caller: str) -> bytes:
        """Return the CheckResponse to the CheckRequest in `payload`; `caller` is a SPIFFE ID, "" on a Unix socket."""
        ...

    def refuse(self, reason: Reason) -> bytes:
        """Return a denying CheckResponse without reading the request."""
        ...


def unread_checks(checks: Checks) -> Mapping[str, Callable[[bool], bytes]]:
    """Return answers, by path, for Check calls whose message the server did not read.

    The argument is True if too many bytes were under way at once, False if the message was too large.
    """
    return {
        f"/{AUTHORIZATION_SERVICE}/{CHECK}": lambda buffer_full: checks.refuse(
            Reason.OVERLOADED if buffer_full else Reason.REQUEST_TOO_LARGE
        )
    }


def authorization_methods(
    checks: Checks, deadlines: Deadlines | None = None, max_bytes: int = MAX_CHECK_BYTES
) -> Methods:
    """Return Envoy's `Check`. It denies a message of more than `max_bytes` unread.

    `deadlines` decides first whether to refuse a call, and is called after each decision.
    """
    deadlines = deadlines or Deadlines()
    judge, answered = deadlines.judge, deadlines.answered

    def check(payload: bytes, context: Any, caller: str) -> bytes:
        if len(payload) > max_bytes:
            return checks.refuse(Reason.REQUEST_TOO_LARGE)
        refusal = judge(context)
        if refusal is not None:
            return checks.refuse(refusal)
        metadata = context.invocation_metadata() if checks.wants_metadata else ()
        response = checks.check(payload, metadata, caller)
        answered(context)
        return response

    return {AUTHORIZATION_SERVICE: {CHECK: check}}

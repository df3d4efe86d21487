"""The methods that both servers answer: Envoy's `Check`, as bytes in and bytes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from zta_authz.errors import Reason
from zta_authz.servers.deadlines import Deadlines

AUTHORIZATION_SERVICE: Final = "envoy.service.auth.v3.Authorization"


CHECK: Final = "Check"


Unary = Callable[[bytes, Any, str], bytes]
"""One method: (request bytes, the call's context, the caller's SPIFFE ID) to response bytes. It waits for nothing."""


Methods = Mapping[str, Mapping[str, Unary]]
"""Methods by name, by their service's full name."""


MAX_CHECK_BYTES: Final = 4 * 1024 * 1024
"""A CheckRequest with the largest headers and body; one that is larger is denied."""


class Checks(Protocol):
    """What answers Check calls; it never raises."""

    @property
    def wants_metadata(self) -> bool:
        """True where the calls' metadata is looked at."""
        ...

    def check(self, payload: bytes, metadata: Sequence[tuple[str, str | bytes]], caller: str) -> bytes:
        """The CheckResponse to a CheckRequest that `caller` (a SPIFFE ID, "" on a Unix socket) sends."""
        ...

    def refuse(self, reason: Reason) -> bytes:
        """A denying CheckResponse, made without looking at the request."""
        ...


def unread_checks(checks: Checks) -> Mapping[str, Callable[[bool], bytes]]:
    """Answers to Check calls whose message a server did not read: one was too large, or (true) too many at once."""
    return {
        f"/{AUTHORIZATION_SERVICE}/{CHECK}": lambda too_much: checks.refuse(
            Reason.OVERLOADED if too_much else Reason.REQUEST_TOO_LARGE
        )
    }


def authorization_methods(
    checks: Checks, deadlines: Deadlines | None = None, max_bytes: int = MAX_CHECK_BYTES
) -> Methods:
    """Envoy's `Check`. A message of more than `max_bytes` is denied unread.

    `deadlines` look at a call's context first and say why it is turned away, and are told of each that was decided.
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
        answer = checks.check(payload, metadata, caller)
        answered(context)
        return answer

    return {AUTHORIZATION_SERVICE: {CHECK: check}}

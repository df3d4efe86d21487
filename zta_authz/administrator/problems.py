"""What the administrator's two APIs answer instead of a result: one table of reasons, for gRPC and for HTTP.

In HTTP a refusal is `application/problem+json` (RFC 9457) with the members `type`, `title`, `status`, `detail` and
`reason`. In gRPC it is a status whose trailing metadata has the reason as `zta-reason`. Neither says anything about the
administrator's own failures but that they happened; the log has more.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.store.port import InvalidChange, StoreError, StoreUnavailable
from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

MAX_RUNNING: Final = 64
"""Operations that one API runs at the same time. More are refused."""
OPERATION_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2
"""When to call again after `unavailable` and `overloaded`."""
_TYPE: Final = "urn:zta-authz:problem:"
_MAX_DETAIL: Final = 1000
_UNCERTAIN: Final = "the change may have been made: look before you repeat it"
_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


OK: Final = "ok"
NOT_EXCHANGED: Final = "not_exchanged"
"""A token that `/token` did not exchange; its answer is an error of OAuth."""


class CallCounts:
    """Calls since the start, by API (`http`, `grpc`) and result: `OK`, `NOT_EXCHANGED` or a reason."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def add(self, api: str, result: str) -> None:
        """Count one call."""
        self.calls[api, str(result)] += 1


class ApiReason(StrEnum):
    """Why a call is refused before any operation runs, or fails. Values are stable, as those of `Refusal`."""

    MALFORMED = "malformed"
    NO_SUCH_PATH = "no_such_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    CROSS_SITE = "cross_site"  # a page of another site sent the request
    OVERLOADED = "overloaded"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a reason is answered: the HTTP status, the name of gRPC's status, and the title."""

    status: HTTPStatus
    code: str
    title: str


KINDS: Final[Mapping[Refusal | ApiReason, Kind]] = {
    Refusal.NOT_ALLOWED: Kind(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "No policy allows this"),
    Refusal.UNAUTHENTICATED: Kind(HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED", "The caller is not authenticated"),
    Refusal.INVALID: Kind(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "An argument is not valid"),
    Refusal.NOT_FOUND: Kind(HTTPStatus.NOT_FOUND, "NOT_FOUND", "It does not exist"),
    Refusal.NOT_ELIGIBLE: Kind(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "The caller may not ask for this"),
    Refusal.NOT_AN_APPROVER: Kind(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "The caller is not an approver"),
    Refusal.OWN_REQUEST: Kind(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "Somebody else has to decide"),
    Refusal.ALREADY_APPROVED: Kind(HTTPStatus.CONFLICT, "FAILED_PRECONDITION", "The caller has approved it already"),
    Refusal.ALREADY_DECIDED: Kind(HTTPStatus.CONFLICT, "FAILED_PRECONDITION", "It is decided already"),
    Refusal.SCOPE_CHANGED: Kind(HTTPStatus.CONFLICT, "FAILED_PRECONDITION", "This is not what was asked for"),
    Refusal.TOO_LONG: Kind(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "The duration is not allowed"),
    Refusal.REASON_REQUIRED: Kind(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "A reason is required"),
    Refusal.TOO_MANY: Kind(HTTPStatus.CONFLICT, "FAILED_PRECONDITION", "Too many are open"),
    Refusal.REVIEW_OPEN: Kind(HTTPStatus.CONFLICT, "FAILED_PRECONDITION", "A review is open"),
    Refusal.UNAVAILABLE: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", "The administrator can't do this now"),
    ApiReason.MALFORMED: Kind(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", "The request is malformed"),
    ApiReason.NO_SUCH_PATH: Kind(HTTPStatus.NOT_FOUND, "UNIMPLEMENTED", "There is no such path"),
    ApiReason.METHOD_NOT_ALLOWED: Kind(HTTPStatus.METHOD_NOT_ALLOWED, "UNIMPLEMENTED", "The path has another method"),
    ApiReason.TOO_LARGE: Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RESOURCE_EXHAUSTED", "The request is too large"),
    ApiReason.UNSUPPORTED_MEDIA_TYPE: Kind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT", "The body has another type"
    ),
    ApiReason.CROSS_SITE: Kind(HTTPStatus.FORBIDDEN, "PERMISSION_DENIED", "Another site sent the request"),
    ApiReason.OVERLOADED: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "UNAVAILABLE", "Too many calls at the same time"),
    ApiReason.INTERNAL_ERROR: Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "The administrator failed"),
}


class CallRefused(ZtaError):
    """A call is refused before any operation. The message is for the caller."""

    def __init__(self, reason: ApiReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """A refused or failed call. `detail` is for people, `challenge` for programs that can authenticate their user."""

    reason: Refusal | ApiReason
    detail: str
    challenge: str = ""

    @property
    def kind(self) -> Kind:
        """How it is answered."""
        return KINDS[self.reason]

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed after `RETRY_SECONDS`."""
        return self.kind.status is HTTPStatus.SERVICE_UNAVAILABLE

    def members(self) -> dict[str, object]:
        """The members of `application/problem+json`."""
        kind = self.kind
        return {
            "type": f"{_TYPE}{self.reason}",
            "title": kind.title,
            "status": kind.status.value,
            "detail": self.detail,
            "reason": str(self.reason),
        }


def problem_of(error: Exception) -> Problem:
    """The problem that an error is to the caller. Logs what the caller does not learn."""
    if isinstance(error, OperationRefused):
        challenge = error.challenge or ("Bearer" if error.refusal is Refusal.UNAUTHENTICATED else "")
        return Problem(error.refusal, str(error)[:_MAX_DETAIL], challenge)
    if isinstance(error, CallRefused):
        return Problem(error.reason, str(error)[:_MAX_DETAIL])
    if isinstance(error, InvalidChange):
        return Problem(Refusal.INVALID, "a value is too long, or has characters that are not allowed")
    if isinstance(error, TimeoutError):
        _LOG.error("an operation took longer than %g s", OPERATION_SECONDS)
        return Problem(Refusal.UNAVAILABLE, f"this took too long; {_UNCERTAIN}")
    if isinstance(error, StoreError):
        _LOG.error("an operation failed, because of the store: %s", error)
        uncertain = isinstance(error, StoreUnavailable) and error.uncertain
        return Problem(Refusal.UNAVAILABLE, "the store can't be used now" + (f"; {_UNCERTAIN}" if uncertain else ""))
    _LOG.error("an operation failed: %s at %s", type(error).__qualname__, _place(error))
    return Problem(ApiReason.INTERNAL_ERROR, "see the log of the administrator")


def _place(error: Exception) -> str:
    """Where an error was raised. Its message may have anything in it."""
    trace = traceback.extract_tb(error.__traceback__)
    return f"{trace[-1].filename}:{trace[-1].lineno}" if trace else "an unknown place"


class RunningCalls:
    """Bounds the operations that run at the same time, and the time of each."""

    def __init__(self) -> None:
        self._running = 0

    async def run(self, operation: Awaitable[_Result]) -> _Result:
        """Await `operation`. Raises `CallRefused`, TimeoutError, and what the operation raises."""
        if self._running >= MAX_RUNNING:
            if asyncio.iscoroutine(operation):
                operation.close()
            raise CallRefused(ApiReason.OVERLOADED, f"{MAX_RUNNING} calls are running")
        self._running += 1
        try:
            async with asyncio.timeout(OPERATION_SECONDS):
                return await operation
        finally:
            self._running -= 1

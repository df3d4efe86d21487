"""The life of a request for access and of a grant, as closed tables. Pure.

requested -> approved | denied | withdrawn | lapsed
scheduled -> active | revoked | ended;  active -> expired | revoked | ended
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.errors import ZtaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RequestState(StrEnum):
    """The state of a request."""

    REQUESTED = "requested"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


class GrantState(StrEnum):
    """The state of a grant."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"
    ENDED = "ended"  # by its holder


class Refusal(StrEnum):
    """Why an operation is refused. Values are stable: they are the codes of the administrator's API."""

    NOT_ALLOWED = "not_allowed"  # no policy of `zta-admin` allows the call
    UNAUTHENTICATED = "unauthenticated"
    INVALID = "invalid"  # an argument makes no sense
    NOT_FOUND = "not_found"
    NOT_ELIGIBLE = "not_eligible"
    NOT_AN_APPROVER = "not_an_approver"
    OWN_REQUEST = "own_request"
    ALREADY_APPROVED = "already_approved"  # by this person
    ALREADY_DECIDED = "already_decided"
    SCOPE_CHANGED = "scope_changed"
    TOO_LONG = "too_long"
    REASON_REQUIRED = "reason_required"
    TOO_MANY = "too_many"
    REVIEW_OPEN = "review_open"
    UNAVAILABLE = "unavailable"  # the store or the log


class OperationRefused(ZtaError):
    """An operation is refused. The message is for the caller and contains no secrets.

    `challenge` is how an unauthenticated caller can authenticate, as `WWW-Authenticate` has it; "" if it is not known.
    """

    def __init__(self, refusal: Refusal, message: str, challenge: str = "") -> None:
        super().__init__(message)
        self.refusal = refusal
        self.challenge = challenge


_FROM_REQUESTED: Final = frozenset(
    (RequestState.APPROVED, RequestState.DENIED, RequestState.WITHDRAWN, RequestState.LAPSED)
)
REQUEST_TRANSITIONS: Final[Mapping[RequestState, frozenset[RequestState]]] = {
    RequestState.REQUESTED: _FROM_REQUESTED,
    **{state: frozenset() for state in _FROM_REQUESTED},
}
_OVER: Final = frozenset((GrantState.EXPIRED, GrantState.REVOKED, GrantState.ENDED))
GRANT_TRANSITIONS: Final[Mapping[GrantState, frozenset[GrantState]]] = {
    GrantState.SCHEDULED: frozenset((GrantState.ACTIVE, GrantState.REVOKED, GrantState.ENDED)),
    GrantState.ACTIVE: _OVER,
    **{state: frozenset() for state in _OVER},
}


def move_request(state: RequestState, to: RequestState) -> RequestState:
    """Return `to`. Raises `OperationRefused` if the request can't get there."""
    if to not in REQUEST_TRANSITIONS[state]:
        raise OperationRefused(Refusal.ALREADY_DECIDED, f"the request is {state} already")
    return to


def move_grant(state: GrantState, to: GrantState) -> GrantState:
    """Return `to`. Raises `OperationRefused` if the grant can't get there."""
    if to not in GRANT_TRANSITIONS[state]:
        raise OperationRefused(Refusal.ALREADY_DECIDED, f"the grant is {state} already")
    return to


def request_state(state: RequestState, pending_until: float, now: float) -> RequestState:
    """The state of a request at `now`; `state` is the one that was recorded last."""
    return RequestState.LAPSED if state is RequestState.REQUESTED and now >= pending_until else state


def grant_state(state: GrantState, start: float, until: float, now: float) -> GrantState:
    """The state of a grant at `now`; `state` is the one that was recorded last."""
    if state in _OVER:
        return state
    if now < start:
        return GrantState.SCHEDULED
    return GrantState.ACTIVE if now < until else GrantState.EXPIRED


def approvals_suffice(needed: Sequence[int], approvals: Sequence[Sequence[int]]) -> bool:
    """Whether each group of approvers has given as many approvals as it must.

    `needed` is the number of each group. `approvals` are the groups of each approver, who counts for one of them only:
    this finds whether they can be distributed so that all groups have enough (augmenting paths).
    """
    places = [group for group, count in enumerate(needed) for _ in range(count)]
    if len(approvals) < len(places):
        return False
    taken_by: dict[int, int] = {}  # place -> approver

    def take_place(approver: int, tried: set[int]) -> bool:
        for place, group in enumerate(places):
            if group not in approvals[approver] or place in tried:
                continue
            tried.add(place)
            if place not in taken_by or take_place(taken_by[place], tried):
                taken_by[place] = approver
                return True
        return False

    for approver in range(len(approvals)):
        take_place(approver, set())
    return len(taken_by) == len(places)


def scope_digest(
    entitlement: str, subjects: Sequence[str], duration: float, start: float, reason: str, definition: str
) -> str:
    """SHA-256 (hex) of what is asked for. An approval names it, so that nobody approves something else.

    `definition` identifies the entitlement as it was when the request was made.
    """
    parts = [entitlement, list(subjects), duration, start, reason, definition]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()

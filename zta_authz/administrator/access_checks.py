"""What a caller may ask for, decide and end. Every check raises `OperationRefused`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_items import check_text, is_same_person, subject_items
from zta_authz.model.access import LEAST_GRANT
from zta_authz.policy.cel.pattern import matches_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.view_items import SubjectItem
    from zta_authz.policy.entitlements import CompiledEntitlement

LATEST_START_SECONDS: Final = 30 * 86400.0


def check_asked(
    entitlement: CompiledEntitlement | None,
    name: str,
    caller: AuthorizedCaller,
    duration: float,
    reason: str,
    *,
    emergency: bool,
) -> CompiledEntitlement:
    """Return `entitlement`, called `name`, if the caller may ask for it so.

    A caller who may not ask does not learn whether it exists.
    """
    may = False
    if entitlement is not None:
        may = entitlement.may_break_glass(caller.inputs) if emergency else entitlement.may_request(caller.inputs)
    if entitlement is None or not may:
        raise OperationRefused(Refusal.NOT_ELIGIBLE, f"there is no entitlement `{name[:200]}` that you may ask for")
    terms = entitlement.terms
    check_text(reason)
    if terms.reason_required and not reason.strip():
        raise OperationRefused(Refusal.REASON_REQUIRED, "a reason is required")
    if terms.reason_pattern and reason.strip() and not matches_whole(terms.reason_pattern, reason):
        raise OperationRefused(Refusal.REASON_REQUIRED, f"the reason has to match `{terms.reason_pattern}`")
    longest = terms.max_duration
    if emergency and terms.break_glass is not None:
        longest = min(longest, terms.break_glass.max_duration)
    if not LEAST_GRANT <= duration <= longest:
        message = f"the duration has to be from {LEAST_GRANT:.0f} to {longest:.0f} seconds"
        raise OperationRefused(Refusal.TOO_LONG, message)
    return entitlement


def check_start(start: float, now: float) -> None:
    """Refuse a start (0: with the approval) that is in the past or too far away."""
    if start != 0 and not now <= start <= now + LATEST_START_SECONDS:
        raise OperationRefused(Refusal.INVALID, "the start is in the past, or more than 30 days away")


def approver_groups(
    caller: AuthorizedCaller, entitlement: CompiledEntitlement, request: RequestItem
) -> tuple[int, ...]:
    """Return the groups for which the caller may decide on `request`."""
    groups = entitlement.approver_groups(caller.inputs)
    if not groups:
        raise OperationRefused(Refusal.NOT_AN_APPROVER, f"you may not decide on `{entitlement.name}`")
    if is_same_person(subject_items(caller.subjects), request.subjects):
        raise OperationRefused(Refusal.OWN_REQUEST, "nobody decides on their own request")
    return groups


def check_scope(seen: str, request: RequestItem, entitlement: CompiledEntitlement) -> None:
    """Refuse an approval of something else than the caller saw, or of a request under an entitlement that has changed.

    Earlier approvals count for groups of the entitlement as it was, so they can't be counted by a changed one.
    """
    if seen != request.scope_sha256:
        raise OperationRefused(Refusal.SCOPE_CHANGED, "this is not the request that you saw: look at it again")
    if request.definition != entitlement.digest:
        message = f"`{entitlement.name}` was changed since the request, which has to be made again"
        raise OperationRefused(Refusal.SCOPE_CHANGED, message)


def shortened(duration: float, longest: float) -> float:
    """Return the duration that an approver chose (0: `longest`)."""
    if duration == 0:
        return longest
    if not LEAST_GRANT <= duration <= longest:
        message = f"an approver may shorten the {longest:.0f} seconds that were asked for to {LEAST_GRANT:.0f} at least"
        message = f"{message}, and not lengthen them"
        raise OperationRefused(Refusal.TOO_LONG, message)
    return duration


def check_own(caller: AuthorizedCaller, subjects: Sequence[SubjectItem], message: str) -> None:
    """Refuse a caller who is not the one with these names. Unlike `is_same_person`, a shared workload is not enough."""
    if subject_items(caller.subjects)[0] != subjects[0]:
        raise OperationRefused(Refusal.NOT_ALLOWED, message)

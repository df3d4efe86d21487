"""What people do with the administrator. The gRPC and the REST API are two ways to call these operations.

Each operation is authorized first (`operator_authorization`), under the method and path that the REST API has for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_items import is_id
from zta_authz.administrator.operator_authorization import Call
from zta_authz.administrator.revocations import is_revocation_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.grants import Grants
    from zta_authz.administrator.operator_authorization import AuthorizedCaller, OperatorAuthorization
    from zta_authz.administrator.revocations import Revocations
    from zta_authz.administrator.signals.changes import HeldItem
    from zta_authz.administrator.signals.held import HeldEvents
    from zta_authz.administrator.view_items import GrantItem, RevocationItem

REQUESTS: Final = "/access/requests"
GRANTS: Final = "/access/grants"
REVOCATIONS: Final = "/revocations"
SIGNALS: Final = "/signals"
MAX_PAGE: Final = 200
_SCANNED_PAGES: Final = 50
"""A filtered list reads at most so many pages for one answer. Then the answer is short, and says where to go on."""

_SIGNAL_ID: Final = re.compile("[0-9a-f]{32}")
_Item = TypeVar("_Item", "RequestItem", "GrantItem", "RevocationItem", "HeldItem")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who calls, as the listener knows: a verified SPIFFE ID (or ""), and the `authorization` header as it came."""

    principal: str = ""
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Page(Generic[_Item]):
    """Some items of a list. `next` is the `after` of the next page, "" at the end."""

    items: tuple[_Item, ...]
    next: str


class Operations:
    """All operations. Every method may raise `OperationRefused` and `StoreError`."""

    def __init__(
        self,
        authorization: OperatorAuthorization,
        grants: Grants,
        revocations: Revocations,
        held: HeldEvents,
        log_failure: Callable[[], str] = str,
    ) -> None:
        """Offer the operations of `grants`, `revocations` and `held` to those whom `authorization` allows them.

        `log_failure` says why the access log can't be written, "" if it can.
        """
        self._authorization = authorization
        self._grants = grants
        self._revocations = revocations
        self._held = held
        self._log_failure = log_failure

    async def request_access(
        self, origin: Origin, *, entitlement: str, duration: float, reason: str, start: float = 0.0
    ) -> RequestItem:
        """Ask for access. See `Grants.request`."""
        caller = self._authorize_access(origin, REQUESTS)
        return await self._grants.request(caller, entitlement, duration, reason, start)

    async def break_glass(self, origin: Origin, *, entitlement: str, duration: float, reason: str) -> GrantItem:
        """Take access at once in an emergency. See `Grants.break_glass`."""
        caller = self._authorize_access(origin, "/access/break-glass")
        return await self._grants.break_glass(caller, entitlement, duration, reason)

    async def approve_request(
        self, origin: Origin, request_id: str, *, scope_sha256: str, duration: float = 0.0, comment: str = ""
    ) -> RequestItem:
        """Approve a request. See `Grants.approve`."""
        caller = self._authorize_access(origin, f"{REQUESTS}/{_id(request_id)}/approve")
        return await self._grants.approve(caller, request_id, scope_sha256, duration, comment)

    async def deny_request(self, origin: Origin, request_id: str, *, comment: str = "") -> RequestItem:
        """Deny a request. See `Grants.deny`."""
        caller = self._authorize(origin, "POST", f"{REQUESTS}/{_id(request_id)}/deny")
        return await self._grants.deny(caller, request_id, comment)

    async def withdraw_request(self, origin: Origin, request_id: str) -> RequestItem:
        """Withdraw the caller's own request. See `Grants.withdraw`."""
        caller = self._authorize(origin, "POST", f"{REQUESTS}/{_id(request_id)}/withdraw")
        return await self._grants.withdraw(caller, request_id)

    async def get_request(self, origin: Origin, request_id: str) -> RequestItem:
        """Return one request."""
        self._authorize(origin, "GET", f"{REQUESTS}/{_id(request_id)}")
        return await self._grants.get_request(request_id)

    async def list_requests(
        self, origin: Origin, *, state: str = "", after: str = "", limit: int = 100
    ) -> Page[RequestItem]:
        """Return requests in the order of their IDs, those in `state` only unless it is ""."""
        self._authorize(origin, "GET", REQUESTS)
        return await _page(self._grants.list_requests, lambda request: request.state, state, after, limit)

    async def end_grant(self, origin: Origin, grant_id: str, *, reason: str = "") -> GrantItem:
        """End the caller's own grant at once. See `Grants.end`."""
        caller = self._authorize(origin, "POST", f"{GRANTS}/{_id(grant_id)}/end")
        return await self._grants.end(caller, grant_id, reason)

    async def revoke_grant(self, origin: Origin, grant_id: str, *, reason: str = "") -> GrantItem:
        """End anybody's grant at once. See `Grants.revoke`."""
        caller = self._authorize(origin, "POST", f"{GRANTS}/{_id(grant_id)}/revoke")
        return await self._grants.revoke(caller, grant_id, reason)

    async def review_grant(self, origin: Origin, grant_id: str, *, comment: str = "") -> GrantItem:
        """Close the review of a grant. See `Grants.review`."""
        caller = self._authorize(origin, "POST", f"{GRANTS}/{_id(grant_id)}/review")
        return await self._grants.review(caller, grant_id, comment)

    async def get_grant(self, origin: Origin, grant_id: str) -> GrantItem:
        """Return one grant."""
        self._authorize(origin, "GET", f"{GRANTS}/{_id(grant_id)}")
        return await self._grants.get_grant(grant_id)

    async def list_grants(
        self, origin: Origin, *, state: str = "", after: str = "", limit: int = 100
    ) -> Page[GrantItem]:
        """Return grants in the order of their IDs, those in `state` only unless it is ""."""
        self._authorize(origin, "GET", GRANTS)
        return await _page(self._grants.list_grants, lambda grant: grant.state, state, after, limit)

    async def revoke(
        self, origin: Origin, *, what: str, value: str, issuer: str = "", before: float = 0.0, until: float = 0.0,
        reason: str,
    ) -> RevocationItem:  # fmt: skip
        """Revoke a credential, a person, a workload or a device. See `Revocations.revoke`."""
        caller = self._authorize(origin, "POST", REVOCATIONS)
        return await self._revocations.revoke(caller, what, value, issuer, before, until, reason)

    async def lift_revocation(self, origin: Origin, revocation_id: str, *, reason: str) -> RevocationItem:
        """Lift a revocation. See `Revocations.lift`."""
        caller = self._authorize_access(origin, f"{REVOCATIONS}/{_revocation_id(revocation_id)}/lift")
        return await self._revocations.lift(caller, revocation_id, reason)

    async def list_revocations(self, origin: Origin, *, after: str = "", limit: int = 100) -> Page[RevocationItem]:
        """Return revocations in the order of their IDs."""
        self._authorize(origin, "GET", REVOCATIONS)
        limit = max(1, min(limit, MAX_PAGE))
        items = await self._revocations.list_revocations(after and _revocation_id(after), limit)
        return Page(tuple(items), items[-1].id if len(items) == limit else "")

    async def release_signal(self, origin: Origin, event_id: str, *, reason: str) -> HeldItem:
        """Put in force what a held event changes. See `HeldEvents.release`."""
        caller = self._authorize(origin, "POST", f"{SIGNALS}/{_signal_id(event_id)}/release")
        return await self._held.release(caller, event_id, reason)

    async def discard_signal(self, origin: Origin, event_id: str, *, reason: str) -> HeldItem:
        """Discard a held event. See `HeldEvents.discard`."""
        caller = self._authorize(origin, "POST", f"{SIGNALS}/{_signal_id(event_id)}/discard")
        return await self._held.discard(caller, event_id, reason)

    async def list_held_signals(self, origin: Origin, *, after: str = "", limit: int = 100) -> Page[HeldItem]:
        """Return held events in the order of their IDs."""
        self._authorize(origin, "GET", SIGNALS)
        limit = max(1, min(limit, MAX_PAGE))
        items = await self._held.list_held(after and _signal_id(after), limit)
        return Page(tuple(items), items[-1].id if len(items) == limit else "")

    def _authorize_access(self, origin: Origin, path: str) -> AuthorizedCaller:
        """Authorize an operation that gives access. It is refused while the access log can't be written.

        Operations that take access away are not: whoever can fill a disk must not be able to keep their access. Their
        records are in the store, and in the log as soon as it can be written again.
        """
        caller = self._authorize(origin, "POST", path)
        if self._log_failure():
            raise OperationRefused(Refusal.UNAVAILABLE, "the access log can't be written, so nobody gets more access")
        return caller

    def _authorize(self, origin: Origin, method: str, path: str) -> AuthorizedCaller:
        return self._authorization.authorize(Call(method, path, origin.principal, origin.authorization))


def _id(text: str) -> str:
    """An ID becomes a part of a path, so nothing else may."""
    if not is_id(text):
        raise OperationRefused(Refusal.NOT_FOUND, "an ID has 16 hexadecimal digits")
    return text


def _revocation_id(text: str) -> str:
    if not is_revocation_id(text):
        raise OperationRefused(Refusal.NOT_FOUND, "the ID of a revocation is `op-` or `set-` and 32 hexadecimal digits")
    return text


def _signal_id(text: str) -> str:
    if not _SIGNAL_ID.fullmatch(text):
        raise OperationRefused(Refusal.NOT_FOUND, "the ID of a held event has 32 hexadecimal digits")
    return text


async def _page(
    read: Callable[[str, int], Awaitable[list[_Item]]],
    state_of: Callable[[_Item], str],
    state: str,
    after: str,
    limit: int,
) -> Page[_Item]:
    """Read pages until `limit` items in `state` are read."""
    if after:
        _id(after)
    limit = max(1, min(limit, MAX_PAGE))
    matching: list[_Item] = []
    for _ in range(_SCANNED_PAGES):
        items = await read(after, MAX_PAGE)
        for item in items:
            after = item.id
            if not state or state_of(item) == state:
                matching.append(item)
                if len(matching) == limit:
                    return Page(tuple(matching), after)
        if len(items) < MAX_PAGE:
            return Page(tuple(matching), "")
    return Page(tuple(matching), after)

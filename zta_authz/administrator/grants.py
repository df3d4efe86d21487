"""Just-in-time access: what people do with requests and grants.

Each step is one commit: it changes the request or the grant, publishes the grant to decision points, and appends the
access event. Replicas do not coordinate otherwise: a step expects the versions that it read, and begins again if
another replica was faster. So two approvals at once count as two people or as one, and never as three.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import structs

from zta_authz.access.lifecycle import (
    GrantState,
    OperationRefused,
    Refusal,
    RequestState,
    approvals_suffice,
    grant_state,
    move_grant,
    move_request,
    request_state,
    scope_digest,
)
from zta_authz.administrator.access_checks import (
    approver_groups,
    check_asked,
    check_own,
    check_scope,
    check_start,
    shortened,
)
from zta_authz.administrator.access_events import AccessEvent, EventKind, EventObject
from zta_authz.administrator.access_items import (
    GRANT,
    REQUEST,
    ApprovalItem,
    Draft,
    GrantRecord,
    OpenItem,
    RequestItem,
    asked_key,
    at_once,
    check_text,
    commit_draft,
    grant_object,
    is_id,
    is_same_person,
    request_object,
    subject_items,
)
from zta_authz.administrator.store.port import Window, WindowClosed
from zta_authz.administrator.view_items import GrantItem, SubjectItem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from zta_authz.administrator.access_events import Value
    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.policy.entitlements import CompiledEntitlement

SHOWN_AFTER_END_SECONDS: Final = 900.0
"""A grant that ended stays in the view for so long, so that explanations can name it."""
KEPT_SECONDS: Final = 30 * 86400.0
"""Requests and grants that are over stay in lists for so long. The access log keeps them."""
MAX_ASKED: Final = 60
ASKED_SECONDS: Final = 3600.0
_Result = TypeVar("_Result")
_NO_DETAIL: Final[Mapping[str, Value]] = {}


class Grants:
    """Requests and grants. Belongs to one event loop. Every method may raise `OperationRefused` and `StoreError`."""

    def __init__(
        self,
        store: Store,
        entitlements: Callable[[], Mapping[str, CompiledEntitlement]],
        settle: Callable[[Committed], Awaitable[None]] = at_once,
    ) -> None:
        """`entitlements` returns those in force. `settle` waits for the access log, before an operation is answered."""
        self._store = store
        self._entitlements = entitlements
        self._settle = settle

    async def request(
        self, caller: AuthorizedCaller, entitlement: str, duration: float, reason: str, start: float = 0.0
    ) -> RequestItem:
        """Ask for access for `duration` seconds, from `start` on or (0) from the approval on."""
        definition = self._entitlements().get(entitlement)
        definition = check_asked(definition, entitlement, caller, duration, reason, emergency=False)
        terms, digest = definition.terms, definition.digest
        await self._count_asked(caller)

        async def attempt(draft: Draft, now: float) -> RequestItem:
            check_start(start, now)
            subjects = subject_items(caller.subjects)
            names = [str(subject) for subject in caller.subjects]
            scope = scope_digest(entitlement, names, duration, start, reason, digest)
            pending = now + terms.pending_for
            request = RequestItem(
                secrets.token_hex(8), entitlement, subjects, duration, reason, RequestState.REQUESTED, now, pending,
                scope, terms.approvals, start, due=pending, definition=digest,
            )  # fmt: skip
            await self._count_open(draft, entitlement, subjects, request.id, pending, now, terms.max_open)
            draft.put_request(request, None)
            _record(draft, EventKind.ACCESS_REQUESTED, request_object(request), caller, reason)
            return request

        return await self._commit(attempt)

    async def break_glass(self, caller: AuthorizedCaller, entitlement: str, duration: float, reason: str) -> GrantItem:
        """Take access at once in an emergency. It has to be reviewed before the caller can do so again."""
        definition = self._entitlements().get(entitlement)
        terms = check_asked(definition, entitlement, caller, duration, reason, emergency=True).terms
        within = 0.0 if terms.break_glass is None else terms.break_glass.review_within
        await self._count_asked(caller)

        async def attempt(draft: Draft, now: float) -> GrantItem:
            subjects = subject_items(caller.subjects)
            grant = GrantItem(
                secrets.token_hex(8), entitlement, subjects[0], now, now + duration, "", True, str(GrantState.ACTIVE),
                reason, now + within,
            )  # fmt: skip
            await self._count_open(
                draft, entitlement, subjects, grant.id, grant.until, now, terms.max_open, review=True
            )
            draft.put_grant(GrantRecord(grant, subjects, grant.until), None)
            _record(draft, EventKind.ACCESS_BREAK_GLASS, grant_object(grant), caller, reason)
            return grant

        return await self._commit(attempt)

    async def approve(
        self, caller: AuthorizedCaller, request_id: str, scope_sha256: str, duration: float = 0.0, comment: str = ""
    ) -> RequestItem:
        """Approve a request as the caller saw it (`scope_sha256`). `duration` may shorten the grant."""
        check_text(comment)

        async def attempt(draft: Draft, now: float) -> RequestItem:
            before = await self._pending(draft, request_id, now)
            entitlement = self._entitlement(before.entitlement)
            groups = approver_groups(caller, entitlement, before)
            check_scope(scope_sha256, before, entitlement)
            if any(is_same_person(subject_items(caller.subjects), approval.subjects) for approval in before.approvals):
                raise OperationRefused(Refusal.ALREADY_APPROVED, "you have approved this request already")
            granted = shortened(duration, before.duration)
            approvals = (*before.approvals, ApprovalItem(subject_items(caller.subjects), groups, now, comment))
            request = structs.replace(before, approvals=approvals, duration=granted)
            detail: Mapping[str, Value] = {"approvals": len(approvals)}
            if not approvals_suffice(entitlement.terms.approvals, [given.groups for given in approvals]):
                draft.put_request(request, before)
                _record(draft, EventKind.ACCESS_APPROVED, request_object(request), caller, comment, detail)
                return request
            return await self._grant(draft, request, before, caller, comment, now)

        return await self._commit(attempt)

    async def deny(self, caller: AuthorizedCaller, request_id: str, comment: str = "") -> RequestItem:
        """Deny a request, as one of its approvers."""
        check_text(comment)

        async def attempt(draft: Draft, now: float) -> RequestItem:
            request = await self._pending(draft, request_id, now)
            approver_groups(caller, self._entitlement(request.entitlement), request)
            return await self._close(draft, request, RequestState.DENIED, now, EventKind.ACCESS_DENIED, caller, comment)

        return await self._commit(attempt)

    async def withdraw(self, caller: AuthorizedCaller, request_id: str) -> RequestItem:
        """Withdraw the caller's own request."""

        async def attempt(draft: Draft, now: float) -> RequestItem:
            request = await self._pending(draft, request_id, now)
            check_own(caller, request.subjects, "only the requester can withdraw a request")
            kind = EventKind.ACCESS_WITHDRAWN
            return await self._close(draft, request, RequestState.WITHDRAWN, now, kind, caller, "")

        return await self._commit(attempt)

    async def end(self, caller: AuthorizedCaller, grant_id: str, reason: str = "") -> GrantItem:
        """End the caller's own grant at once."""
        return await self._end(caller, grant_id, reason, GrantState.ENDED)

    async def revoke(self, caller: AuthorizedCaller, grant_id: str, reason: str = "") -> GrantItem:
        """End anybody's grant at once."""
        return await self._end(caller, grant_id, reason, GrantState.REVOKED)

    async def review(self, caller: AuthorizedCaller, grant_id: str, comment: str) -> GrantItem:
        """Close the review that follows an emergency. The holder of the grant can't."""
        check_text(comment)

        async def attempt(draft: Draft, now: float) -> GrantItem:
            before = await self._read_grant(draft, grant_id)
            if is_same_person(subject_items(caller.subjects), before.holder):
                raise OperationRefused(Refusal.OWN_REQUEST, "somebody else has to review this grant")
            if not before.grant.review_due:
                raise OperationRefused(Refusal.ALREADY_DECIDED, "no review of this grant is open")
            if now < before.grant.until:
                raise OperationRefused(Refusal.INVALID, "the grant is still active: revoke it, or review it afterwards")
            grant = structs.replace(before.grant, review_due=0.0)
            published = await self._store.get(grant.key) is not None
            draft.put_grant(structs.replace(before, grant=grant), before, published=published)
            await draft.close_open(self._store, grant.entitlement, before.holder[0], grant.id, review=True)
            _record(draft, EventKind.ACCESS_REVIEWED, grant_object(grant), caller, comment)
            return grant

        return await self._commit(attempt)

    async def get_request(self, request_id: str) -> RequestItem:
        """A request."""
        return _request_at(await self._read_request(Draft(), request_id), (await self._store.head()).time)

    async def get_grant(self, grant_id: str) -> GrantItem:
        """A grant."""
        return _grant_at((await self._read_grant(Draft(), grant_id)).grant, (await self._store.head()).time)

    async def list_requests(self, after: str = "", limit: int = 100) -> list[RequestItem]:
        """Up to `limit` requests whose IDs are greater than `after`, in order of their IDs."""
        now = (await self._store.head()).time
        page = await self._store.scan(REQUEST, after=REQUEST + after if after else "", limit=limit)
        return [_request_at(msgspec.json.decode(entry.value, type=RequestItem), now) for _, entry in page]

    async def list_grants(self, after: str = "", limit: int = 100) -> list[GrantItem]:
        """Up to `limit` grants whose IDs are greater than `after`, in order of their IDs."""
        now = (await self._store.head()).time
        page = await self._store.scan(GRANT, after=GRANT + after if after else "", limit=limit)
        return [_grant_at(msgspec.json.decode(entry.value, type=GrantRecord).grant, now) for _, entry in page]

    # steps

    async def _commit(self, attempt: Callable[[Draft, float], Awaitable[_Result]]) -> _Result:
        """Commit what `attempt` drafts at the store's time, again if another change came first; then settle."""
        return await commit_draft(self._store, attempt, self._settle)

    def _entitlement(self, name: str) -> CompiledEntitlement:
        entitlement = self._entitlements().get(name)
        if entitlement is None:
            raise OperationRefused(Refusal.NOT_FOUND, f"there is no entitlement `{name[:200]}`")
        return entitlement

    async def _read_request(self, draft: Draft, request_id: str) -> RequestItem:
        entry = await draft.read(self._store, REQUEST + request_id) if is_id(request_id) else None
        if entry is None:
            raise OperationRefused(Refusal.NOT_FOUND, "there is no such request")
        return msgspec.json.decode(entry.value, type=RequestItem)

    async def _read_grant(self, draft: Draft, grant_id: str) -> GrantRecord:
        entry = await draft.read(self._store, GRANT + grant_id) if is_id(grant_id) else None
        if entry is None:
            raise OperationRefused(Refusal.NOT_FOUND, "there is no such grant")
        return msgspec.json.decode(entry.value, type=GrantRecord)

    async def _pending(self, draft: Draft, request_id: str, now: float) -> RequestItem:
        """A request that can still be decided."""
        request = _request_at(await self._read_request(draft, request_id), now)
        move_request(request.state, RequestState.APPROVED)
        return request

    async def _grant(
        self,
        draft: Draft,
        request: RequestItem,
        before: RequestItem,
        caller: AuthorizedCaller,
        comment: str,
        now: float,
    ) -> RequestItem:
        """Turn a request with all its approvals into a grant. Its time begins now, or when it was asked for."""
        start = max(now, request.start)
        state = GrantState.ACTIVE if start <= now else GrantState.SCHEDULED
        grant = GrantItem(
            secrets.token_hex(8), request.entitlement, request.subjects[0], start, start + request.duration, request.id,
            False, str(state), request.reason,
        )  # fmt: skip
        request = structs.replace(request, state=RequestState.APPROVED, grant_id=grant.id, due=now + KEPT_SECONDS)
        draft.put_request(request, before)
        due = grant.until if state is GrantState.ACTIVE else start
        draft.put_grant(GrantRecord(grant, request.subjects, due), None)
        key, opened = await draft.read_open(self._store, grant.entitlement, request.subjects[0])
        ends = {name: end for name, end in opened.ends.items() if name != request.id} | {grant.id: grant.until}
        draft.put[key] = msgspec.json.encode(structs.replace(opened, ends=ends))
        _record(draft, EventKind.ACCESS_APPROVED, grant_object(grant), caller, comment)
        if state is GrantState.ACTIVE:
            _record(draft, EventKind.ACCESS_ACTIVATED, grant_object(grant), caller, comment)
        return request

    async def _end(self, caller: AuthorizedCaller, grant_id: str, reason: str, to: GrantState) -> GrantItem:
        check_text(reason)
        kind = EventKind.ACCESS_ENDED if to is GrantState.ENDED else EventKind.ACCESS_REVOKED

        async def attempt(draft: Draft, now: float) -> GrantItem:
            before = await self._read_grant(draft, grant_id)
            if to is GrantState.ENDED:
                check_own(caller, before.holder, "only the holder can end a grant; others revoke it")
            move_grant(GrantState(_grant_at(before.grant, now).state), to)
            grant = structs.replace(before.grant, until=min(before.grant.until, now), state=str(to))
            await draft.close_open(self._store, grant.entitlement, before.holder[0], grant.id)
            draft.put_grant(structs.replace(before, grant=grant, due=now + SHOWN_AFTER_END_SECONDS), before)
            _record(draft, kind, grant_object(grant), caller, reason)
            return grant

        return await self._commit(attempt)

    async def _close(
        self, draft: Draft, before: RequestItem, state: RequestState, now: float, kind: EventKind,
        caller: AuthorizedCaller, comment: str,
    ) -> RequestItem:  # fmt: skip
        """Close a request without a grant."""
        request = structs.replace(before, state=state, due=now + KEPT_SECONDS)
        draft.put_request(request, before)
        await draft.close_open(self._store, request.entitlement, request.subjects[0], request.id)
        _record(draft, kind, request_object(request), caller, comment)
        return request

    async def _count_asked(self, caller: AuthorizedCaller) -> None:
        """Count that a person asks. Withdrawn requests are kept too, so the limit of open ones is not enough."""
        key, now = asked_key(subject_items(caller.subjects)[0]), (await self._store.head()).time
        starts = now // ASKED_SECONDS * ASKED_SECONDS
        try:
            got = await self._store.reserve(key, Window(starts, starts + ASKED_SECONDS), 1, MAX_ASKED, "administrators")
        except WindowClosed:
            got = 1
        if not got:
            raise OperationRefused(Refusal.TOO_MANY, f"you have asked {MAX_ASKED} times within the hour: wait")

    async def _count_open(
        self, draft: Draft, entitlement: str, subjects: Sequence[SubjectItem], item_id: str, ends: float, now: float,
        limit: int, *, review: bool = False,
    ) -> None:  # fmt: skip
        """Add a request or grant to what a person has open, within the limit."""
        key, opened = await draft.read_open(self._store, entitlement, subjects[0])
        if review and opened.review:
            raise OperationRefused(Refusal.REVIEW_OPEN, f"grant {opened.review} has to be reviewed first")
        open_ends = {name: end for name, end in opened.ends.items() if end > now}
        if len(open_ends) >= limit:
            raise OperationRefused(
                Refusal.TOO_MANY, f"you have {len(open_ends)} open requests and grants of this already"
            )
        opened = OpenItem(open_ends | {item_id: ends}, item_id if review else opened.review)
        draft.put[key] = msgspec.json.encode(opened)


def _record(
    draft: Draft, kind: EventKind, what: EventObject, caller: AuthorizedCaller, reason: str,
    detail: Mapping[str, Value] = _NO_DETAIL,
) -> None:  # fmt: skip
    draft.add_event(AccessEvent(kind, what, caller.actor, reason, caller.policy_digest, detail))


def _request_at(request: RequestItem, now: float) -> RequestItem:
    """The request with its state at `now`. The step that records that it lapsed may come later."""
    return structs.replace(request, state=request_state(request.state, request.pending_until, now))


def _grant_at(grant: GrantItem, now: float) -> GrantItem:
    """The grant with its state at `now`. The step that records its beginning or its end may come later."""
    state = grant_state(GrantState(grant.state), grant.start, grant.until, now)
    return structs.replace(grant, state=str(state))

"""Revoke now: tokens, sessions, people, certificates, workloads, devices, keys and issuers, at once everywhere.

A revocation is an item of the view, so that decision points apply it with their next decision. The same revocation
made twice is one item, which has both reasons.
"""

from __future__ import annotations

import asyncio
import math
import re
from typing import TYPE_CHECKING, Final

from msgspec import structs

from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.access_events import EventKind
from zta_authz.administrator.access_items import MAX_REASON, at_once, check_reason, commit_draft
from zta_authz.administrator.revocation_items import digest, end_key, merge_revocations, revocation_event
from zta_authz.administrator.revocation_targets import WITH_TIME_OF_ISSUE, check_issuer, read_target
from zta_authz.administrator.view_items import REVOCATION, RevocationItem, decode_item, encode_item
from zta_authz.model.documents import Revoked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from zta_authz.administrator.access_items import Draft
    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Committed, Store
    from zta_authz.security_events.subjects import SubjectKey

MAX_REVOCATIONS: Final = 200_000
"""The limit of operators' revocations in force. Those of signals have limits of their own."""
MAX_PREFIXES: Final = 1_000
"""The limit of SPIFFE prefixes among them: decision points compare each of these with every caller."""
COUNT: Final = "revocation-count"
PREFIX_COUNT: Final = "revocation-count/prefixes"
"""The keys of these numbers, in decimal."""
PREFIX: Final = "op-"
"""The IDs of operators' revocations begin with it."""
MAX_AHEAD_SECONDS: Final = 300.0
"""`before` may be later than now by so much, because clocks differ."""
MAX_SECONDS: Final = 10 * 366 * 86400.0
_MAX_NAME: Final = 512
_ID: Final = re.compile(r"(?:op|set)-[0-9a-f]{32}")


class Revocations:
    """Operators' revocations. Belongs to one event loop. Every method may raise `OperationRefused` and `StoreError`."""

    def __init__(
        self,
        store: Store,
        settle: Callable[[Committed], Awaitable[None]] = at_once,
        issuers: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`settle` waits for the access log, before an operation is answered. `issuers` are those of the policies."""
        self._store = store
        self._settle = settle
        self._issuers = issuers
        self._changing = asyncio.Lock()  # every change writes the count, so changes of one replica would conflict

    async def revoke(
        self,
        caller: AuthorizedCaller,
        what: str,
        value: str,
        issuer: str = "",
        before: float = 0.0,
        until: float = 0.0,
        reason: str = "",
    ) -> RevocationItem:
        """Revoke something from now on, until `until` (0: until it is lifted). See `read_target` for `what`.

        `before` spares credentials that were issued from then on (0: none), so that people can log in again. If the
        same is revoked already, the later times count. Returns what is in force.
        """
        target = read_target(what, value, issuer)
        check_issuer(target, self._issuers())
        if before and target.what not in WITH_TIME_OF_ISSUE:
            raise OperationRefused(Refusal.INVALID, f"`before` has no effect on a {target.what}: leave it out")
        check_reason(reason)

        async def attempt(draft: Draft, now: float) -> RevocationItem:
            _check_times(before, until, now)
            item = RevocationItem(
                _id_of(target, before), str(target.what), target.value, target.issuer, before, until, reason,
                f"operator {_name(caller)}", now,
            )  # fmt: skip
            existing = await self._read(draft, item.id)
            if existing is None:
                await self._count(draft, item)
            else:
                item = _joined(item, existing)
            draft.put[item.key] = encode_item(item)
            if item.until:
                draft.put[end_key(item)] = b"{}"
            draft.add_event(
                revocation_event(EventKind.REVOCATION_ADDED, item, caller.actor, reason, caller.policy_digest)
            )
            return item

        return await self._commit(attempt)

    async def lift(self, caller: AuthorizedCaller, revocation_id: str, reason: str) -> RevocationItem:
        """Lift a revocation of an operator or of a signal. Returns what is no longer in force."""
        check_reason(reason)

        async def attempt(draft: Draft, now: float) -> RevocationItem:
            del now
            item = await self._read(draft, revocation_id) if is_revocation_id(revocation_id) else None
            if item is None:
                raise OperationRefused(Refusal.NOT_FOUND, "there is no such revocation: it was lifted, or it ended")
            draft.delete.append(item.key)
            if item.until:
                draft.delete.append(end_key(item))
            await change_count(draft, self._store, item, -1)
            draft.add_event(
                revocation_event(EventKind.REVOCATION_LIFTED, item, caller.actor, reason, caller.policy_digest)
            )
            return item

        return await self._commit(attempt)

    async def list_revocations(self, after: str = "", limit: int = 100) -> list[RevocationItem]:
        """Up to `limit` revocations whose IDs are greater than `after`, in order of their IDs."""
        page = await self._store.scan(REVOCATION, after=REVOCATION + after if after else "", limit=limit)
        items = (decode_item(key, entry.value) for key, entry in page)
        return [item for item in items if isinstance(item, RevocationItem)]

    async def _commit(self, attempt: Callable[[Draft, float], Awaitable[RevocationItem]]) -> RevocationItem:
        committed: list[Committed] = []

        async def note(commit: Committed) -> None:
            committed.append(commit)

        async with self._changing:
            result = await commit_draft(self._store, attempt, note)
        await self._settle(committed[0])
        return result

    async def _read(self, draft: Draft, revocation_id: str) -> RevocationItem | None:
        key = REVOCATION + revocation_id
        entry = await draft.read(self._store, key)
        item = None if entry is None else decode_item(key, entry.value)
        return item if isinstance(item, RevocationItem) else None

    async def _count(self, draft: Draft, item: RevocationItem) -> None:
        counts = await change_count(draft, self._store, item, 1)
        if counts[COUNT] > MAX_REVOCATIONS:
            message = f"{MAX_REVOCATIONS} revocations are in force: lift some, or revoke an issuer or a SPIFFE prefix"
            raise OperationRefused(Refusal.TOO_MANY, message)
        if counts.get(PREFIX_COUNT, 0) > MAX_PREFIXES:
            message = f"{MAX_PREFIXES} SPIFFE prefixes are revoked: lift some, or revoke a shorter one"
            raise OperationRefused(Refusal.TOO_MANY, message)


def is_revocation_id(text: str) -> bool:
    """Whether `text` can be the ID of a revocation."""
    return _ID.fullmatch(text) is not None


async def change_count(draft: Draft, store: Store, item: RevocationItem, change: int) -> dict[str, int]:
    """Change the numbers in which `item` counts, and return them by their keys."""
    counts = {}
    for key in counts_of(item):
        entry = await draft.read(store, key)
        counts[key] = max(0, (0 if entry is None else int(entry.value)) + change)
        draft.put[key] = b"%d" % counts[key]
    return counts


def counts_of(item: RevocationItem) -> tuple[str, ...]:
    """The keys of the numbers in which `item` counts. Those of signals don't count."""
    if not item.id.startswith(PREFIX):
        return ()
    return (COUNT, PREFIX_COUNT) if item.what == Revoked.SPIFFE_PREFIX else (COUNT,)


def _id_of(target: SubjectKey, before: float) -> str:
    """One ID for everything about a target, and another for its earlier credentials: each can be lifted alone."""
    return PREFIX + digest(str(target.what), target.issuer, target.value, "earlier" if before else "all")


def _joined(item: RevocationItem, existing: RevocationItem) -> RevocationItem:
    """The later times of both, and the reasons of both if they fit: the newer one first."""
    merged = merge_revocations(item, existing) or existing
    reasons = existing.reason
    if item.reason not in reasons.split("; "):
        reasons = f"{item.reason}; {reasons}"[:MAX_REASON]
    return structs.replace(merged, reason=reasons, source=item.source, created_at=existing.created_at)


def _name(caller: AuthorizedCaller) -> str:
    subject = caller.subjects[0]
    return (subject.spiffe_id or f"{subject.subject} of {subject.issuer}")[:_MAX_NAME]


def _check_times(before: float, until: float, now: float) -> None:
    if not (math.isfinite(before) and 0 <= before <= now + MAX_AHEAD_SECONDS):
        message = "`before` is in the future: write when the last credential was issued that has to be refused"
        raise OperationRefused(Refusal.INVALID, message)
    if until and not (math.isfinite(until) and now < until <= now + MAX_SECONDS):
        message = "`until` is in the past or more than 10 years away: write a later time, or leave it out"
        raise OperationRefused(Refusal.INVALID, message)

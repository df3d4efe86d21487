"""The operations in HTTP: method, path, body and query of each. `docs/administrator-api.json` describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from zta_authz.administrator.json_bodies import (
    ApprovalBody,
    BreakGlassBody,
    CommentBody,
    EmptyBody,
    ReasonBody,
    RequestBody,
    RevocationBody,
    grant_fields,
    held_fields,
    read_body,
    read_duration,
    read_time,
    request_fields,
    revocation_fields,
)
from zta_authz.administrator.operations import MAX_PAGE
from zta_authz.administrator.problems import ApiReason, CallRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import msgspec

    from zta_authz.administrator.operations import Operations, Origin, Page

    Handler = Callable[[Operations, "RestCall"], Awaitable[dict[str, Any]]]

_DEFAULT_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class RestCall:
    """A call: who makes it, the ID in its path ("" without one), its query and its body."""

    origin: Origin
    id: str
    query: Sequence[tuple[str, str]]
    data: bytes

    def page(self, *names: str) -> dict[str, Any]:
        """The query of a list: `after`, `limit` and `names`, each at most once. Raises `CallRefused`."""
        allowed = ("after", "limit", *names)
        query = dict(self.query)
        if len(query) != len(self.query) or not query.keys() <= set(allowed):
            raise CallRefused(ApiReason.MALFORMED, f"the query may have {', '.join(allowed)}, each once")
        limit = query.get("limit", str(_DEFAULT_PAGE))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MAX_PAGE):
            raise CallRefused(ApiReason.MALFORMED, f"`limit` is a number from 1 to {MAX_PAGE}")
        return {**query, "limit": int(limit)}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `path` may have `{id}`; `body` is None for GET."""

    method: str
    path: str
    handler: Handler
    body: type[msgspec.Struct] | None = None


async def _request(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, RequestBody)
    duration, start = read_duration(body.duration), read_time("start", body.start)
    return request_fields(
        await operations.request_access(
            call.origin, entitlement=body.entitlement, duration=duration, reason=body.reason, start=start
        )
    )


async def _break_glass(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, BreakGlassBody)
    duration = read_duration(body.duration)
    return grant_fields(
        await operations.break_glass(call.origin, entitlement=body.entitlement, duration=duration, reason=body.reason)
    )


async def _approve(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ApprovalBody)
    duration = read_duration(body.duration)
    return request_fields(
        await operations.approve_request(
            call.origin, call.id, scope_sha256=body.scope_sha256, duration=duration, comment=body.comment
        )
    )


async def _deny(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, CommentBody)
    return request_fields(await operations.deny_request(call.origin, call.id, comment=body.comment))


async def _withdraw(operations: Operations, call: RestCall) -> dict[str, Any]:
    read_body(call.data, EmptyBody)
    return request_fields(await operations.withdraw_request(call.origin, call.id))


async def _get_request(operations: Operations, call: RestCall) -> dict[str, Any]:
    return request_fields(await operations.get_request(call.origin, call.id))


async def _list_requests(operations: Operations, call: RestCall) -> dict[str, Any]:
    return _page("requests", await operations.list_requests(call.origin, **call.page("state")), request_fields)


async def _end(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ReasonBody)
    return grant_fields(await operations.end_grant(call.origin, call.id, reason=body.reason))


async def _revoke_grant(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ReasonBody)
    return grant_fields(await operations.revoke_grant(call.origin, call.id, reason=body.reason))


async def _review(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, CommentBody)
    return grant_fields(await operations.review_grant(call.origin, call.id, comment=body.comment))


async def _get_grant(operations: Operations, call: RestCall) -> dict[str, Any]:
    return grant_fields(await operations.get_grant(call.origin, call.id))


async def _list_grants(operations: Operations, call: RestCall) -> dict[str, Any]:
    return _page("grants", await operations.list_grants(call.origin, **call.page("state")), grant_fields)


async def _revoke(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, RevocationBody)
    before, until = read_time("before", body.before), read_time("until", body.until)
    return revocation_fields(
        await operations.revoke(
            call.origin, what=body.what, value=body.value, issuer=body.issuer, before=before, until=until,
            reason=body.reason,
        )
    )  # fmt: skip


async def _lift(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ReasonBody)
    return revocation_fields(await operations.lift_revocation(call.origin, call.id, reason=body.reason))


async def _list_revocations(operations: Operations, call: RestCall) -> dict[str, Any]:
    return _page("revocations", await operations.list_revocations(call.origin, **call.page()), revocation_fields)


async def _list_held(operations: Operations, call: RestCall) -> dict[str, Any]:
    return _page("held", await operations.list_held_signals(call.origin, **call.page()), held_fields)


async def _release(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ReasonBody)
    return held_fields(await operations.release_signal(call.origin, call.id, reason=body.reason))


async def _discard(operations: Operations, call: RestCall) -> dict[str, Any]:
    body = read_body(call.data, ReasonBody)
    return held_fields(await operations.discard_signal(call.origin, call.id, reason=body.reason))


def _page(name: str, page: Page[Any], fields: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    return {name: [fields(item) for item in page.items], "next": page.next}


ROUTES: Final = (
    Route("POST", "/access/requests", _request, RequestBody),
    Route("GET", "/access/requests", _list_requests),
    Route("GET", "/access/requests/{id}", _get_request),
    Route("POST", "/access/requests/{id}/approve", _approve, ApprovalBody),
    Route("POST", "/access/requests/{id}/deny", _deny, CommentBody),
    Route("POST", "/access/requests/{id}/withdraw", _withdraw, EmptyBody),
    Route("POST", "/access/break-glass", _break_glass, BreakGlassBody),
    Route("GET", "/access/grants", _list_grants),
    Route("GET", "/access/grants/{id}", _get_grant),
    Route("POST", "/access/grants/{id}/end", _end, ReasonBody),
    Route("POST", "/access/grants/{id}/revoke", _revoke_grant, ReasonBody),
    Route("POST", "/access/grants/{id}/review", _review, CommentBody),
    Route("POST", "/revocations", _revoke, RevocationBody),
    Route("GET", "/revocations", _list_revocations),
    Route("POST", "/revocations/{id}/lift", _lift, ReasonBody),
    Route("GET", "/signals", _list_held),
    Route("POST", "/signals/{id}/release", _release, ReasonBody),
    Route("POST", "/signals/{id}/discard", _discard, ReasonBody),
)

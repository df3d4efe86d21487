"""The administrator's gRPC API, `zta.administrator.v1.Operations`: the operations as messages.

Methods get bytes, so that nothing of a caller whom mutual TLS refuses is parsed. Times are seconds since the epoch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from zta_authz._proto import administrator_pb2 as pb
from zta_authz.access.lifecycle import OperationRefused, Refusal
from zta_authz.administrator.operations import Origin
from zta_authz.administrator.problems import OK, ApiReason, CallCounts, CallRefused, RunningCalls, problem_of
from zta_authz.administrator.view_items import RevocationItem, SignalItem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.operations import Operations
    from zta_authz.administrator.signals.changes import HeldItem
    from zta_authz.administrator.view_items import GrantItem, SubjectItem

SERVICE: Final = "zta.administrator.v1.Operations"
MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_METADATA_BYTES: Final = 16 * 1024
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_allowed_incoming_connections", 256),
)
"""Options of a server that serves this API: its callers are people and programs, and no proxies."""
REASON: Final = "zta-reason"
CHALLENGE: Final = "www-authenticate"
_API: Final = "grpc"
_DEFAULT_PAGE: Final = 100
_MAX_NUMBER: Final = 2.0**40

_Request = TypeVar("_Request", bound=Message)


class GrpcApi:
    """The methods of `Operations`, for `GrpcServer`."""

    def __init__(self, operations: Operations, counts: CallCounts | None = None) -> None:
        self._operations = operations
        self._calls = RunningCalls()
        self._counts = CallCounts() if counts is None else counts

    def methods(self) -> Mapping[str, Mapping[str, Callable[[bytes, Any, str], Awaitable[bytes]]]]:
        """The methods, bytes in and out. The third argument is the caller's SPIFFE ID, "" without one."""
        answers = {
            "RequestAccess": self._method(pb.RequestAccessRequest, self._request),
            "BreakGlass": self._method(pb.BreakGlassRequest, self._break_glass),
            "ApproveRequest": self._method(pb.ApproveRequestRequest, self._approve),
            "DenyRequest": self._method(pb.DenyRequestRequest, self._deny),
            "WithdrawRequest": self._method(pb.WithdrawRequestRequest, self._withdraw),
            "GetRequest": self._method(pb.GetRequestRequest, self._get_request),
            "ListRequests": self._method(pb.ListRequestsRequest, self._list_requests),
            "EndGrant": self._method(pb.EndGrantRequest, self._end),
            "RevokeGrant": self._method(pb.RevokeGrantRequest, self._revoke_grant),
            "ReviewGrant": self._method(pb.ReviewGrantRequest, self._review),
            "GetGrant": self._method(pb.GetGrantRequest, self._get_grant),
            "ListGrants": self._method(pb.ListGrantsRequest, self._list_grants),
            "Revoke": self._method(pb.RevokeRequest, self._revoke),
            "LiftRevocation": self._method(pb.LiftRevocationRequest, self._lift),
            "ListRevocations": self._method(pb.ListRevocationsRequest, self._list_revocations),
            "ListHeldEvents": self._method(pb.ListHeldEventsRequest, self._list_held),
            "ReleaseHeldEvent": self._method(pb.ReleaseHeldEventRequest, self._release),
            "DiscardHeldEvent": self._method(pb.DiscardHeldEventRequest, self._discard),
        }
        return {SERVICE: answers}

    def _method(
        self, kind: type[_Request], answer: Callable[[Origin, _Request], Awaitable[Message]]
    ) -> Callable[[bytes, Any, str], Awaitable[bytes]]:
        async def call(payload: bytes, context: Any, caller: str) -> bytes:
            try:
                origin = Origin(caller, _authorization(context))
                response = await self._calls.run(answer(origin, _parse(kind, payload)))
                data = response.SerializeToString()
            except Exception as error:  # noqa: BLE001  a client gets no exception, whatever it is
                problem = problem_of(error)
            else:
                self._counts.add(_API, OK)
                return data
            self._counts.add(_API, problem.reason)
            metadata = [(REASON, str(problem.reason))]
            if problem.challenge:
                metadata.append((CHALLENGE, problem.challenge))
            await context.abort(grpc.StatusCode[problem.kind.code], problem.detail, tuple(metadata))
            raise AssertionError  # abort raises

        return call

    async def _request(self, origin: Origin, message: pb.RequestAccessRequest) -> Message:
        return _request_message(
            await self._operations.request_access(
                origin, entitlement=message.entitlement, duration=message.duration_seconds, reason=message.reason,
                start=message.start,
            )
        )  # fmt: skip

    async def _break_glass(self, origin: Origin, message: pb.BreakGlassRequest) -> Message:
        return _grant_message(
            await self._operations.break_glass(
                origin, entitlement=message.entitlement, duration=message.duration_seconds, reason=message.reason
            )
        )

    async def _approve(self, origin: Origin, message: pb.ApproveRequestRequest) -> Message:
        return _request_message(
            await self._operations.approve_request(
                origin, message.id, scope_sha256=message.scope_sha256, duration=message.duration_seconds,
                comment=message.comment,
            )
        )  # fmt: skip

    async def _deny(self, origin: Origin, message: pb.DenyRequestRequest) -> Message:
        return _request_message(await self._operations.deny_request(origin, message.id, comment=message.comment))

    async def _withdraw(self, origin: Origin, message: pb.WithdrawRequestRequest) -> Message:
        return _request_message(await self._operations.withdraw_request(origin, message.id))

    async def _get_request(self, origin: Origin, message: pb.GetRequestRequest) -> Message:
        return _request_message(await self._operations.get_request(origin, message.id))

    async def _list_requests(self, origin: Origin, message: pb.ListRequestsRequest) -> Message:
        page = await self._operations.list_requests(
            origin, state=message.state, after=message.page_token, limit=message.page_size or _DEFAULT_PAGE
        )
        return pb.ListRequestsResponse(requests=map(_request_message, page.items), next_page_token=page.next)

    async def _end(self, origin: Origin, message: pb.EndGrantRequest) -> Message:
        return _grant_message(await self._operations.end_grant(origin, message.id, reason=message.reason))

    async def _revoke_grant(self, origin: Origin, message: pb.RevokeGrantRequest) -> Message:
        return _grant_message(await self._operations.revoke_grant(origin, message.id, reason=message.reason))

    async def _review(self, origin: Origin, message: pb.ReviewGrantRequest) -> Message:
        return _grant_message(await self._operations.review_grant(origin, message.id, comment=message.comment))

    async def _get_grant(self, origin: Origin, message: pb.GetGrantRequest) -> Message:
        return _grant_message(await self._operations.get_grant(origin, message.id))

    async def _list_grants(self, origin: Origin, message: pb.ListGrantsRequest) -> Message:
        page = await self._operations.list_grants(
            origin, state=message.state, after=message.page_token, limit=message.page_size or _DEFAULT_PAGE
        )
        return pb.ListGrantsResponse(grants=map(_grant_message, page.items), next_page_token=page.next)

    async def _revoke(self, origin: Origin, message: pb.RevokeRequest) -> Message:
        return _revocation_message(
            await self._operations.revoke(
                origin, what=message.what, value=message.value, issuer=message.issuer, before=message.before,
                until=message.until, reason=message.reason,
            )
        )  # fmt: skip

    async def _lift(self, origin: Origin, message: pb.LiftRevocationRequest) -> Message:
        return _revocation_message(await self._operations.lift_revocation(origin, message.id, reason=message.reason))

    async def _list_revocations(self, origin: Origin, message: pb.ListRevocationsRequest) -> Message:
        page = await self._operations.list_revocations(
            origin, after=message.page_token, limit=message.page_size or _DEFAULT_PAGE
        )
        revocations = map(_revocation_message, page.items)
        return pb.ListRevocationsResponse(revocations=revocations, next_page_token=page.next)

    async def _list_held(self, origin: Origin, message: pb.ListHeldEventsRequest) -> Message:
        page = await self._operations.list_held_signals(
            origin, after=message.page_token, limit=message.page_size or _DEFAULT_PAGE
        )
        return pb.ListHeldEventsResponse(held=map(_held_message, page.items), next_page_token=page.next)

    async def _release(self, origin: Origin, message: pb.ReleaseHeldEventRequest) -> Message:
        return _held_message(await self._operations.release_signal(origin, message.id, reason=message.reason))

    async def _discard(self, origin: Origin, message: pb.DiscardHeldEventRequest) -> Message:
        return _held_message(await self._operations.discard_signal(origin, message.id, reason=message.reason))


def _parse(kind: type[_Request], payload: bytes) -> _Request:
    """Parse a message. Raises `CallRefused`, also for a number that can be no time and no duration."""
    try:
        message = kind.FromString(payload)
    except DecodeError:
        raise CallRefused(ApiReason.MALFORMED, f"the bytes are not a {kind.DESCRIPTOR.name}") from None
    for field, value in message.ListFields():
        if isinstance(value, float) and not (math.isfinite(value) and 0 <= value < _MAX_NUMBER):
            raise CallRefused(ApiReason.MALFORMED, f"`{field.name}` is not a number of seconds")
    return message


def _authorization(context: Any) -> str:
    """The metadata `authorization`, "" without it. Raises `OperationRefused` if it is repeated."""
    values = [value for name, value in context.invocation_metadata() if name == "authorization"]
    if len(values) > 1 or not all(isinstance(value, str) and value.isascii() for value in values):
        raise OperationRefused(Refusal.UNAUTHENTICATED, "the metadata `authorization` is malformed or repeated")
    return values[0] if values else ""


def _request_message(request: RequestItem) -> pb.AccessRequest:
    return pb.AccessRequest(
        id=request.id,
        entitlement=request.entitlement,
        requester=_subject_message(request.subjects[0]),
        duration_seconds=request.duration,
        reason=request.reason,
        state=request.state,
        requested_at=request.requested_at,
        pending_until=request.pending_until,
        approvals=[
            pb.Approval(approver=_subject_message(given.subjects[0]), at=given.at, comment=given.comment)
            for given in request.approvals
        ],
        approvals_needed=sum(request.needed),
        grant_id=request.grant_id,
        scope_sha256=request.scope_sha256,
        start=request.start,
    )


def _grant_message(grant: GrantItem) -> pb.Grant:
    return pb.Grant(
        id=grant.id,
        entitlement=grant.entitlement,
        subject=_subject_message(grant.subject),
        start=grant.start,
        until=grant.until,
        request_id=grant.request_id,
        break_glass=grant.break_glass,
        state=grant.state,
        reason=grant.reason,
        review_due=grant.review_due,
    )


def _revocation_message(revocation: RevocationItem) -> pb.Revocation:
    return pb.Revocation(
        id=revocation.id,
        what=revocation.what,
        value=revocation.value,
        issuer=revocation.issuer,
        before=revocation.before,
        until=revocation.until,
        reason=revocation.reason,
        source=revocation.source,
        created_at=revocation.created_at,
    )


def _held_message(held: HeldItem) -> pb.HeldEvent:
    return pb.HeldEvent(
        id=held.id,
        source=held.source,
        issuer=held.issuer,
        jti=held.jti,
        event_type=held.event_type,
        why=held.why,
        happened_at=held.happened_at,
        held_at=held.held_at,
        revocations=[_revocation_message(item) for item in held.changes if isinstance(item, RevocationItem)],
        signals=[_signal_message(item) for item in held.changes if isinstance(item, SignalItem)],
    )


def _signal_message(signal: SignalItem) -> pb.Signal:
    return pb.Signal(
        id=signal.id,
        what=signal.what,
        issuer=signal.issuer,
        subject=signal.subject,
        kind=signal.kind,
        value=signal.value,
        observed_at=signal.observed_at,
        source=signal.source,
        jti=signal.jti,
    )


def _subject_message(subject: SubjectItem) -> pb.Subject:
    return pb.Subject(issuer=subject.issuer, subject=subject.subject, spiffe_id=subject.spiffe_id)

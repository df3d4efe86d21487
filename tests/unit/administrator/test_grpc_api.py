"""The administrator's gRPC API: what each call does, who makes it, and how refusals are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.fakes.stores import FailingStore
from tests.support.operations_api import DB, LOGIN, OWN_USER, Api, bearer, running
from tests.support.pki import NOW
from zta_authz._proto import administrator_pb2 as pb
from zta_authz.access.lifecycle import Refusal
from zta_authz.administrator import problems
from zta_authz.administrator.grpc_api import CHALLENGE, MAX_MESSAGE_BYTES, MAX_METADATA_BYTES, REASON, SERVICE, GrpcApi
from zta_authz.administrator.problems import KINDS, ApiReason
from zta_authz.administrator.store.port import StoreUnavailable
from zta_authz.administrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from google.protobuf.message import Message

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["Operations"]
ASK = pb.RequestAccessRequest(entitlement=DB, duration_seconds=3600, reason="INC-7")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as made:
        yield made


async def call(api: Api, method: str, message: Message | bytes, person: str = "", *metadata: tuple[str, str]) -> Any:
    """Call over the Unix socket as a person, or without one as our own user."""
    kind = getattr(pb, DESCRIPTOR.methods_by_name[method].output_type.name)
    data = message if isinstance(message, bytes) else message.SerializeToString()
    given = [*metadata, *([("authorization", bearer(person))] if person else [])]
    async with grpc.aio.insecure_channel(api.grpc) as channel:
        return await channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=kind.FromString)(
            data, metadata=given, timeout=10
        )


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status and the reason."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), dict(refused.value.trailing_metadata())[REASON]


def test_every_method_of_the_protocol_is_answered() -> None:
    unused: Any = None
    assert GrpcApi(unused).methods()[SERVICE].keys() == set(DESCRIPTOR.methods_by_name)


async def test_a_request_is_asked_for_seen_and_approved(api: Api) -> None:
    request = await call(api, "RequestAccess", ASK, "dana")
    assert (request.state, request.requester.subject, request.approvals_needed) == ("requested", "dana", 1)
    assert await call(api, "GetRequest", pb.GetRequestRequest(id=request.id), "mary") == request
    approval = pb.ApproveRequestRequest(
        id=request.id, scope_sha256=request.scope_sha256, duration_seconds=600, comment="yes"
    )
    approved = await call(api, "ApproveRequest", approval, "mary")
    assert (approved.state, approved.duration_seconds, approved.requested_at) == ("approved", 600, NOW)
    (given,) = approved.approvals
    assert (given.approver.subject, given.at, given.comment) == ("mary", NOW, "yes")
    grant = await call(api, "GetGrant", pb.GetGrantRequest(id=approved.grant_id), "dana")
    assert (grant.subject.issuer, grant.state, grant.until - grant.start) == (LOGIN, "active", 600)
    ended = await call(api, "EndGrant", pb.EndGrantRequest(id=grant.id, reason="done"), "dana")
    assert ended.state == "ended"


async def test_a_request_is_denied_or_withdrawn(api: Api) -> None:
    first, second = [await call(api, "RequestAccess", ASK, "dana") for _ in range(2)]
    denied = await call(api, "DenyRequest", pb.DenyRequestRequest(id=first.id, comment="no"), "mary")
    withdrawn = await call(api, "WithdrawRequest", pb.WithdrawRequestRequest(id=second.id), "dana")
    assert (denied.state, withdrawn.state) == ("denied", "withdrawn")


async def test_an_emergency_is_revoked_and_reviewed(api: Api) -> None:
    taken = pb.BreakGlassRequest(entitlement=DB, duration_seconds=600, reason="INC-9")
    grant = await call(api, "BreakGlass", taken, "olga")
    assert (grant.break_glass, grant.review_due > NOW) == (True, True)
    revoked = await call(api, "RevokeGrant", pb.RevokeGrantRequest(id=grant.id, reason="over"), "mary")
    reviewed = await call(api, "ReviewGrant", pb.ReviewGrantRequest(id=grant.id, comment="fine"), "mary")
    assert (revoked.state, reviewed.review_due) == ("revoked", 0)


async def test_a_revocation_is_made_listed_and_lifted(api: Api) -> None:
    made = await call(api, "Revoke", pb.RevokeRequest(what="subject", value="dana", issuer=LOGIN, reason="INC-1"))
    assert (made.what, made.value, made.created_at) == ("subject", "dana", NOW)
    listed = await call(api, "ListRevocations", pb.ListRevocationsRequest(page_size=1))
    assert list(listed.revocations) == [made]
    lifted = await call(api, "LiftRevocation", pb.LiftRevocationRequest(id=made.id, reason="found"))
    assert lifted.id == made.id


async def test_a_held_event_is_listed_and_released_or_discarded(api: Api) -> None:
    await api.hold("one")
    await api.hold("two")
    listed = await call(api, "ListHeldEvents", pb.ListHeldEventsRequest(page_size=9))
    held = {event.jti: event for event in listed.held}
    assert [item.what for item in held["one"].revocations] == ["issuer"]
    released = await call(api, "ReleaseHeldEvent", pb.ReleaseHeldEventRequest(id=held["one"].id, reason="breach"))
    discarded = await call(api, "DiscardHeldEvent", pb.DiscardHeldEventRequest(id=held["two"].id, reason="a test"))
    assert (released, discarded.jti) == (held["one"], "two")
    assert not (await call(api, "ListHeldEvents", pb.ListHeldEventsRequest())).held
    again = call(api, "ReleaseHeldEvent", pb.ReleaseHeldEventRequest(id=released.id, reason="breach"))
    assert await refusal(again) == (grpc.StatusCode.NOT_FOUND, "not_found")


async def test_lists_come_in_pages(api: Api) -> None:
    ids = sorted([(await call(api, "RequestAccess", ASK, "dana")).id for _ in range(3)])
    first = await call(api, "ListRequests", pb.ListRequestsRequest(state="requested", page_size=2), "mary")
    second = await call(
        api, "ListRequests", pb.ListRequestsRequest(page_size=2, page_token=first.next_page_token), "mary"
    )
    assert [item.id for page in (first, second) for item in page.requests] == ids
    assert not second.next_page_token
    assert not (await call(api, "ListGrants", pb.ListGrantsRequest(), "mary")).grants


async def test_a_local_user_and_a_token_are_the_caller(api: Api) -> None:
    await call(api, "ListGrants", pb.ListGrantsRequest(), "dana")
    (_, decision, _) = api.sink.records[-1]
    assert decision.identity.principal == OWN_USER
    assert decision.identity.token is not None
    assert decision.identity.token.names == (LOGIN, "dana")


async def test_a_refusal_has_a_status_and_a_reason(api: Api) -> None:
    request = await call(api, "RequestAccess", ASK, "dana")
    own = pb.ApproveRequestRequest(id=request.id, scope_sha256=request.scope_sha256)
    assert await refusal(call(api, "ApproveRequest", own, "dana")) == (
        grpc.StatusCode.PERMISSION_DENIED, "own_request",
    )  # fmt: skip
    token = ("authorization", "Bearer a.b.c")
    assert await refusal(call(api, "ListGrants", b"", "", token)) == (
        grpc.StatusCode.UNAUTHENTICATED, "unauthenticated",
    )  # fmt: skip
    assert await refusal(call(api, "ListGrants", b"", "dana", token)) == (
        grpc.StatusCode.UNAUTHENTICATED, "unauthenticated",
    )  # fmt: skip


async def test_calls_are_counted_by_their_results(api: Api) -> None:
    await call(api, "ListGrants", b"", "mary")
    await refusal(call(api, "GetGrant", b"", "mary"))
    assert api.counts.calls == {("grpc", "ok"): 1, ("grpc", "not_found"): 1}


async def test_an_unauthenticated_caller_learns_how_to_authenticate(api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(api, "ListGrants", b"", "", ("authorization", "Bearer a.b.c"))
    metadata = dict(refused.value.trailing_metadata() or ())
    assert metadata[CHALLENGE] == 'Bearer realm="zta-authz", error="invalid_token"'


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        b"\x0a\x02\xff\xff",  # `entitlement` is no UTF-8
        pb.RequestAccessRequest(entitlement=DB, duration_seconds=float("nan"), reason="INC-1"),
        pb.RequestAccessRequest(entitlement=DB, duration_seconds=float("inf"), reason="INC-1"),
        pb.RequestAccessRequest(entitlement=DB, duration_seconds=60, start=-1, reason="INC-1"),
        pb.RequestAccessRequest(entitlement=DB, duration_seconds=60, start=1e300, reason="INC-1"),
    ],
)
async def test_a_malformed_message_is_refused(api: Api, message: Message | bytes) -> None:
    refused = await refusal(call(api, "RequestAccess", message, "dana"))
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")


async def test_large_messages_and_metadata_are_refused(api: Api) -> None:
    large = pb.DenyRequestRequest(id="a", comment="x" * MAX_MESSAGE_BYTES)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(api, "DenyRequest", large, "mary")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(api, "ListGrants", b"", "mary", ("x", "y" * MAX_METADATA_BYTES))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_store_that_fails_is_unavailable_and_a_mistake_of_ours_says_nothing(tmp_path: Path) -> None:
    store = await SqliteStore.open(str(tmp_path / "store.sqlite"), clock=lambda: NOW)
    await store.epoch()
    for error, expected in (
        (StoreUnavailable("disk of db7"), (grpc.StatusCode.UNAVAILABLE, "unavailable")),
        (KeyError("s3cret"), (grpc.StatusCode.INTERNAL, "internal_error")),
    ):
        failing: Any = FailingStore(store, 0, error)
        async with running(tmp_path, store=failing) as api:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(api, "ListGrants", b"", "mary")
        assert (refused.value.code(), dict(refused.value.trailing_metadata())[REASON]) == expected
        details = refused.value.details() or ""
        assert not [part for part in ("db7", "s3cret", "Traceback", "KeyError") if part in details]
    await store.close()


async def test_calls_past_the_limit_and_slow_ones_are_unavailable(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "OPERATION_SECONDS", 0.0)
    assert await refusal(call(api, "ListGrants", b"", "mary")) == (grpc.StatusCode.UNAVAILABLE, "unavailable")
    monkeypatch.setattr(problems, "MAX_RUNNING", 0)
    assert await refusal(call(api, "ListGrants", b"", "mary")) == (grpc.StatusCode.UNAVAILABLE, "overloaded")


def test_every_reason_has_a_status_in_both_protocols() -> None:
    assert set(KINDS) == {*Refusal, *ApiReason}
    assert not [
        kind for kind in KINDS.values() if grpc.StatusCode[kind.code] is grpc.StatusCode.OK or kind.status < 400
    ]
    ours = {reason for reason, kind in KINDS.items() if kind.code == "INTERNAL" or kind.status == 500}
    assert ours == {ApiReason.INTERNAL_ERROR}

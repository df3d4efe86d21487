"""Requests and grants: what peers' users complain about does not happen here, whoever asks and whatever happens at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.administrator import (
    DB,
    ENTITLEMENT,
    OPERATORS,
    PAGE,
    PARTNER,
    Administrator,
    refusal,
)
from tests.support.pki import HOUR, NOW
from tests.support.policies import identity, request as query, snapshot
from zta_authz.access.grants import GrantTable
from zta_authz.access.lifecycle import GrantState, Refusal, RequestState
from zta_authz.administrator.access_items import MAX_REASON
from zta_authz.administrator.grants import MAX_ASKED
from zta_authz.administrator.view_items import GrantItem
from zta_authz.model.access import Grant, Subject
from zta_authz.model.facts import FactViews
from zta_authz.pdp.decide import Caller, decide

if TYPE_CHECKING:
    from zta_authz.administrator.access_items import RequestItem
    from zta_authz.administrator.operator_authorization import AuthorizedCaller
    from zta_authz.administrator.store.port import Store
    from zta_authz.model.decision import Decision

REASON = "INC-4711 migration"
TWO_MANAGERS_AND_SECURITY = """
  approvers:
  - {from: [{source: {requestPrincipals: ["*"]}}], when: [{key: "request.auth.claims[groups]", values: [managers]}], count: 2}
  - {from: [{source: {requestPrincipals: ["*"]}}], when: [{key: "request.auth.claims[groups]", values: [security]}]}
"""
BREAK_GLASS = """
  breakGlass:
    who: [{source: {requestPrincipals: ["*/oncall"]}}]
    maxDuration: 30m
    reviewWithin: 24h
"""
GUARD = """
apiVersion: zta.dev/v1
kind: AccessPolicy
metadata: {name: db, namespace: istio-system}
spec: {rules: [{to: [{operation: {hosts: [db]}}], require: {grant: payments/db}}]}
"""


def with_approvers(text: str) -> str:
    """The entitlement with other approvers."""
    return ENTITLEMENT[: ENTITLEMENT.index("  approvers:")] + text.lstrip("\n")


def changed(old: str, new: str) -> str:
    assert old in ENTITLEMENT
    return ENTITLEMENT.replace(old, new)


@pytest.fixture
def admin(store: Store) -> Administrator:
    return Administrator(store)


@pytest.fixture
def emergencies(store: Store) -> Administrator:
    return Administrator(store, ENTITLEMENT + BREAK_GLASS.lstrip("\n"), OPERATORS)


async def asked(admin: Administrator, who: str = "ann", duration: float = HOUR, start: float = 0.0) -> RequestItem:
    return await admin.grants.request(admin.person(who), DB, duration, REASON, start)


async def approved(admin: Administrator, request: RequestItem, by: str = "bob", duration: float = 0.0) -> RequestItem:
    return await admin.grants.approve(admin.person(by), request.id, request.scope_sha256, duration)


async def granted(admin: Administrator, who: str = "ann", duration: float = HOUR, start: float = 0.0) -> GrantItem:
    request = await approved(admin, await asked(admin, who, duration, start))
    return await admin.grants.get_grant(request.grant_id)


# time


async def test_the_duration_counts_from_the_approval_however_late_it_comes(admin: Administrator) -> None:
    request = await asked(admin)
    admin.clock.now += 23 * HOUR
    grant = await admin.grants.get_grant((await approved(admin, request)).grant_id)
    assert (grant.start, grant.until) == (NOW + 23 * HOUR, NOW + 24 * HOUR)


async def test_a_request_can_be_decided_until_its_time_is_over_and_never_after(admin: Administrator) -> None:
    first, second, third = [await asked(admin, who) for who in ("ann", "bob", "carol")]
    admin.clock.now = first.pending_until - 0.001
    assert (await approved(admin, first, "dave")).state is RequestState.APPROVED
    admin.clock.now = second.pending_until
    assert await refusal(approved(admin, second, "dave")) is Refusal.ALREADY_DECIDED
    assert await refusal(admin.grants.deny(admin.person("dave"), second.id)) is Refusal.ALREADY_DECIDED
    assert await refusal(admin.grants.withdraw(admin.person("carol"), third.id)) is Refusal.ALREADY_DECIDED
    assert (await admin.grants.get_request(second.id)).state is RequestState.LAPSED, "no step has run"
    assert {item.state for item in await admin.grants.list_requests()} == {RequestState.APPROVED, RequestState.LAPSED}


async def test_a_grant_begins_when_it_was_asked_for_or_when_it_was_approved_if_that_is_later(
    admin: Administrator,
) -> None:
    early, late = await asked(admin, start=NOW + 2 * HOUR), await asked(admin, start=NOW + HOUR)
    grant = await admin.grants.get_grant((await approved(admin, early)).grant_id)
    assert (grant.start, grant.until, grant.state) == (NOW + 2 * HOUR, NOW + 3 * HOUR, GrantState.SCHEDULED)
    admin.clock.now = NOW + 1.5 * HOUR
    grant = await admin.grants.get_grant((await approved(admin, late)).grant_id)
    assert (grant.start, grant.until, grant.state) == (NOW + 1.5 * HOUR, NOW + 2.5 * HOUR, GrantState.ACTIVE)


@pytest.mark.parametrize("start", [NOW - 1, NOW + 31 * 86400, -1.0, float("nan"), float("inf"), float("-inf")])
async def test_a_start_that_makes_no_sense_is_refused(admin: Administrator, start: float) -> None:
    assert await refusal(asked(admin, start=start)) is Refusal.INVALID


@pytest.mark.parametrize("duration", [0.0, -1.0, 59.0, 4 * HOUR + 1, float("nan"), float("inf")])
async def test_a_duration_that_the_entitlement_does_not_have_is_refused(admin: Administrator, duration: float) -> None:
    assert await refusal(asked(admin, duration=duration)) is Refusal.TOO_LONG


async def test_an_approver_may_shorten_a_grant_and_never_lengthen_it(admin: Administrator) -> None:
    request = await asked(admin)
    for duration in (HOUR + 1, 59.0, -1.0, float("nan"), float("inf")):
        assert await refusal(approved(admin, request, duration=duration)) is Refusal.TOO_LONG
    grant = await admin.grants.get_grant((await approved(admin, request, duration=600)).grant_id)
    assert grant.until - grant.start == 600


async def test_the_shortest_duration_that_an_approver_chose_counts(store: Store) -> None:
    admin = Administrator(store, with_approvers(TWO_MANAGERS_AND_SECURITY), OPERATORS)
    request = await asked(admin)
    managers = [admin.person(name, groups=["managers"]) for name in ("max", "mia")]
    security = admin.person("sam", groups=["security"])
    await admin.grants.approve(managers[0], request.id, request.scope_sha256, 1800)
    assert await refusal(admin.grants.approve(security, request.id, request.scope_sha256, HOUR)) is Refusal.TOO_LONG
    await admin.grants.approve(security, request.id, request.scope_sha256, 600)
    done = await admin.grants.approve(managers[1], request.id, request.scope_sha256)
    grant = await admin.grants.get_grant(done.grant_id)
    assert grant.until - grant.start == 600


async def test_the_time_of_the_store_decides_and_not_that_of_a_replica(store: Store) -> None:
    ahead, behind = Administrator(store), Administrator(store)
    behind.grants = ahead.grants  # the same store, and so the same time
    behind.clock.now -= HOUR
    request = await asked(ahead)
    ahead.clock.now = request.pending_until
    assert await refusal(approved(behind, request)) is Refusal.ALREADY_DECIDED


# several grants


async def test_overlapping_grants_do_not_end_each_other(admin: Administrator) -> None:
    short, long = await granted(admin, duration=600), await granted(admin, duration=HOUR)
    await admin.grants.revoke(admin.person("bob"), short.id)
    other = await granted(admin, duration=900)
    await admin.grants.end(admin.person("ann"), other.id)
    grant = await admin.grants.get_grant(long.id)
    assert (grant.until, grant.state) == (NOW + HOUR, GrantState.ACTIVE)


async def test_nobody_has_more_open_than_the_entitlement_allows(store: Store) -> None:
    admin = Administrator(store, ENTITLEMENT + "  maxOpen: 2\n", OPERATORS)
    first = await asked(admin)
    await granted(admin)
    assert await refusal(asked(admin)) is Refusal.TOO_MANY
    await asked(admin, "carol")
    await admin.grants.withdraw(admin.person("ann"), first.id)
    await asked(admin)
    assert await refusal(asked(admin)) is Refusal.TOO_MANY
    admin.clock.now += HOUR
    await asked(admin)  # the grant is over, although no step has run


async def test_requests_at_once_do_not_exceed_the_limit_of_open_ones(store: Store) -> None:
    replicas = [Administrator(store, ENTITLEMENT + "  maxOpen: 3\n", OPERATORS) for _ in range(2)]
    tries = [asked(replicas[number % 2]) for number in range(6)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 3


async def test_nobody_fills_the_store_by_asking_and_withdrawing(admin: Administrator) -> None:
    ann = admin.person("ann")
    for _ in range(MAX_ASKED):
        request = await admin.grants.request(ann, DB, HOUR, REASON)
        await admin.grants.withdraw(ann, request.id)
    assert await refusal(asked(admin)) is Refusal.TOO_MANY
    await asked(admin, "bob")
    admin.clock.now += HOUR
    await asked(admin)


# who decides


async def test_nobody_approves_their_own_request_with_another_token_or_without_one(admin: Administrator) -> None:
    request = await admin.grants.request(admin.person("ann", principal=PAGE), DB, HOUR, REASON)
    own = [
        admin.person("ann"),
        admin.person("ann", principal=PAGE),
        admin.person("ann", jti="another", groups=["managers"]),
        admin.person("ann", principal="spiffe://cluster.local/ns/tools/sa/other"),
        admin.workload(PAGE),
    ]
    for caller in own:
        assert await refusal(admin.grants.approve(caller, request.id, request.scope_sha256)) is Refusal.OWN_REQUEST
        assert await refusal(admin.grants.deny(caller, request.id)) is Refusal.OWN_REQUEST
    by_workload = await admin.grants.request(admin.workload(PAGE), DB, HOUR, REASON)
    caller = admin.person("ann", principal=PAGE)
    refused = await refusal(admin.grants.approve(caller, by_workload.id, by_workload.scope_sha256))
    assert refused is Refusal.OWN_REQUEST, "whoever comes through the workload may be the one who asked"


async def test_people_who_come_through_the_same_page_are_different_people(admin: Administrator) -> None:
    request = await admin.grants.request(admin.person("ann", principal=PAGE), DB, HOUR, REASON)
    done = await admin.grants.approve(admin.person("bob", principal=PAGE), request.id, request.scope_sha256)
    assert done.state is RequestState.APPROVED


async def test_the_same_subject_of_another_issuer_is_another_person(admin: Administrator) -> None:
    request = await asked(admin)
    stranger = admin.person("ann", PARTNER)
    assert await refusal(admin.grants.withdraw(stranger, request.id)) is Refusal.NOT_ALLOWED
    assert (await admin.grants.approve(stranger, request.id, request.scope_sha256)).grant_id


async def test_nobody_counts_twice_whatever_they_come_with(store: Store) -> None:
    admin = Administrator(
        store, with_approvers(ENTITLEMENT[ENTITLEMENT.index("  approvers:") :] + "    count: 3\n"), OPERATORS
    )
    request = await asked(admin)
    await admin.grants.approve(admin.person("bob", principal=PAGE), request.id, request.scope_sha256)
    for caller in (admin.person("bob"), admin.person("bob", jti="2"), admin.workload(PAGE)):
        refused = await refusal(admin.grants.approve(caller, request.id, request.scope_sha256))
        assert refused is Refusal.ALREADY_APPROVED
    await admin.grants.approve(admin.workload("spiffe://cluster.local/ns/a/sa/b"), request.id, request.scope_sha256)
    through = admin.person("carol", principal="spiffe://cluster.local/ns/a/sa/b")
    assert await refusal(admin.grants.approve(through, request.id, request.scope_sha256)) is Refusal.ALREADY_APPROVED
    assert (await admin.grants.get_request(request.id)).state is RequestState.REQUESTED


async def test_each_group_of_approvers_has_to_approve(store: Store) -> None:
    admin = Administrator(store, with_approvers(TWO_MANAGERS_AND_SECURITY), OPERATORS)
    request = await asked(admin)

    async def approve(name: str, *groups: str) -> RequestItem:
        caller = admin.person(name, groups=list(groups))
        return await admin.grants.approve(caller, request.id, request.scope_sha256)

    assert await refusal(approve("eve", "developers")) is Refusal.NOT_AN_APPROVER
    assert await refusal(admin.grants.deny(admin.person("eve"), request.id)) is Refusal.NOT_AN_APPROVER
    for name in ("max", "mia", "mo"):
        assert (await approve(name, "managers")).state is RequestState.REQUESTED
    assert (await approve("sam", "security")).state is RequestState.APPROVED
    assert await admin.kinds() == ["requested", *["approved"] * 4, "activated"]


async def test_somebody_in_two_groups_counts_for_one_of_them(store: Store) -> None:
    admin = Administrator(store, with_approvers(TWO_MANAGERS_AND_SECURITY), OPERATORS)
    request = await asked(admin)
    for name, groups in (("max", ["managers", "security"]), ("mia", ["managers", "security"])):
        caller = admin.person(name, groups=groups)
        assert (await admin.grants.approve(caller, request.id, request.scope_sha256)).state is RequestState.REQUESTED
    caller = admin.person("mo", groups=["managers"])
    assert (await admin.grants.approve(caller, request.id, request.scope_sha256)).state is RequestState.APPROVED


async def test_approvals_at_once_at_two_replicas_count_as_people_and_give_one_grant(store: Store) -> None:
    text = with_approvers(ENTITLEMENT[ENTITLEMENT.index("  approvers:") :] + "    count: 2\n")
    replicas = [Administrator(store, text, OPERATORS) for _ in range(2)]
    request = await asked(replicas[0])
    tries = [approved(replicas[number % 2], request, by) for number, by in enumerate(("bob", "bob", "bob", "bob"))]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1, "one person, whatever they do at once"
    assert (await replicas[0].grants.get_request(request.id)).state is RequestState.REQUESTED
    tries = [approved(replicas[number % 2], request, by) for number, by in enumerate(("carol", "dave", "erin"))]
    results = await asyncio.gather(*tries, return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    assert len(done) == 1, "the second person's approval decides the request, and the others come too late"
    assert len(done[0].approvals) == 2
    assert len(await replicas[0].grants.list_grants()) == 1
    assert (await replicas[0].kinds()).count("activated") == 1


async def test_a_request_that_is_approved_denied_and_withdrawn_at_once_is_decided_once(store: Store) -> None:
    replicas = [Administrator(store) for _ in range(3)]
    request = await asked(replicas[0])
    results = await asyncio.gather(
        approved(replicas[0], request, "bob"),
        replicas[1].grants.deny(replicas[1].person("carol"), request.id),
        replicas[2].grants.withdraw(replicas[2].person("ann"), request.id),
        return_exceptions=True,
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    kinds = await replicas[0].kinds()
    assert len(kinds) == (3 if "activated" in kinds else 2)


# what is decided


async def test_an_approval_names_what_was_seen(admin: Administrator) -> None:
    request, other = await asked(admin), await asked(admin, duration=2 * HOUR)
    for seen in ("", "0" * 64, other.scope_sha256, request.scope_sha256.upper()):
        assert await refusal(admin.grants.approve(admin.person("bob"), request.id, seen)) is Refusal.SCOPE_CHANGED


@pytest.mark.parametrize(
    "later",
    [
        changed("maxDuration: 4h", "maxDuration: 8h"),
        changed("maxDuration: 4h", "maxDuration: 30m"),
        changed("  maxDuration: 4h", "  to: [{operation: {methods: [DELETE]}}]\n  maxDuration: 4h"),
        with_approvers(TWO_MANAGERS_AND_SECURITY),
    ],
)
async def test_a_request_under_an_entitlement_that_has_changed_is_not_approved(
    admin: Administrator, later: str
) -> None:
    request = await asked(admin)
    admin.use(later, OPERATORS)
    boss = admin.person("bob", groups=["managers", "security"])
    approval = admin.grants.approve(boss, request.id, request.scope_sha256)
    assert await refusal(approval) is Refusal.SCOPE_CHANGED
    await admin.grants.withdraw(admin.person("ann"), request.id)
    request = await asked(admin, duration=1800)
    await admin.grants.approve(boss, request.id, request.scope_sha256)


async def test_approvals_are_not_counted_for_groups_of_another_order(store: Store) -> None:
    lines = TWO_MANAGERS_AND_SECURITY.replace(", count: 2", "").strip("\n").splitlines()
    admin = Administrator(store, with_approvers("\n".join(lines)), OPERATORS)
    request = await asked(admin)
    await admin.grants.approve(admin.person("max", groups=["managers"]), request.id, request.scope_sha256)
    admin.use(with_approvers("\n".join([lines[0], lines[2], lines[1]])), OPERATORS)
    approval = admin.grants.approve(admin.person("mia", groups=["managers"]), request.id, request.scope_sha256)
    assert await refusal(approval) is Refusal.SCOPE_CHANGED, "the first manager does not count as security"


async def test_comments_and_the_order_of_fields_do_not_change_an_entitlement(admin: Administrator) -> None:
    request = await asked(admin)
    moved = changed("  maxDuration: 4h\n  pendingFor: 24h\n", "  # as agreed\n  pendingFor: 24h\n  maxDuration: 4h\n")
    admin.use(moved, OPERATORS)
    assert (await approved(admin, request)).state is RequestState.APPROVED


async def test_a_request_for_an_entitlement_that_was_deleted_can_only_be_withdrawn(admin: Administrator) -> None:
    request = await asked(admin)
    admin.use(OPERATORS)
    assert await refusal(approved(admin, request)) is Refusal.NOT_FOUND
    assert await refusal(admin.grants.deny(admin.person("bob"), request.id)) is Refusal.NOT_FOUND
    assert (await admin.grants.withdraw(admin.person("ann"), request.id)).state is RequestState.WITHDRAWN


async def test_a_grant_of_an_entitlement_that_was_deleted_can_be_revoked(admin: Administrator) -> None:
    grant = await granted(admin)
    admin.use(OPERATORS)
    assert (await admin.grants.revoke(admin.person("bob"), grant.id)).state == GrantState.REVOKED


# who asks


async def test_only_the_eligible_may_ask_and_others_do_not_learn_what_there_is(admin: Administrator) -> None:
    guest = admin.person("gus", groups=["guests"])
    assert await refusal(admin.grants.request(guest, DB, HOUR, REASON)) is Refusal.NOT_ELIGIBLE
    assert await refusal(admin.grants.request(guest, "payments/none", HOUR, REASON)) is Refusal.NOT_ELIGIBLE
    assert await refusal(admin.grants.break_glass(guest, DB, HOUR, REASON)) is Refusal.NOT_ELIGIBLE


@pytest.mark.parametrize(
    ("reason", "refused"),
    [
        ("", Refusal.REASON_REQUIRED),
        ("   ", Refusal.REASON_REQUIRED),
        ("because", Refusal.REASON_REQUIRED),
        ("see INC-1", Refusal.REASON_REQUIRED),
        ("INC-1\n", Refusal.INVALID),
        ("INC-1 \x1b[2J", Refusal.INVALID),
        ("INC-1 \x9b2J", Refusal.INVALID),
        ("INC-1 \u202eevil", Refusal.INVALID),
        ("INC-1 \u2028", Refusal.INVALID),
        ("INC-1 \udc80", Refusal.INVALID),
        ("INC-1 \0", Refusal.INVALID),
        ("INC-" + "1" * MAX_REASON, Refusal.INVALID),
    ],
)
async def test_a_reason_has_to_be_there_to_match_and_to_be_printable(
    store: Store, reason: str, refused: Refusal
) -> None:
    admin = Administrator(store, ENTITLEMENT + "  reason: {pattern: '(INC|CHG)-[0-9]+( .*)?'}\n", OPERATORS)
    await admin.grants.request(admin.person("ann"), DB, HOUR, "CHG-17 für Straße 東")
    assert await refusal(admin.grants.request(admin.person("ann"), DB, HOUR, reason)) is refused


async def test_a_reason_that_is_not_required_may_be_left_out(store: Store) -> None:
    text = ENTITLEMENT + "  reason: {required: false, pattern: 'INC-[0-9]+'}\n"
    admin = Administrator(store, text, OPERATORS)
    await admin.grants.request(admin.person("ann"), DB, HOUR, "")
    assert await refusal(admin.grants.request(admin.person("ann"), DB, HOUR, "no")) is Refusal.REASON_REQUIRED


async def test_comments_have_the_limits_of_reasons(admin: Administrator) -> None:
    request, bob = await asked(admin), admin.person("bob")
    bad = "line\nbreak"
    assert await refusal(admin.grants.approve(bob, request.id, request.scope_sha256, 0, bad)) is Refusal.INVALID
    assert await refusal(admin.grants.deny(bob, request.id, bad)) is Refusal.INVALID
    grant = await granted(admin)
    assert await refusal(admin.grants.revoke(bob, grant.id, bad)) is Refusal.INVALID
    assert await refusal(admin.grants.review(bob, grant.id, bad)) is Refusal.INVALID


# the end


async def test_a_holder_ends_a_grant_and_others_revoke_it(admin: Administrator) -> None:
    first, second = await granted(admin), await granted(admin)
    admin.clock.now += 60
    assert await refusal(admin.grants.end(admin.person("bob"), first.id)) is Refusal.NOT_ALLOWED
    assert await refusal(admin.grants.end(admin.workload(PAGE), first.id)) is Refusal.NOT_ALLOWED
    ended = await admin.grants.end(admin.person("ann"), first.id, "done")
    revoked = await admin.grants.revoke(admin.person("bob"), second.id, "INC-9")
    assert (ended.state, ended.until) == (GrantState.ENDED, NOW + 60)
    assert (revoked.state, revoked.until) == (GrantState.REVOKED, NOW + 60)
    assert (await admin.kinds())[-2:] == ["ended", "revoked"]
    for over in (ended, revoked):
        assert await refusal(admin.grants.revoke(admin.person("bob"), over.id)) is Refusal.ALREADY_DECIDED


async def test_a_shared_workload_is_not_enough_to_withdraw_or_end(admin: Administrator) -> None:
    ann = admin.person("ann", principal=PAGE)
    request = await admin.grants.request(ann, DB, HOUR, REASON)
    assert await refusal(admin.grants.withdraw(admin.workload(PAGE), request.id)) is Refusal.NOT_ALLOWED
    done = await approved(admin, request)
    assert await refusal(admin.grants.end(admin.workload(PAGE), done.grant_id)) is Refusal.NOT_ALLOWED
    await admin.grants.end(admin.person("ann"), done.grant_id)


async def test_a_grant_that_has_ended_by_time_is_over_although_no_step_has_run(admin: Administrator) -> None:
    grant = await granted(admin)
    admin.clock.now += HOUR
    assert await refusal(admin.grants.revoke(admin.person("bob"), grant.id)) is Refusal.ALREADY_DECIDED
    assert [item.state for item in await admin.grants.list_grants()] == [GrantState.EXPIRED]


async def test_a_grant_can_be_revoked_before_it_begins(admin: Administrator) -> None:
    grant = await granted(admin, start=NOW + HOUR)
    revoked = await admin.grants.revoke(admin.person("bob"), grant.id)
    assert revoked.until == NOW
    assert not any(_held(revoked).is_active(NOW + offset) for offset in (0, HOUR, 1.5 * HOUR))


async def test_ids_that_do_not_exist_are_not_found(admin: Administrator) -> None:
    bob = admin.person("bob")
    for name in ("", "0" * 16, "../grant/x", "a b", "\n", "0" * 600):
        assert await refusal(admin.grants.approve(bob, name, "")) is Refusal.NOT_FOUND
        assert await refusal(admin.grants.revoke(bob, name)) is Refusal.NOT_FOUND
        assert await refusal(admin.grants.get_request(name)) is Refusal.NOT_FOUND
        assert await refusal(admin.grants.get_grant(name)) is Refusal.NOT_FOUND


# emergencies


async def test_access_in_an_emergency_comes_at_once_and_is_reviewed_before_the_next(
    emergencies: Administrator,
) -> None:
    admin, oncall, bob = emergencies, emergencies.person("oncall"), emergencies.person("bob")
    grant = await admin.grants.break_glass(oncall, DB, 1800, REASON)
    assert (grant.state, grant.break_glass, grant.until) == (GrantState.ACTIVE, True, NOW + 1800)
    assert grant.review_due == NOW + 24 * HOUR
    assert await refusal(admin.grants.break_glass(oncall, DB, 1800, REASON)) is Refusal.REVIEW_OPEN
    assert await refusal(admin.grants.review(bob, grant.id, "early")) is Refusal.INVALID, "it is still active"
    admin.clock.now += 1800
    assert await refusal(admin.grants.break_glass(oncall, DB, 1800, REASON)) is Refusal.REVIEW_OPEN
    assert await refusal(admin.grants.review(oncall, grant.id, "fine")) is Refusal.OWN_REQUEST
    admin.clock.now += 48 * HOUR
    assert await refusal(admin.grants.break_glass(oncall, DB, 1800, REASON)) is Refusal.REVIEW_OPEN, "overdue"
    reviewed = await admin.grants.review(bob, grant.id, "justified")
    assert reviewed.review_due == 0
    assert await refusal(admin.grants.review(bob, grant.id, "again")) is Refusal.ALREADY_DECIDED
    await admin.grants.break_glass(oncall, DB, 1800, REASON)
    assert await admin.kinds() == ["break_glass", "reviewed", "break_glass"]


async def test_an_emergency_that_was_ended_early_is_reviewed_too(emergencies: Administrator) -> None:
    admin, oncall = emergencies, emergencies.person("oncall")
    grant = await admin.grants.break_glass(oncall, DB, 1800, REASON)
    admin.clock.now += 10
    await admin.grants.end(oncall, grant.id)
    assert await refusal(admin.grants.break_glass(oncall, DB, 1800, REASON)) is Refusal.REVIEW_OPEN
    await admin.grants.review(admin.person("bob"), grant.id, "fine")
    await admin.grants.break_glass(oncall, DB, 1800, REASON)


async def test_only_the_listed_break_glass_with_a_reason_and_for_the_short_time(emergencies: Administrator) -> None:
    admin, oncall = emergencies, emergencies.person("oncall")
    assert await refusal(admin.grants.break_glass(admin.person("ann"), DB, 600, REASON)) is Refusal.NOT_ELIGIBLE
    assert await refusal(admin.grants.break_glass(oncall, DB, 1801, REASON)) is Refusal.TOO_LONG
    assert await refusal(admin.grants.break_glass(oncall, DB, 600, "")) is Refusal.REASON_REQUIRED
    guest = admin.person("oncall", groups=["guests"])
    assert await refusal(admin.grants.break_glass(guest, DB, 600, REASON)) is Refusal.NOT_ELIGIBLE, "`who` counts too"


async def test_two_emergencies_at_once_give_one_grant(store: Store) -> None:
    replicas = [Administrator(store, ENTITLEMENT + BREAK_GLASS.lstrip("\n"), OPERATORS) for _ in range(2)]
    tries = [replica.grants.break_glass(replica.person("oncall"), DB, 600, REASON) for replica in replicas]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, GrantItem) for result in results) == 1


async def test_an_ordinary_grant_needs_no_review(admin: Administrator) -> None:
    grant = await granted(admin)
    admin.clock.now += HOUR
    assert await refusal(admin.grants.review(admin.person("bob"), grant.id, "")) is Refusal.ALREADY_DECIDED


# the record, and what a decision point makes of it


async def test_each_step_is_recorded_with_its_actor_and_reason(admin: Administrator) -> None:
    grant = await granted(admin)
    requested, decided_, activated = await admin.events()
    assert (requested.actor.subject, requested.reason) == ("ann", REASON)
    assert (decided_.actor.subject, decided_.object.type, decided_.object.id) == ("bob", "grant", grant.id)
    assert decided_.object.fields["request"] == grant.request_id
    assert activated.object.fields["until"] == NOW + HOUR
    assert all(event.policy_digest == admin.snapshot.digest for event in (requested, decided_, activated))
    assert all(event.actor.decision_id for event in (requested, decided_, activated))


async def test_an_operation_is_answered_after_the_log_has_its_event(store: Store) -> None:
    admin, settled = Administrator(store), list[int]()

    async def settle(committed: object) -> None:
        del committed
        await asyncio.sleep(0)
        settled.append(len(await admin.kinds()))

    admin.grants = type(admin.grants)(admin.store, lambda: admin.snapshot.entitlements, settle)
    await asked(admin)
    assert settled == [1]


def _held(grant: GrantItem) -> Grant:
    """The grant as a decision point holds it."""
    subject = Subject(grant.subject.issuer, grant.subject.subject, grant.subject.spiffe_id)
    return Grant(grant.id, grant.entitlement, subject, grant.start, grant.until, grant.break_glass)


def _used(admin: Administrator, caller: AuthorizedCaller, *grants: GrantItem, **claims: object) -> Decision:
    """The decision on the caller's request at a decision point that knows `grants`."""
    table = GrantTable(60.0)
    table.confirm(admin.clock.now)
    for grant in grants:
        table.put(_held(grant))
    issuer, subject, _ = caller.subjects[0]
    who = identity(claims={"iss": issuer, "sub": subject, **claims})
    policies = snapshot(ENTITLEMENT, GUARD)
    return decide(policies, query("GET", "/", host="db"), Caller(who), admin.clock.now, views=FactViews(grants=table))


async def test_eligibility_counts_at_every_use(admin: Administrator) -> None:
    ann, grant = admin.person("ann"), await granted(admin)
    assert _used(admin, ann, grant).allowed
    assert not _used(admin, ann, grant, groups=["guests"]).allowed, "ann has lost what made her eligible"
    assert not _used(admin, admin.person("ann", PARTNER), grant).allowed
    admin.clock.now += HOUR
    assert not _used(admin, ann, grant).allowed, "no step has run, and nobody told the decision point"

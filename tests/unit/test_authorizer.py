"""The data path: nothing without a snapshot, nothing allowed without a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zta_authz.authorizer import Authorizer
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.options import Options
from zta_authz.model.request import Evidence, RequestAttributes
from zta_authz.pdp.snapshot import Snapshot, SourceText, compile_snapshot

if TYPE_CHECKING:
    from zta_authz.ports import Metadata

OPEN = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a}, spec: {rules: [{}]}}"
REQUEST = RequestAttributes(method="GET", path="/")
ALLOW = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY)
DENY = Decision(Verdict.DENY, Reason.DENY_POLICY)


class Snapshots:
    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot

    def current(self) -> Snapshot | None:
        return self.snapshot


class Sink:
    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.records: list[tuple[RequestAttributes | None, Decision, str, float]] = []

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
    ) -> bool:
        self.records.append((request, decision, decision_id, now))
        return self.takes


async def test_without_a_snapshot_everything_is_denied() -> None:
    decision = await Authorizer(Snapshots(None), Sink(True)).authorize(REQUEST, Evidence(), 1.0)
    assert (decision.verdict, decision.reason) == (Verdict.DENY, Reason.NOT_READY)


async def test_the_snapshot_in_force_decides() -> None:
    snapshots = Snapshots(compile_snapshot([SourceText("a.yaml", OPEN)], Options()))
    authorizer = Authorizer(snapshots, Sink(True))
    assert (await authorizer.authorize(REQUEST, Evidence(), 1.0)).allowed
    snapshots.snapshot = compile_snapshot([], Options())
    assert not (await authorizer.authorize(REQUEST, Evidence(), 1.0)).allowed


@pytest.mark.parametrize(
    ("decision", "takes", "answered"),
    [
        (ALLOW, True, Reason.ALLOW_POLICY),
        (ALLOW, False, Reason.AUDIT_UNAVAILABLE),
        (DENY, True, Reason.DENY_POLICY),
        (DENY, False, Reason.DENY_POLICY),
    ],
)
def test_only_an_allow_needs_its_record(decision: Decision, takes: bool, answered: Reason) -> None:
    sink = Sink(takes)
    found = Authorizer(Snapshots(None), sink).account(REQUEST, decision, "id", 2.0)
    assert found.reason is answered
    assert found.allowed is (answered is Reason.ALLOW_POLICY)
    assert sink.records == [(REQUEST, decision, "id", 2.0)]

"""THE DATA PATH: one request in, one decision out.

    snapshot and time -> verified identity -> candidate rules -> facts -> decision -> obligations and audit

The first five are `pdp.decide`, which is pure; this module adds the world: the snapshot in force, and the record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.pdp.decide import decide

if TYPE_CHECKING:
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import AuditSink, Metadata, ShadowPolicies, SnapshotSource

_NOT_READY = Decision(Verdict.DENY, Reason.NOT_READY)


class Authorizer:
    """Decides requests with whatever snapshot is in force when they arrive, and accounts for what is answered."""

    __slots__ = ("_audit", "_shadow", "_snapshots")

    def __init__(self, snapshots: SnapshotSource, audit: AuditSink, shadow: ShadowPolicies | None = None) -> None:
        """`shadow` is asked about each decision, and changes none."""
        self._snapshots = snapshots
        self._shadow = shadow
        self._audit = audit

    async def authorize(
        self,
        request: RequestAttributes,
        evidence: Evidence,
        now: float,
        caller: str = "",
        stages: Stages | None = None,
    ) -> Decision:
        """Decide one request at `now`, seconds since the epoch; a bug raises, and the servicer denies.

        `caller` is the verified SPIFFE ID of the proxy that asks, "" on a Unix socket; `stages` notes the times.
        """
        snapshot = self._snapshots.current()
        if snapshot is None:
            return _NOT_READY
        decision = decide(snapshot, request, evidence, now, caller, stages=stages)
        if stages is not None:
            stages.decided = stages.clock()
        return decision if self._shadow is None else self._shadow.compare(request, decision, now, caller)

    def account(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
    ) -> Decision:
        """Record what is about to be answered; an allow that can't be recorded becomes a denial.

        `request` is None where its bytes were not read; `metadata` is the gRPC call's.
        """
        if self._audit.record(request, decision, decision_id, now, metadata) or not decision.allowed:
            return decision
        return Decision(Verdict.DENY, Reason.AUDIT_UNAVAILABLE, identity=decision.identity)

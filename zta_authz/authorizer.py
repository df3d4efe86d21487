"""THE DATA PATH: one request in, one decision out.

    snapshot and time -> verified identity -> candidate rules -> facts -> decision -> obligations and audit

The first five are `pdp.decide`, which is pure; this module adds the world: snapshot in force, clock, record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.pdp.decide import decide

if TYPE_CHECKING:
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.ports import AuditSink, Clock, SnapshotSource


class Authorizer:
    """Decides requests with whatever snapshot is in force when they arrive."""

    __slots__ = ("_audit", "_clock", "_snapshots")

    def __init__(self, snapshots: SnapshotSource, audit: AuditSink, clock: Clock) -> None:
        self._snapshots = snapshots
        self._audit = audit
        self._clock = clock

    async def authorize(
        self, request: RequestAttributes, evidence: Evidence, decision_id: str, caller: str = ""
    ) -> Decision:
        """Decide one request. Never raises for anything the request holds; a bug raises, and the servicer denies.

        `caller` is the verified SPIFFE ID of the proxy that asks, "" on a Unix socket.
        """
        now = self._clock()
        snapshot = self._snapshots.current()
        if snapshot is None:
            decision = Decision(Verdict.DENY, Reason.NOT_READY)
        else:
            decision = decide(snapshot, request, evidence, now, caller)
        if not self._audit.record(request, decision, decision_id, now) and decision.allowed:
            return Decision(Verdict.DENY, Reason.AUDIT_UNAVAILABLE, identity=decision.identity)
        return decision

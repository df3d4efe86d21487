"""The data path: one Check call in, one response out, as plain calls in this order.

    snapshot -> parse -> identify -> decide -> finalize -> mint -> record -> encode -> observe

Nothing here waits: no step is a coroutine, and both servers call the same function. `pdp.decide` is pure; this module
adds the snapshot in force, the shadow policies, the decision log and telemetry. It is independent of the wire format:
`service.app` passes in `parse` and `encode` (`ext_authz.request` and `ext_authz.response` for Envoy). An exception is a
bug, and `ext_authz.servicer` turns it into a denial.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from msgspec import structs

from zta_authz.errors import DENIAL_RESPONSES, Reason, Refused
from zta_authz.model.changed_headers import OWN_NAMES
from zta_authz.model.claims import is_header_value
from zta_authz.model.decision import NO_RESPONSE, Decision, Verdict
from zta_authz.model.facts import FactSlot
from zta_authz.pdp.decide import decide, identify
from zta_authz.pdp.remedies import ChallengeMemory

if TYPE_CHECKING:
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.ports import AuditSink, CheckEvent, Encode, Minter, Observer, Parse, ShadowPolicies, SnapshotSource

NANOSECONDS: Final = 1e9
_NOT_READY: Final = Decision(Verdict.DENY, Reason.NOT_READY)


class Authorizer:
    """Answers Check calls with the snapshot in force at their arrival."""

    __slots__ = (
        "_audit",
        "_challenges",
        "_encode",
        "_facts",
        "_minter",
        "_observer",
        "_parse",
        "_shadow",
        "_snapshots",
    )

    def __init__(
        self,
        parse: Parse,
        encode: Encode,
        snapshots: SnapshotSource,
        audit: AuditSink,
        observer: Observer,
        shadow: ShadowPolicies | None = None,
        facts: FactSlot | None = None,
        minter: Minter | None = None,
    ) -> None:
        """`shadow` compares each decision with that of other policies, and changes none. `observer` must not raise.

        `facts` holds the views of devices and networks in force; without it every fact is absent. Without `minter`, a
        request whose rule orders a token is denied.
        """
        self._facts = FactSlot() if facts is None else facts
        self._challenges = ChallengeMemory()
        self._parse = parse
        self._encode = encode
        self._snapshots = snapshots
        self._audit = audit
        self._minter = minter
        self._observer = observer
        self._shadow = shadow

    def check(self, call: CheckEvent, payload: bytes, proxy: str = "") -> bytes:
        """Decide the request in `payload`, fill in `call`, and return the encoded response. Only a bug raises.

        `proxy` is the verified SPIFFE ID of the calling proxy, "" on a Unix socket.
        """
        now = call.started_ns / NANOSECONDS
        stages = call.stages = self._observer.begin(call.metadata)
        snapshot = self._snapshots.snapshot
        try:
            call.request, evidence = self._parse(payload)
            if stages is not None:
                stages.parsed = stages.clock()
            decision, views = _NOT_READY, self._facts.views
            if snapshot is not None:
                caller = identify(snapshot, call.request, evidence, now, proxy)
                if stages is not None and caller.refused is None:
                    stages.identified = stages.clock()
                memory = self._challenges
                decision = decide(snapshot, call.request, caller, now, stages=stages, views=views, challenges=memory)
            if stages is not None:
                stages.decided = stages.clock()
            if self._shadow is not None and snapshot is not None:
                decision = self._shadow.compare(call.request, decision, now, proxy, views)
        except Refused as refused:
            decision = Decision(Verdict.DENY, refused.reason, detail=refused.detail)
        return self._answer(call, decision, snapshot)

    def refuse(self, call: CheckEvent, denial: Decision) -> bytes:
        """Return the encoded response to a call that is denied unread, or that failed."""
        if call.stages is None:
            call.stages = self._observer.begin(call.metadata)
        return self._answer(call, denial, self._snapshots.snapshot)

    def reply(self, call: CheckEvent, snapshot: Snapshot | None = None) -> bytes:
        """Encode the decision of `call`, and pass the call to telemetry."""
        guarded = OWN_NAMES if snapshot is None else snapshot.guarded_names
        response = self._encode(call.decision, call.decision_id, call.request, guarded)
        call.ended_ns = time.time_ns()
        self._observer.observe(call)
        return response

    def _answer(self, call: CheckEvent, decision: Decision, snapshot: Snapshot | None) -> bytes:
        """Take the final steps of every call. The recorded decision is the one that the proxy receives."""
        decision = finalize(decision)
        digest = "" if snapshot is None else snapshot.digest
        now = call.started_ns / NANOSECONDS
        if decision.response.mint is not None and decision.allowed:
            decision = self._mint(decision, call.decision_id, now)
        recorded = self._audit.record(call.request, decision, call.decision_id, now, call.metadata, digest)
        call.decision = decision if recorded or not decision.allowed else _unrecorded(decision)
        return self.reply(call, snapshot)

    def _mint(self, decision: Decision, decision_id: str, now: float) -> Decision:
        if self._minter is None:
            return structs.replace(_denied(decision, Reason.MINTING_UNAVAILABLE), detail="`minting.issuer` is not set")
        return self._minter.mint(decision, decision_id, now)


def finalize(decision: Decision) -> Decision:
    """Turn an allow that can't be carried out into a denial.

    That is an allow with the reason of a denial (a bug), or one for a caller whose name can't be a header's value.
    """
    if decision.verdict is not Verdict.ALLOW:
        return decision
    if decision.reason in DENIAL_RESPONSES:
        return _denied(decision, Reason.INTERNAL_ERROR)
    peer = decision.identity.peer
    principal = "" if peer is None else peer.principal
    if (principal.isascii() and principal.isprintable()) or is_header_value(principal):
        return decision
    return _denied(decision, Reason.PEER_CERTIFICATE_MALFORMED)


def _denied(decision: Decision, reason: Reason) -> Decision:
    return structs.replace(decision, verdict=Verdict.DENY, reason=reason, response=NO_RESPONSE)


def _unrecorded(decision: Decision) -> Decision:
    """The denial that replaces an allow whose record can't be kept."""
    return Decision(Verdict.DENY, Reason.AUDIT_UNAVAILABLE, identity=decision.identity)

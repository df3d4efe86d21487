"""Deciding one request: pure, total, deny is the fall-through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import Reason, Refused
from zta_authz.model.decision import NO_RESPONSE, Decision, Verdict
from zta_authz.pdp.paths import ambiguous
from zta_authz.policy.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rule import Rule
    from zta_authz.policy.table import WorkloadView


def decide(snapshot: Snapshot, request: RequestAttributes, evidence: Evidence, now: float) -> Decision:
    """The decision on `request` at `now` (seconds since the epoch). Never raises for what the request holds."""
    try:
        identity = snapshot.verifier.verify(request, evidence, now)
    except Refused as refused:
        return Decision(Verdict.DENY, refused.reason, detail=refused.detail)
    inputs = Inputs(request, identity, snapshot.options, now)
    if not snapshot.options.accept_ambiguous_paths:
        what = ambiguous(request.path.partition("?")[0], request.method)
        if what:
            return Decision(Verdict.DENY, Reason.PATH_AMBIGUOUS, identity=identity, detail=what)
    return combine(snapshot.table.default_view, inputs, default_allow=snapshot.options.default_allow)


def combine(view: WorkloadView, inputs: Inputs, *, default_allow: bool) -> Decision:
    """DENY, then ALLOW, then the default: allow only where it says so and no ALLOW policy selects the workload."""
    rule = view.deny.first(inputs)
    if rule is not None:
        return _decided(Verdict.DENY, Reason.DENY_POLICY, rule, inputs)
    rule = view.allow.first(inputs)
    if rule is not None:
        return _decided(Verdict.ALLOW, Reason.ALLOW_POLICY, rule, inputs)
    if default_allow and not view.has_allow:
        return Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, identity=inputs.identity)
    return Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY, identity=inputs.identity)


def _decided(verdict: Verdict, reason: Reason, rule: Rule, inputs: Inputs) -> Decision:
    response = NO_RESPONSE if rule.response is None else rule.response.resolve(inputs)
    return Decision(verdict, reason, rule.policy.name, rule.number, inputs.identity, "", response)

"""Deciding one request: pure, total, deny is the fall-through."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zta_authz.errors import Reason, Refused
from zta_authz.model.decision import NO_RESPONSE, Decision, Shadow, Verdict
from zta_authz.pdp.paths import MAX_PATH_CHARACTERS, ambiguous, plain_authority
from zta_authz.policy.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rule import Rule
    from zta_authz.policy.table import WorkloadView


def decide(
    snapshot: Snapshot,
    request: RequestAttributes,
    evidence: Evidence,
    now: float,
    caller: str = "",
    *,
    trial: bool = False,
    stages: Stages | None = None,
) -> Decision:
    """The decision on `request` at `now` (seconds since the epoch). Never raises for what the request holds.

    `caller` is the verified SPIFFE ID of the proxy that asks, "" on a Unix socket. A `trial` leaves no trace: it does
    not count as the one use that a DPoP proof is good for. `stages` notes when the identity was verified.
    """
    options = snapshot.options
    try:
        workload = snapshot.workloads.resolve(request, caller) if options.shared else None
        identity = snapshot.verifier.verify(request, evidence, now, workload, trial=trial)
    except Refused as refused:
        return Decision(Verdict.DENY, refused.reason, detail=refused.detail)
    if stages is not None:
        stages.identified = stages.clock()
    inputs = Inputs(request, identity, options, now, stages)
    if inputs.strict and not plain_authority(request.host):
        return Decision(Verdict.DENY, Reason.HOST_AMBIGUOUS, identity=identity, detail="not a name with a port")
    path = request.path.partition("?")[0]
    if inputs.strict and len(path) > MAX_PATH_CHARACTERS:
        detail = f"{len(path)} characters, more than {MAX_PATH_CHARACTERS}"
        return Decision(Verdict.DENY, Reason.PATH_TOO_LONG, identity=identity, detail=detail)
    if not options.accept_ambiguous_paths:
        what = ambiguous(path, request.method)
        if what:
            return Decision(Verdict.DENY, Reason.PATH_AMBIGUOUS, identity=identity, detail=what)
    view = snapshot.table.default_view if workload is None else snapshot.table.view(workload)
    return combine(view, inputs, default_allow=options.default_allow)


def combine(view: WorkloadView, inputs: Inputs, *, default_allow: bool) -> Decision:
    """DENY, then ALLOW, then the default: allow only where it says so and no ALLOW policy selects the workload."""
    shadows = _shadows(view, inputs) if view.has_shadows else ()
    rule = _first_denial(view, inputs)
    if rule is not None:
        return _decided(Verdict.DENY, Reason.DENY_POLICY, rule, inputs, shadows)
    rule = view.allow.first(inputs)
    if rule is not None:
        return _decided(Verdict.ALLOW, Reason.ALLOW_POLICY, rule, inputs, shadows)
    if default_allow and not view.has_allow:
        return Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, identity=inputs.identity, shadows=shadows)
    return Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY, identity=inputs.identity, shadows=shadows)


def _first_denial(view: WorkloadView, inputs: Inputs) -> Rule | None:
    """The DENY rule that holds; in strict reading each token that was presented is asked about, not only the first."""
    rule = view.deny.first(inputs)
    if rule is None and inputs.strict and len(inputs.identity.tokens) > 1:
        for token in inputs.identity.tokens:
            identity = replace(inputs.identity, token=token)
            again = Inputs(inputs.request, identity, inputs.options, inputs.now, inputs.stages)
            again.charge_conditions_to(inputs)
            rule = view.deny.first(again)
            inputs.charge_conditions_to(again)
            if rule is not None:
                break
    return rule


def _decided(verdict: Verdict, reason: Reason, rule: Rule, inputs: Inputs, shadows: tuple[Shadow, ...]) -> Decision:
    response = NO_RESPONSE if rule.response is None else rule.response.resolve(inputs)
    return Decision(verdict, reason, rule.policy.name, rule.number, inputs.identity, "", response, shadows)


def _shadows(view: WorkloadView, inputs: Inputs) -> tuple[Shadow, ...]:
    """What matched of the rules that never decide: the first of AUDIT, of dry-run DENY and of dry-run ALLOW."""
    found = [index.first(inputs) for index in (view.audit, view.dry_run_deny, view.dry_run_allow)]
    inputs.restore_condition_units()  # what never decides must not cost the rules that do
    return tuple(
        Shadow(rule.policy.action, rule.policy.name, rule.number, rule.policy.dry_run)
        for rule in found
        if rule is not None
    )

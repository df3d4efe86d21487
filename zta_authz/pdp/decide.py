"""Identify the caller of a request, and decide the request. Pure and total; the default is a denial."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.decision import NO_RESPONSE, AccessBasis, Decision, Shadow, Verdict
from zta_authz.model.facts import NO_FACTS
from zta_authz.model.identity import ANONYMOUS, Identity, RefusedCaller
from zta_authz.pdp.demand import ALLOWED, meet_demand
from zta_authz.pdp.paths import request_ambiguity
from zta_authz.pdp.remedies import with_remedy
from zta_authz.policy.rules.extra_clauses import ConditionClause
from zta_authz.policy.rules.facts import no_facts
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.require_grant import GrantClause
from zta_authz.policy.rules.response_template import TOKEN_DENIALS
from zta_authz.policy.rules.signal_facts import event_against

if TYPE_CHECKING:
    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import NamedToken
    from zta_authz.model.options import Workload
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.pdp.remedies import ChallengeMemory
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.facts import OpenFacts
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import WorkloadView

_WORKLOAD_REFUSALS: Final = frozenset((Reason.WORKLOAD_UNKNOWN, Reason.CALLER_NOT_ALLOWED))
"""Why the workload is unknown, which is checked first; the peer is then verified for the decision log only."""


class Caller(msgspec.Struct, frozen=True):
    """The sender of a request, and the workload that it is for; None is the options' workload.

    `refused` is None if all credentials are valid. Otherwise the request is denied, `identity` is the verified part of
    the caller, and `token` is the subject that a refused token names.
    """

    identity: Identity
    workload: Workload | None = None
    refused: Refused | None = None
    token: NamedToken | None = None


def evaluate(
    snapshot: Snapshot,
    request: RequestAttributes,
    evidence: Evidence,
    now: float,
    proxy: str = "",
    *,
    views: FactViews = NO_FACTS,
) -> Decision:
    """Identify and decide a request that is only explained, tested or replayed, as a trial (see `identify`)."""
    caller = identify(snapshot, request, evidence, now, proxy, trial=True)
    return decide(snapshot, request, caller, now, views=views)


def identify(
    snapshot: Snapshot,
    request: RequestAttributes,
    evidence: Evidence,
    now: float,
    proxy: str = "",
    *,
    trial: bool = False,
) -> Caller:
    """Find the workload and verify the caller at `now` (seconds since the epoch). Never raises, whatever is presented.

    `proxy` is the verified SPIFFE ID of the calling proxy, "" on a Unix socket. A `trial` does not use up the request's
    DPoP proof.
    """
    workload: Workload | None = None
    try:
        if snapshot.options.shared:
            workload = snapshot.workloads.resolve(request, proxy)
        return Caller(snapshot.verifier.verify(request, evidence, now, workload, trial=trial), workload)
    except RefusedCaller as refused:
        return Caller(Identity(refused.peer, api_client=refused.api_client), workload, refused, refused.token)
    except Refused as refused:
        identity = ANONYMOUS
        if refused.reason in _WORKLOAD_REFUSALS:
            with suppress(Refused):
                identity = Identity(snapshot.verifier.peer(request, evidence, now))
        return Caller(identity, workload, refused)


def decide(
    snapshot: Snapshot,
    request: RequestAttributes,
    caller: Caller,
    now: float,
    *,
    stages: Stages | None = None,
    views: FactViews = NO_FACTS,
    challenges: ChallengeMemory | None = None,
) -> Decision:
    """Decide the request of `caller` at `now` (seconds since the epoch). Never raises, whatever the request contains.

    `stages` records the time that conditions take. `views` are the facts in force. `challenges` limits how often a
    caller is asked for another login; None, for trials, counts nothing.
    """
    options, workload, identity = snapshot.options, caller.workload, caller.identity
    if caller.refused is not None:
        return _refusal(snapshot, workload, caller, caller.refused, Inputs(request, identity, options, now))
    opener = facts_of(snapshot, workload, views)
    inputs = Inputs(request, identity, options, now, stages, opener)
    ambiguity = request_ambiguity(inputs)
    if ambiguity is not None:
        reason, detail = ambiguity
        return Decision(Verdict.DENY, reason, identity=identity, detail=detail)
    if snapshot.verifier.revocations.revokes_devices:
        revoked = _device_revocation(snapshot, inputs)
        if revoked is not None:
            return _denial(revoked, caller)
    view = _view(snapshot, workload)
    decision = combine(view, inputs, default_allow=options.default_allow)
    if view.remediable is not None and decision.reason is Reason.NO_MATCHING_POLICY:
        decision = with_remedy(decision, view.remediable, inputs, partial(_would_allow, view), challenges)
    read, allowed = inputs.read_facts, decision.verdict is Verdict.ALLOW
    if opener is no_facts or (read is None and not (allowed and opener.assesses)):
        return decision
    facts = (inputs.facts if read is None else read).collected(allowed=allowed)
    inputs.read_facts = None  # they refer to `inputs`: without the cycle, both are released at once
    return decision if facts is None else _with_facts(decision, facts)


def _with_facts(decision: Decision, facts: DecisionFacts) -> Decision:
    """`decision` with the facts that it rests on. A denial names an event that speaks against the caller."""
    event = "" if decision.allowed else event_against(facts.signals, facts.device)
    if not event:
        return structs.replace(decision, facts=facts)
    access = decision.access or AccessBasis()
    return structs.replace(decision, facts=facts, access=structs.replace(access, signal=event))


def facts_of(snapshot: Snapshot, workload: Workload | None, views: FactViews) -> OpenFacts:
    """Return the opener of the facts of a request to `workload`; None is the options' workload."""
    models = snapshot.models
    return no_facts if views is NO_FACTS and models.is_empty else models.opener(workload, views)


def _device_revocation(snapshot: Snapshot, inputs: Inputs) -> Refused | None:
    """Why the device behind the request is revoked; None if it is not, or is not known."""
    dynamic, device = snapshot.verifier.revocations.dynamic, inputs.facts.device
    if dynamic is None or not device.device_id:
        return None
    try:
        dynamic.check_device(device.inventory, device.device_id, inputs.now)
    except Refused as refused:
        return refused
    return None


def _denial(refused: Refused, caller: Caller) -> Decision:
    """Deny what was refused, and name the administrator's revocation if there is one."""
    access = AccessBasis(revocation=refused.revocation) if refused.revocation else None
    return Decision(
        Verdict.DENY,
        refused.reason,
        identity=caller.identity,
        detail=refused.detail,
        refused_token=caller.token,
        access=access,
    )


def _view(snapshot: Snapshot, workload: Workload | None) -> WorkloadView:
    return snapshot.table.default_view if workload is None else snapshot.table.view(workload)


def _refusal(
    snapshot: Snapshot, workload: Workload | None, caller: Caller, refused: Refused, inputs: Inputs
) -> Decision:
    """Deny a caller with invalid credentials, with the response of the first DENY rule for the reason, if one matches.

    Such a rule lists the reason in `tokenDenials`, and is evaluated as if the request had no token.
    """
    reason = refused.reason
    denial = _denial(refused, caller)
    if reason not in TOKEN_DENIALS:
        return denial
    index = _view(snapshot, workload).token_denials.get(denial.reason)
    rule = None if index is None or request_ambiguity(inputs) is not None else index.first(inputs)
    if rule is None or rule.response is None:
        return denial
    detail = f"{denial.detail}; answered as by `{rule.policy.name}` rule {rule.label}"
    return structs.replace(denial, detail=detail, response=rule.response.resolve(inputs))


def combine(view: WorkloadView, inputs: Inputs, *, default_allow: bool) -> Decision:
    """Apply DENY rules, ALLOW rules, then the default, which allows only without an ALLOW policy for the workload."""
    shadows = _shadows(view, inputs) if view.has_shadows else ()
    denial = _first_denial(view, inputs)
    if denial is not None:
        denying, matched_inputs = denial
        decision = _decided(Verdict.DENY, Reason.DENY_POLICY, denying, matched_inputs, shadows)
        return decision if matched_inputs is inputs else _for_another_token(decision, inputs)
    rule = view.allow.first(inputs)
    if rule is not None:
        allow = _with_demand(_decided(Verdict.ALLOW, Reason.ALLOW_POLICY, rule, inputs, shadows), inputs)
        return allow if view.remediable is None or not allow.allowed else _with_grant(allow, rule, inputs)
    if default_allow and not view.has_allow:
        allow = Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, identity=inputs.identity, shadows=shadows)
        return _with_demand(allow, inputs)
    return Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY, identity=inputs.identity, shadows=shadows)


def _with_grant(allow: Decision, rule: Rule, inputs: Inputs) -> Decision:
    """`allow` with the grant that its rule needs; the one that ends first if it needs several."""
    held = [clause.grant_of(inputs) for clause in rule.clauses if isinstance(clause, GrantClause)]
    grants = [grant for grant in held if grant is not None]
    if not grants:
        return allow
    return structs.replace(allow, access=AccessBasis(min(grants, key=lambda grant: grant.until)))


def _with_demand(allow: Decision, inputs: Inputs) -> Decision:
    """`allow`, or its denial if the class of the resource demands more trust."""
    return meet_demand(allow, inputs) if inputs.open_facts.classifies else allow


def _would_allow(view: WorkloadView, inputs: Inputs) -> bool:
    """Whether a request that no rule has matched would be allowed with these inputs."""
    if _first_denial(view, inputs) is not None or view.allow.first(inputs) is None:
        return False
    return not inputs.open_facts.classifies or meet_demand(ALLOWED, inputs).allowed


def _first_denial(view: WorkloadView, inputs: Inputs) -> tuple[Rule, Inputs] | None:
    """Return the first matching DENY rule and its inputs. With strict semantics, each token is tried."""
    first = inputs.identity.token
    others = [token for token in inputs.identity.tokens if token is not first] if inputs.strict else []
    if others:
        inputs.conditions.results = {}
    rule = view.deny.first(inputs)
    if rule is not None:
        return rule, inputs
    for token in others:
        again = inputs.with_identity(replace(inputs.identity, token=token))
        again.share_condition_units(inputs, len(others))
        again.conditions.results = inputs.conditions.results
        rule = view.deny.first(again)
        inputs.continue_condition_units(again)
        if rule is not None:
            return rule, again
    return None


def _for_another_token(decision: Decision, inputs: Inputs) -> Decision:
    """Restore the identity in a denial for another token; the detail names the issuer only, as logs mask subjects."""
    token = decision.identity.token
    cause = "" if token is None else f"for another token, of issuer {quoted((token.issuer,))}"
    detail = f"{cause}: {decision.detail}" if decision.detail else cause
    return structs.replace(decision, identity=inputs.identity, detail=detail)


def _decided(verdict: Verdict, reason: Reason, rule: Rule, inputs: Inputs, shadows: tuple[Shadow, ...]) -> Decision:
    response = NO_RESPONSE if rule.response is None else rule.response.resolve(inputs)
    detail = _unknown(rule, inputs) if verdict is Verdict.DENY else ""
    return Decision(
        verdict, reason, rule.policy.name, rule.number, inputs.identity, detail, response, shadows, rule_name=rule.name
    )


def _unknown(rule: Rule, inputs: Inputs) -> str:
    """Why the condition of a matching DENY rule is Unknown, "" if it is not. The text contains no values."""
    last = rule.clauses[-1] if rule.clauses else None  # a condition costs most, so it is the last clause
    if not isinstance(last, ConditionClause):
        return ""
    inputs.restore_condition_units()
    value = last.condition.evaluate(inputs)
    if value is None:
        return "its condition is Unknown: it could not be evaluated on this request"
    return "" if value else "its condition is Unknown: the conditions of this request cost too much together"


def _shadows(view: WorkloadView, inputs: Inputs) -> tuple[Shadow, ...]:
    """The matching rules that never decide: the first AUDIT rule, and the first of each kind of dry run."""
    matches = [index.first(inputs) for index in view.shadows]
    inputs.restore_condition_units()  # rules that never decide must not use up the budget of those that do
    return tuple(
        Shadow(rule.policy.action, rule.policy.name, rule.number, rule.policy.dry_run, rule.name)
        for rule in matches
        if rule is not None
    )

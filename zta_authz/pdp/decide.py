"""Identify the caller of one request, and decide it: pure, total, and a denial where nothing allows it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import structs

from zta_authz.errors import Reason, Refused, quoted
from zta_authz.model.decision import NO_RESPONSE, Decision, Shadow, Verdict
from zta_authz.model.facts import NO_FACTS
from zta_authz.model.identity import ANONYMOUS, Identity, RefusedCaller
from zta_authz.pdp.paths import MAX_PATH_CHARACTERS, ambiguous, plain_authority, plain_method
from zta_authz.policy.rules.extra_clauses import ConditionClause
from zta_authz.policy.rules.fact_reader import NO_MODEL_TABLE, FactOpener
from zta_authz.policy.rules.facts import no_facts
from zta_authz.policy.rules.inputs import Inputs
from zta_authz.policy.rules.response_template import TOKEN_DENIALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.facts import FactViews
    from zta_authz.model.identity import NamedToken
    from zta_authz.model.options import Workload
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.policy.rules.facts import RequestFacts
    from zta_authz.policy.rules.rule import Rule
    from zta_authz.policy.rules.table import WorkloadView

_WORKLOAD_REFUSALS: Final = frozenset((Reason.WORKLOAD_UNKNOWN, Reason.CALLER_NOT_ALLOWED))
"""Why the workload is unknown, which is checked first; the peer is then verified for the decision log only."""


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request, and the workload that it is for; None is the one that the options name.

    `refused` is None where everything presented holds. Otherwise the request is denied, `identity` is as much of the
    caller as was verified, and `token` is the caller that a refused token names.
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
    """Identify and decide a request that is only explained, tested or replayed. Leaves no trace: see `identify`."""
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
    """Find the workload and verify the caller at `now` (seconds since the epoch). Never raises for what was presented.

    `proxy` is the verified SPIFFE ID of the proxy that asks, "" on a Unix socket. A `trial` does not count as the one
    use that a DPoP proof is good for.
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
) -> Decision:
    """The decision on the request of `caller` at `now`. Never raises for what the request holds.

    `stages` notes the time that conditions take. `views` are the facts in force.
    """
    options, workload, identity = snapshot.options, caller.workload, caller.identity
    if caller.refused is not None:
        return _refusal(snapshot, workload, caller, caller.refused, Inputs(request, identity, options, now))
    inputs = Inputs(request, identity, options, now, stages, facts_of(snapshot, workload, views))
    unclear = _unclear(inputs)
    if unclear is not None:
        reason, detail = unclear
        return Decision(Verdict.DENY, reason, identity=identity, detail=detail)
    return combine(_view(snapshot, workload), inputs, default_allow=options.default_allow)


def facts_of(snapshot: Snapshot, workload: Workload | None, views: FactViews) -> Callable[[Inputs], RequestFacts]:
    """Opens the facts of a request to `workload`, None for the one that the options name."""
    if snapshot.models is NO_MODEL_TABLE and views is NO_FACTS:
        return no_facts
    return FactOpener(snapshot.models.select(workload or snapshot.options.workload), views)


def _view(snapshot: Snapshot, workload: Workload | None) -> WorkloadView:
    return snapshot.table.default_view if workload is None else snapshot.table.view(workload)


def _unclear(inputs: Inputs) -> tuple[Reason, str] | None:
    """Why no rule is asked: two parties may read the request differently, or reading it costs too much. Else None."""
    request = inputs.request
    if inputs.strict and not plain_authority(request.host):
        return Reason.HOST_AMBIGUOUS, "not a name with a port"
    if inputs.strict and not plain_method(request.method):
        lower = plain_method(request.method.upper())
        return Reason.METHOD_AMBIGUOUS, "the method has a lower-case letter" if lower else "the method is not a token"
    path = request.path.partition("?")[0]
    if inputs.strict and len(path) > MAX_PATH_CHARACTERS:
        return Reason.PATH_TOO_LONG, f"{len(path)} characters, more than {MAX_PATH_CHARACTERS}"
    if not inputs.options.accept_ambiguous_paths:
        what = ambiguous(path, request.method)
        if what:
            return Reason.PATH_AMBIGUOUS, what
    return None


def _refusal(
    snapshot: Snapshot, workload: Workload | None, caller: Caller, refused: Refused, inputs: Inputs
) -> Decision:
    """The denial of a caller whose credentials do not hold, with the answer of the first DENY rule that sets one.

    Such a rule is asked as though the request had come without the token. The reason stays.
    """
    reason, detail = refused.reason, refused.detail
    denial = Decision(Verdict.DENY, reason, identity=caller.identity, detail=detail, refused_token=caller.token)
    if reason not in TOKEN_DENIALS:
        return denial
    answers = _view(snapshot, workload).token_denials.get(denial.reason)
    rule = None if answers is None or _unclear(inputs) is not None else answers.first(inputs)
    if rule is None or rule.response is None:
        return denial
    detail = f"{denial.detail}; answered as by `{rule.policy.name}` rule {rule.label}"
    return structs.replace(denial, detail=detail, response=rule.response.resolve(inputs))


def combine(view: WorkloadView, inputs: Inputs, *, default_allow: bool) -> Decision:
    """DENY, then ALLOW, then the default: allow only where it says so and no ALLOW policy selects the workload."""
    shadows = _shadows(view, inputs) if view.has_shadows else ()
    denial = _first_denial(view, inputs)
    if denial is not None:
        denying, asked = denial
        decision = _decided(Verdict.DENY, Reason.DENY_POLICY, denying, asked, shadows)
        return decision if asked is inputs else _for_another_token(decision, inputs)
    rule = view.allow.first(inputs)
    if rule is not None:
        return _decided(Verdict.ALLOW, Reason.ALLOW_POLICY, rule, inputs, shadows)
    if default_allow and not view.has_allow:
        return Decision(Verdict.ALLOW, Reason.ALLOW_DEFAULT, identity=inputs.identity, shadows=shadows)
    return Decision(Verdict.DENY, Reason.NO_MATCHING_POLICY, identity=inputs.identity, shadows=shadows)


def _first_denial(view: WorkloadView, inputs: Inputs) -> tuple[Rule, Inputs] | None:
    """The DENY rule that holds, and for what: in strict reading each token is asked about, not only the first."""
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
    """The denial, with the identity as always; the detail says whose token it is for (no subject: logs may mask it)."""
    token = decision.identity.token
    whose = "" if token is None else f"for another token, of issuer {quoted((token.issuer,))}"
    detail = f"{whose}: {decision.detail}" if decision.detail else whose
    return structs.replace(decision, identity=inputs.identity, detail=detail)


def _decided(verdict: Verdict, reason: Reason, rule: Rule, inputs: Inputs, shadows: tuple[Shadow, ...]) -> Decision:
    response = NO_RESPONSE if rule.response is None else rule.response.resolve(inputs)
    detail = _unknown(rule, inputs) if verdict is Verdict.DENY else ""
    return Decision(
        verdict, reason, rule.policy.name, rule.number, inputs.identity, detail, response, shadows, rule_name=rule.name
    )


def _unknown(rule: Rule, inputs: Inputs) -> str:
    """That a DENY rule matched by a condition that could not be told, "" where it was told. Values are not named."""
    last = rule.clauses[-1] if rule.clauses else None  # a condition costs most, so it is tried last
    if not isinstance(last, ConditionClause):
        return ""
    inputs.restore_condition_units()
    value = last.condition.evaluate(inputs)
    if value is None:
        return "its condition is Unknown: it could not be evaluated on this request"
    return "" if value else "its condition is Unknown: the conditions of this request cost too much together"


def _shadows(view: WorkloadView, inputs: Inputs) -> tuple[Shadow, ...]:
    """What matched of the rules that never decide: the first of AUDIT and of each kind of dry run."""
    found = [index.first(inputs) for index in view.shadows]
    inputs.restore_condition_units()  # what never decides must not cost the rules that do
    return tuple(
        Shadow(rule.policy.action, rule.policy.name, rule.number, rule.policy.dry_run, rule.name)
        for rule in found
        if rule is not None
    )

"""The demand of a resource's class on an allowed request: without enough trust, the allow becomes a denial."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.policy.rules.require_trust import demand_text, describe

if TYPE_CHECKING:
    from zta_authz.model.trust import ResourceClass
    from zta_authz.policy.rules.inputs import Inputs


ALLOWED: Final = Decision(Verdict.ALLOW, Reason.ALLOW_POLICY)
"""An allow to ask about, where no decision has been made."""


def meet_demand(decision: Decision, inputs: Inputs) -> Decision:
    """`decision`, an allow, if it meets the demand of the resource's class; else its denial. Rules cannot lower it."""
    facts = inputs.facts
    resource = facts.resource_class
    if resource is None or not resource.demand.is_set:
        return decision
    assessment = facts.trust
    if assessment is not None and not resource.demand.unmet(assessment):
        return decision
    seen = "no TrustModel for this workload" if assessment is None else describe(assessment, resource.demand)
    detail = f"{class_text(resource)}, and the request has {seen}"
    return Decision(
        Verdict.DENY,
        Reason.TRUST_TOO_LOW,
        identity=decision.identity,
        detail=detail,
        shadows=decision.shadows,
    )


def class_text(resource: ResourceClass) -> str:
    """A class and its demand, for an operator."""
    demanded = f" demands {demand_text(resource.demand)}" if resource.demand.is_set else ""
    return f"class `{resource.name}` ({resource.source}){demanded}"

"""Shadow policies: evaluate a second set of policies on a request that the policies in force have decided. Pure.

The evaluation uses the same request and the same verified identity, so that nothing is verified twice. It only happens
if policies decided the request. A request refused before any rule (a bad token, an ambiguous path) is refused by any
policies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Reason, Refused
from zta_authz.model.decision import Disagreement
from zta_authz.model.facts import NO_FACTS
from zta_authz.pdp.decide import combine, facts_of
from zta_authz.policy.rules.inputs import Inputs

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.request import RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot

UNMATCHED: Final = frozenset(
    (Reason.NO_MATCHING_POLICY, Reason.STEP_UP_REQUIRED, Reason.TRUST_TOO_LOW, Reason.GRANT_REQUIRED)
)
"""The reasons of denials because no ALLOW rule matches."""
BY_POLICY: Final = UNMATCHED | {Reason.ALLOW_POLICY, Reason.ALLOW_DEFAULT, Reason.DENY_POLICY}
"""The reasons of decisions made by policies."""


def decide_again(
    shadow: Snapshot,
    decided: Decision,
    request: RequestAttributes,
    now: float,
    caller: str = "",
    views: FactViews = NO_FACTS,
) -> Decision | None:
    """Decide the request with the policies in `shadow`; None if `decided` was not decided by policies."""
    if decided.reason not in BY_POLICY:
        return None
    table, options = shadow.table, shadow.options
    try:
        workload = shadow.workloads.resolve(request, caller) if options.shared else None
        view = table.default_view if workload is None else table.view(workload)
    except Refused:  # impossible: the decision resolved it with the same options
        return None
    inputs = Inputs(request, decided.identity, options, now, None, facts_of(shadow, workload, views))
    return combine(view, inputs, default_allow=options.default_allow)


def disagreement(decided: Decision, other: Decision) -> Disagreement | None:
    """Return `other` as a disagreement, None if both verdicts are equal."""
    if other.verdict is decided.verdict:
        return None
    return Disagreement(other.verdict, other.reason, other.policy, other.rule, other.rule_name)

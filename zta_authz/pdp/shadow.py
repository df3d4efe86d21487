"""What a second set of policies says of a request that the set in force has decided: pure, and without an effect.

It is asked about the same request and the same verified identity, so that nothing is verified twice, and only where
policies decided: a request that was refused before any rule was asked (a bad token, an ambiguous path) is refused
whatever the rules say.
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

BY_POLICY: Final = frozenset((Reason.ALLOW_POLICY, Reason.ALLOW_DEFAULT, Reason.DENY_POLICY, Reason.NO_MATCHING_POLICY))
"""The reasons of decisions that policies made."""


def decide_again(
    shadow: Snapshot,
    decided: Decision,
    request: RequestAttributes,
    now: float,
    caller: str = "",
    views: FactViews = NO_FACTS,
) -> Decision | None:
    """The decision of the policies in `shadow` on what was `decided` at `now`; None where no policy decided that."""
    if decided.reason not in BY_POLICY:
        return None
    table, options = shadow.table, shadow.options
    try:
        workload = shadow.workloads.resolve(request, caller) if options.shared else None
        view = table.default_view if workload is None else table.view(workload)
    except Refused:  # cannot be: it was resolved for the decision, with the same options
        return None
    inputs = Inputs(request, decided.identity, options, now, None, facts_of(shadow, workload, views))
    return combine(view, inputs, default_allow=options.default_allow)


def disagreement(decided: Decision, other: Decision) -> Disagreement | None:
    """What `other` says where that is not the verdict that was `decided`; None where they agree."""
    if other.verdict is decided.verdict:
        return None
    return Disagreement(other.verdict, other.reason, other.policy, other.rule, other.rule_name)

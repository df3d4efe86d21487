"""Facts as tests want them: fixed networks and devices, whatever is looked up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from zta_authz.model.facts import NO_DEVICE, NO_NETWORK_FACTS, NO_SIGNALS

if TYPE_CHECKING:
    from zta_authz.model.access import GrantView
    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.facts import DeviceFacts, NetworkFacts, SignalFacts
    from zta_authz.model.trust import ResourceClass, TrustAssessment


@dataclass
class FixedFacts:
    """The facts of one request, given by a test."""

    network: NetworkFacts = field(default_factory=lambda: NO_NETWORK_FACTS)
    device: DeviceFacts = field(default_factory=lambda: NO_DEVICE)
    trust: TrustAssessment | None = None
    resource_class: ResourceClass | None = None
    signals: SignalFacts = NO_SIGNALS
    grants: GrantView | None = None
    assumed_grants: frozenset[str] = frozenset()

    def collected(self, *, allowed: bool) -> DecisionFacts | None:
        """Nothing: a test looks at the facts that it gave."""
        del allowed
        return None


class FixedOpener:
    """Opens the same facts for every request."""

    assesses = False

    def __init__(self, facts: FixedFacts) -> None:
        self._facts = facts
        self.classifies = facts.resource_class is not None

    def open(self, inputs: object) -> FixedFacts:
        """The facts."""
        del inputs
        return self._facts

    def assuming(self, entitlements: frozenset[str]) -> FixedOpener:
        """The same facts, with grants of `entitlements`."""
        return FixedOpener(replace(self._facts, assumed_grants=entitlements))

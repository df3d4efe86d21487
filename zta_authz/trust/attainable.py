"""The best assessment that a model can make if some facts are never known: for checks of policies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from zta_authz.model.facts import ABSENT
from zta_authz.policy.rules.signal_facts import COMPLIANT, DEVICE_RISK
from zta_authz.trust.recorded import SettledSignal, settled_assessment
from zta_authz.trust.signals import (
    COUNTRY,
    DEVICE_SIGNALS,
    NETWORK_SIGNALS,
    REPUTATION,
    RISK_SIGNALS,
    UNMEASURED,
    CountSignal,
)

if TYPE_CHECKING:
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.trust.assessment import CompiledTrustModel
    from zta_authz.trust.signals import Signal

_FIELDS = {
    "unmanaged": "managed",
    "unencrypted": "encrypted",
    "noFirewall": "firewall",
    "staleAntivirus": "antivirus",
    "notCompliant": COMPLIANT,
    "highRiskDevice": DEVICE_RISK,
    "elevatedRiskDevice": DEVICE_RISK,
}


@dataclass(frozen=True, slots=True)
class KnownFacts:
    """What may be known about a request: network facts and device fields by name, any device, and the caller's risk."""

    network: frozenset[str]
    fields: frozenset[str]
    devices: bool
    risk: bool = False


def best_assessment(model: CompiledTrustModel, known: KnownFacts) -> TrustAssessment:
    """Assess a request that loses no point except those of signals whose facts are never known."""
    components = [
        replace(component, signals=tuple(_settled(signal, known) for signal in component.signals))
        for component in model.components
    ]
    return settled_assessment(model, components, resource=10000)


def _settled(signal: Signal, known: KnownFacts) -> SettledSignal:
    if _may_pass(signal.reads, known):
        return SettledSignal(signal.name, signal.caps, None)
    most = signal.most if isinstance(signal, CountSignal) else signal.points
    return SettledSignal(signal.name, signal.caps, (most, ABSENT))


def _may_pass(reads: str, known: KnownFacts) -> bool:
    """Whether a signal may take no points. A corporate address loses none."""
    if reads in UNMEASURED:
        return False
    if reads in RISK_SIGNALS:
        return known.risk
    if reads in DEVICE_SIGNALS:
        return known.devices and _FIELDS.get(reads, reads) in {*known.fields, "unknownDevice"}
    if "corporate" in known.network:
        return True
    if reads.startswith(COUNTRY):
        return "country" in known.network and reads != COUNTRY
    if reads.startswith(REPUTATION):
        return "reputation" in known.network
    return reads not in NETWORK_SIGNALS or "anonymous" in known.network

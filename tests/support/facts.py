"""Facts of a decision, for tests of what carries them."""

from __future__ import annotations

from zta_authz.model.decision import DecisionFacts
from zta_authz.model.facts import DeviceFacts, Fact, NetworkFacts, Unknown, known
from zta_authz.model.trust import LostPoints, ResourceClass, TrustAssessment, TrustLevel

NETWORK = NetworkFacts(
    country=known("DE"), asn=known(64500), anonymous=known(False), reputation=Fact(None, Unknown.STALE)
)
DEVICE = DeviceFacts(
    "laptop-1", "certificate", "default/fleet", {"managed": known(True), "os": known("macOS"), "encrypted": Fact()}
)
TRUST = TrustAssessment(
    "default/m",
    7050,
    TrustLevel.MEDIUM,
    {"user": 10000, "device": 4000},
    (LostPoints("device", "unencrypted", 3000, Fact()),),
    ("floor network",),
    3600,
    300,
)
FACTS = DecisionFacts(NETWORK, DEVICE, TRUST, ResourceClass("internal"), 1_800_003_600)

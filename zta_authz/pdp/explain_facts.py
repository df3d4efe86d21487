"""The facts behind a decision in words: what was known, how it was assessed, and what would lift the level."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from zta_authz.model.facts import describe
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.rules.require_trust import describe as describe_trust, points
from zta_authz.trust.assessment import CompiledTrustModel
from zta_authz.trust.counterfactual import smallest_lift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.facts import DeviceFacts, Fact, NetworkFacts
    from zta_authz.model.trust import TrustAssessment, TrustDemand
    from zta_authz.policy.rules.fact_reader import TrustModel

_NETWORK = ("country", "asn", "anonymous", "reputation", "corporate")


def fact_lines(facts: DecisionFacts | None, now: float) -> tuple[str, ...]:
    """One line for each kind of fact that was read."""
    return () if facts is None else tuple(_lines(facts, now))


def _lines(facts: DecisionFacts, now: float) -> Iterator[str]:
    if facts.network is not None:
        yield f"network: {_network(facts.network, now)}"
    if facts.device is not None:
        yield f"device: {_device(facts.device, now)}"
    if facts.signals is not None:
        risk, assurance = describe(facts.signals.risk, now), describe(facts.signals.assurance, now)
        yield f"signals: risk {risk}; assurance {assurance}"
    if facts.resource is not None:
        yield f"class: `{facts.resource.name}`, from {facts.resource.source}"
    if facts.trust is not None:
        model, sessions = facts.trust.model, facts.trust.session_seconds
        yield (
            f"trust: {describe_trust(facts.trust)}; by {model}; session {sessions} s, "
            f"verify again after {facts.trust.reverify_seconds} s"
        )


def _network(network: NetworkFacts, now: float) -> str:
    return "; ".join(f"{name} {describe(getattr(network, name), now)}" for name in _NETWORK)


def _device(device: DeviceFacts, now: float) -> str:
    fields = [describe_field(name, fact, now) for name, fact in (device.fields or {}).items()]
    if device.device_id:
        inventory = f", in {device.inventory}" if device.inventory != device.identified_by else ""
        return "; ".join((f"`{device.device_id}` by {device.identified_by}{inventory}", *fields))
    if fields and not device.identified_by:
        return "; ".join((f"conflicting: several devices of {device.inventory} are named", *fields))
    return f"not identified in {device.inventory}" if device.inventory else "no inventory for this workload"


def describe_field(name: str, fact: Fact, now: float) -> str:
    """A device's field for an operator. The time of the last report is shown in RFC 3339."""
    if name == LAST_SEEN and fact.unknown is None and isinstance(fact.value, int):
        with suppress(ValueError, OverflowError, OSError):
            at = datetime.fromtimestamp(fact.value, UTC).isoformat().replace("+00:00", "Z")
            fact = fact._replace(value=at)
    return f"{name} {describe(fact, now)}"


def lift_text(model: TrustModel | None, assessment: TrustAssessment | None, demand: TrustDemand) -> str:
    """The fewest signals that would have to change to meet `demand`; "" if it is met, or nothing was assessed."""
    if assessment is None or not isinstance(model, CompiledTrustModel) or not demand.unmet(assessment):
        return ""
    lift = smallest_lift(model, assessment, demand)
    if lift is None:
        return "no change of signals would reach that"
    changes = ", ".join(f"{loss.component}.{loss.signal} (+{points(loss.points)})" for loss in lift)
    return f"it would be reached without {changes}"

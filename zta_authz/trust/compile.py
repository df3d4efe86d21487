"""TrustModel documents to compiled models. What is wrong with a condition is a fault at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.errors import Fault
from zta_authz.model.facts import ABSENT
from zta_authz.policy.cel.condition import Condition, ConditionError
from zta_authz.trust.assessment import CompiledTrustModel, Component
from zta_authz.trust.signals import (
    BUILT_IN,
    CLAIM_AGE,
    COUNTRY,
    FULL,
    PASSES,
    REPUTATION,
    ConditionSignal,
    CountSignal,
    FactSignal,
    bounded,
    claim_age_changes,
    claim_older_than,
    country_in,
    has_reputation,
    is_in,
    is_older_than,
    reputation_of,
)

if TYPE_CHECKING:
    from zta_authz.model.trust_documents import ComponentSpec, SignalSpec, TrustModelSpec
    from zta_authz.trust.signals import Signal

_SEED_RESOURCE_WEIGHT: Final = 15
_NOT_IN_A_MODEL: Final = ("trust.", "resource.")


def compile_trust_model(spec: TrustModelSpec, faults: list[Fault]) -> CompiledTrustModel:
    """The model; not to be used where there were faults."""
    thresholds = sorted(((score, level) for level, score in spec.least_scores.items()), reverse=True)
    components = tuple(_component(spec, component, faults) for component in spec.components)
    resource_weight = _SEED_RESOURCE_WEIGHT if spec.seed_compatible else 0
    return CompiledTrustModel(
        spec.full_name, components, tuple(thresholds), spec.sessions, spec.reverify, resource_weight, spec.position
    )


def _component(model: TrustModelSpec, spec: ComponentSpec, faults: list[Fault]) -> Component:
    signals = tuple(_signal(model, signal, faults) for signal in spec.signals)
    return Component(spec.name, spec.weight, spec.floor, spec.assume, signals)


def _signal(model: TrustModelSpec, spec: SignalSpec, faults: list[Fault]) -> Signal:
    if spec.count_claim is not None:
        return CountSignal(spec.name, spec.points, spec.caps, spec.count_claim, spec.most or FULL)
    if spec.condition is not None:
        condition = _condition(spec, spec.condition, faults)
        if condition is not None:
            return ConditionSignal(spec.name, spec.points, spec.caps, condition)
    if spec.claim_age is not None:
        read = claim_older_than(spec.claim_age.claim, spec.claim_age.below)
        passes = is_older_than(spec.claim_age.claim, spec.claim_age.below)
        below = f"{spec.claim_age.below:.3f}".rstrip("0").rstrip(".")
        reads = bounded(f"{CLAIM_AGE}{'.'.join(spec.claim_age.claim)}:{below}")
        changes = claim_age_changes(spec.claim_age.claim, spec.claim_age.below)
        return FactSignal(spec.name, spec.points, spec.caps, read, passes, reads, changes)
    match spec.name:
        case "countryNotAllowed":
            countries = model.allowed_countries
            reads = bounded(COUNTRY + ",".join(sorted(countries)))
            return FactSignal(spec.name, spec.points, spec.caps, country_in(countries), is_in(countries), reads)
        case "badReputation":
            return FactSignal(
                spec.name,
                spec.points,
                spec.caps,
                reputation_of(model.least_reputation),
                has_reputation(model.least_reputation),
                f"{REPUTATION}{model.least_reputation}",
            )
    read = BUILT_IN.get(spec.name, lambda _: ABSENT)
    return FactSignal(spec.name, spec.points, spec.caps, read, PASSES.get(spec.name), spec.name)


def _condition(spec: SignalSpec, text: str, faults: list[Fault]) -> Condition | None:
    at = spec.position
    try:
        condition = Condition(text)
    except ConditionError as error:
        message = f"signal `{spec.name}`, condition line {error.line} column {error.column}: {error}"
        faults.append(Fault(at.source, at.line, at.column, message, error.hint))
        return None
    circular = sorted(name for name in condition.variables if name.startswith(_NOT_IN_A_MODEL))
    if circular:
        message = f"signal `{spec.name}` reads `{circular[0]}`, which follows from the model itself"
        faults.append(Fault(at.source, at.line, at.column, message, "read what it follows from, like `device.managed`"))
        return None
    return condition

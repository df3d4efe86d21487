"""Warnings of `zta-authz check` about facts: what the settings and the documents give, and models that lack them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from zta_authz.errors import Fault
from zta_authz.model.signal_documents import EventKind, SignalAction
from zta_authz.model.trust import TrustLevel
from zta_authz.pdp.models import CompiledModels
from zta_authz.policy.lint.fact_sources import NETWORK_FACTS, FactSources, absence_of_trust
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.rules.signal_facts import COMPLIANT, DEVICE_RISK
from zta_authz.trust.attainable import KnownFacts, best_assessment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.model.device_documents import DeviceInventory
    from zta_authz.model.documents import Selector
    from zta_authz.model.trust import TrustAssessment
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.settings import Settings
    from zta_authz.trust.assessment import CompiledTrustModel


def fact_sources(settings: Settings, snapshot: Snapshot, *, known: bool) -> FactSources:
    """What gives facts. `known` is false if `settings` are the defaults because none were named."""
    networks = settings.networks
    given = {
        "country": networks.country is not None,
        "asn": networks.asn is not None,
        "anonymous": networks.anonymous is not None,
        "reputation": bool(networks.reputation),
        "corporate": bool(networks.corporate),
    }
    network = frozenset(name for name, configured in given.items() if configured)
    sources = FactSources(network, settings.facts.directory is not None, known)
    sources = replace(sources, signals=frozenset(_signals(snapshot)))
    models = snapshot.models
    if not isinstance(models, CompiledModels):
        return sources
    sources = replace(
        sources,
        inventories=tuple((selector, _fields(devices.inventory, snapshot)) for selector, devices in models.devices),
        classifications=tuple((selector, one.classes) for selector, one in models.classifications),
    )
    root = snapshot.options.root_namespace
    best = tuple((selector, _best(sources, selector, root, model)) for selector, model in models.trust)
    return replace(sources, models=best)


def _signals(snapshot: Snapshot) -> Iterator[str]:
    """What security events report of callers."""
    for source in snapshot.signal_sources:
        for kind, name in ((EventKind.RISK_LEVEL_CHANGE, "risk"), (EventKind.ASSURANCE_LEVEL_CHANGE, "assurance")):
            if source.actions.get(kind) is SignalAction.TRUST:
                yield name


def _fields(inventory: DeviceInventory, snapshot: Snapshot) -> frozenset[str]:
    names = {name for name, _ in inventory.source.fields}
    for source in snapshot.signal_sources:
        if source.subjects.device_inventory == inventory.full_name:
            names |= {DEVICE_RISK} if source.actions.get(EventKind.RISK_LEVEL_CHANGE) is SignalAction.TRUST else set()
            changes = source.actions.get(EventKind.DEVICE_COMPLIANCE_CHANGE)
            names |= {COMPLIANT} if changes is SignalAction.DEVICE else set()
    return frozenset(names | {LAST_SEEN} if inventory.source.seen_time else names)


def _best(sources: FactSources, selector: Selector, root: str, model: CompiledTrustModel) -> TrustAssessment:
    near = sources.concerning(selector, root)
    fields = frozenset[str]().union(*(names for _, names in near.inventories))
    devices = bool(near.inventories) and (sources.directory or not sources.settings_known)
    network = sources.network if sources.settings_known else NETWORK_FACTS
    return best_assessment(model, KnownFacts(network, fields, devices, "risk" in sources.signals))


def model_warnings(snapshot: Snapshot, sources: FactSources) -> list[Fault]:
    """A warning for each trust model and each demand of a class by which every request is denied."""
    models = snapshot.models
    return (
        []
        if not isinstance(models, CompiledModels)
        else [
            *_unattainable_models(models, sources),
            *_unattainable_demands(models, sources, snapshot.options.root_namespace),
        ]
    )


def _unattainable_models(models: CompiledModels, sources: FactSources) -> Iterator[Fault]:
    for (_, model), (_, best) in zip(models.trust, sources.models, strict=True):
        if best.level is TrustLevel.DENY and model.position is not None:
            at = model.position
            lost = ", ".join(f"{loss.component}.{loss.signal}" for loss in best.lost) or "no signal"
            held = f"; held down by {', '.join(best.capped_by)}" if best.capped_by else ""
            message = f"TrustModel `{model.name}`: every request has the level DENY: nothing gives {lost}{held}"
            hint = "give these facts a source, or write `assume` for a component that nothing measures"
            yield Fault(at.source, at.line, at.column, message, hint)


def _unattainable_demands(models: CompiledModels, sources: FactSources, root: str) -> Iterator[Fault]:
    for selector, classification in models.classifications:
        near, at = sources.concerning(selector, root), classification.position
        for name, demand in classification.demands.items():
            absence = absence_of_trust(demand, near)
            if absence is not None:
                denied = f"every request for the class `{name}` is denied: {absence.reason}"
                message = f"ResourceClassification `{classification.name}`: {denied}"
                yield Fault(at.source, at.line, at.column, message, absence.hint)

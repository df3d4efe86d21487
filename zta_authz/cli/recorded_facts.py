"""Facts in decision records: what a record says about trust, the device and the network, and what it does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.fact_records import MAX_DEVICE_FIELDS
from zta_authz.model.facts import ABSENT, NO_DEVICE, DeviceFacts, Fact, FactViews, NetworkFacts, Unknown, known
from zta_authz.policy.lint.implication import is_fact
from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.device_identity import InventoryDevices
from zta_authz.policy.rules.dimensions import FactDimension
from zta_authz.policy.rules.fact_clauses import FactClause
from zta_authz.policy.rules.fact_reader import FactModels, FactOpener
from zta_authz.policy.rules.fact_values import (
    anonymous,
    asn,
    caller_assurance,
    caller_risk,
    corporate,
    country,
    reputation,
    resource_class,
    trust_level,
)
from zta_authz.policy.rules.require_trust import TrustClause
from zta_authz.trust.assessment import NEVER, CompiledTrustModel
from zta_authz.trust.recorded import UNKNOWN_DEVICE, RecordedTrust, reassess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.trust import TrustAssessment, TrustDemand
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.fact_values import ReadFact
    from zta_authz.policy.rules.inputs import Inputs

SOURCE: Final = "record"
_UNKNOWN: Final = {str(state): state for state in Unknown}
_NETWORK: Final = {"country": str, "asn": int, "anonymous": bool, "reputation": int, "corporate": bool}
_CLASS_OF_AVERAGE: Final = "resource"


def recorded_trust(fields: Mapping[str, Any]) -> RecordedTrust:
    """Read the facts of a record. Values of other types count as not recorded. Never raises."""
    trust = fields.get("trust")
    signals = trust.get("signals") if isinstance(trust, dict) else None
    components = trust.get("components") if isinstance(trust, dict) else None
    resource = fields.get("resource_class")
    read = bool(resource) or (isinstance(components, dict) and _CLASS_OF_AVERAGE in components)
    return RecordedTrust(
        {name: state for name, state in signals.items() if type(state) in (str, int)}
        if isinstance(signals, dict)
        else {},
        recorded_device(fields.get("device")),
        recorded_network(fields.get("network")),
        resource if isinstance(resource, str) and read else None,
    )


def recorded_device(record: object) -> DeviceFacts | None:
    """The device of a record; None if it has none, or more fields than a record holds."""
    if not isinstance(record, dict):
        return None
    fields, unknown, inventory = record.get("fields"), record.get("unknown"), record.get("inventory")
    identified_by = record.get("identified_by")
    if not isinstance(fields, dict) or not isinstance(unknown, dict) or len(fields) + len(unknown) >= MAX_DEVICE_FIELDS:
        return None
    if not isinstance(inventory, str) or not isinstance(identified_by, str):
        return None
    facts = {name: known(value, source=SOURCE) for name, value in fields.items() if type(value) in (bool, int, str)}
    facts |= {name: _unknown(state) for name, state in unknown.items()}
    # The id may be masked: whether a device was identified is known all the same.
    return DeviceFacts(SOURCE if identified_by else "", identified_by, inventory, facts)


def recorded_network(record: object) -> NetworkFacts | None:
    """What a record says about the client's address; None if nothing."""
    if not isinstance(record, dict) or not isinstance(record.get("unknown"), dict):
        return None
    country, asn, anonymous, reputation, corporate = (_network_fact(record, name) for name in _NETWORK)
    if country is None or asn is None or anonymous is None or reputation is None or corporate is None:
        return None
    return NetworkFacts(country, asn, anonymous, reputation, corporate)


def _network_fact(record: dict[Any, Any], name: str) -> Fact | None:
    """One fact; None if its value has a type that it never has."""
    value: Any = record.get(name)
    if value is None:
        return _unknown(record["unknown"].get(name))
    fits = type(value) is _NETWORK[name]
    return known(value, source=SOURCE) if fits else None


def _unknown(state: object) -> Fact:
    unknown = _UNKNOWN.get(state) if isinstance(state, str) else None
    return ABSENT if unknown is None else Fact(None, unknown, source=SOURCE)


class ReplayFacts:
    """The facts of a recorded request for other policies: which are known, and an opener for rules.

    Facts stay as they were recorded. A device is known if its inventory still has the same name. The trust is what the
    new model makes of the record. `located` says whether the parts of the request that a class depends on are known.
    """

    def __init__(self, fields: Mapping[str, Any], models: FactModels, *, located: bool) -> None:
        recorded = recorded_trust(fields)
        self._network = recorded.network is not None
        self._device = _knows_device(recorded, models)
        self._located = located
        self._models = models
        if models.devices is None or recorded.device is None:
            recorded = replace(recorded, device=NO_DEVICE if self._device else None)
        self._trust = reassess(models.trust, recorded) if isinstance(models.trust, CompiledTrustModel) else None
        views = FactViews(assumed_network=recorded.network, assumed_device=recorded.device)
        trust = None if self._trust is None else _Fixed(self._trust.worst)
        self.opener = FactOpener(FactModels(trust=trust, classifier=models.classifier), views)

    def knows(self, clause: Clause) -> bool:
        """Whether a clause on facts can be decided."""
        match clause:
            case TrustClause():
                return self.knows_trust(clause.demand)
            case FactClause():
                return self._knows(clause.read)
            case TextClause(dimension=FactDimension() as dimension):
                return self._knows(dimension.read)
        return False

    def knows_trust(self, demand: TrustDemand) -> bool:
        """Whether the record says if the request meets `demand`."""
        trust = self._trust
        return trust is None or bool(demand.unmet(trust.worst)) is bool(demand.unmet(trust.best))

    @property
    def knows_class(self) -> bool:
        """Whether the class of the resource is known."""
        return self._located or self._models.classifier is None

    def _knows(self, read: ReadFact) -> bool:
        if read is trust_level:
            return self._trust is None or self._trust.level is not None
        if read is resource_class:
            return self.knows_class
        if read in (caller_risk, caller_assurance):  # a record names the event only
            return False
        return self._network if read in (country, asn, anonymous, reputation, corporate) else self._device


def reads_fact(clause: Clause) -> bool:
    """Whether the clause reads a fact or the trust of the request."""
    return is_fact(clause) or isinstance(clause, TrustClause)


class _Fixed:
    """A model that makes the same of every request."""

    def __init__(self, assessment: TrustAssessment) -> None:
        self._assessment = assessment

    def assess(self, inputs: Inputs) -> TrustAssessment:
        """The assessment."""
        del inputs
        return self._assessment

    def steady(self, inputs: Inputs) -> tuple[float, float]:
        """Never: there is nothing to keep."""
        del inputs
        return NEVER


def _knows_device(recorded: RecordedTrust, models: FactModels) -> bool:
    """Whether the device is known under `models`: recorded of the inventory that applies, or known to be unknown."""
    if not isinstance(models.devices, InventoryDevices):
        return True
    if recorded.device is None:
        return recorded.signals.get(UNKNOWN_DEVICE) == Unknown.ABSENT
    return recorded.device.inventory == models.devices.inventory.full_name

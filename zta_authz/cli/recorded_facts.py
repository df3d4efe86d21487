"""Facts in decision records: what a record says about trust, the device and the network, and what it does not say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zta_authz.audit.fact_records import MAX_DEVICE_FIELDS
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, NetworkFacts, Unknown, known
from zta_authz.trust.recorded import RecordedTrust

if TYPE_CHECKING:
    from collections.abc import Mapping

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

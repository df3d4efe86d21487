"""Facts that a request file assumes, beside or instead of those that the settings give."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from zta_authz.model.device_documents import GraceAs
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, FactViews, NetworkFacts, Unknown, known
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.yaml.nodes import Mapping, Scalar
from zta_authz.policy.yaml.values import integer

if TYPE_CHECKING:
    from zta_authz.model.facts import FactValue
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

ASSUMED: Final = "assumed"
"""The source of facts that a file assumes."""
_NETWORK: Final = {"country": str, "asn": int, "anonymous": bool, "reputation": int, "corporate": bool}
_UNKNOWN: Final = {str(state): state for state in Unknown}


def read_facts(reader: Reader, node: Node) -> FactViews | None:
    """Read `facts: {network: {...}, device: {...}}`; None, with a fault, if it is not a mapping.

    A value is a boolean, a number or a text, or one of the words `absent`, `stale` and `conflicting`: an unknown fact.
    """
    mapping = reader.mapping(node, "facts", ("network", "device"))
    if mapping is None:
        return None
    network, device = mapping.get("network"), mapping.get("device")
    return FactViews(
        assumed_network=None if network is None else _network(reader, network),
        assumed_device=None if device is None else _device(reader, device),
    )


def _network(reader: Reader, node: Node) -> NetworkFacts | None:
    mapping = reader.mapping(node, "facts.network", tuple(_NETWORK))
    if mapping is None:
        return None
    facts = {name: _fact(reader, value, f"facts.network.{name}") for name, (_, value) in mapping.entries.items()}
    for name, fact in facts.items():
        expected = _NETWORK.get(name)
        if expected is not None and fact.unknown is None and type(fact.value) is not expected:
            words = {str: "a text", int: "a number", bool: "`true` or `false`"}[expected]
            value = mapping.get(name)
            reader.fault(value or node, f"`facts.network.{name}` is not {words}", "correct the value")
    reputation_node, score = mapping.get("reputation"), facts.get("reputation", ABSENT).value
    if reputation_node is not None and isinstance(score, int) and not 0 <= score <= 100:
        reader.fault(reputation_node, "`facts.network.reputation` is not from 0 to 100", "correct the value")
    country, asn, anonymous, reputation, corporate = (facts.get(name, ABSENT) for name in _NETWORK)
    return NetworkFacts(country, asn, anonymous, reputation, corporate)


def _device(reader: Reader, node: Node) -> DeviceFacts | None:
    if not isinstance(node, Mapping):
        reader.mapping(node, "facts.device", ())
        return None
    fields: dict[str, Fact] = {}
    device_id = ASSUMED
    for name, (_, value) in node.entries.items():
        if name == "id":
            unknown = isinstance(value, Scalar) and value.plain and value.value in _UNKNOWN
            device_id = "" if unknown else reader.string(value, "facts.device.id") or ""
        elif name == LAST_SEEN and isinstance(value, Scalar) and value.value not in _UNKNOWN:
            fields[name] = _time(reader, value)
        else:
            fields[name] = _field(reader, name, value)
    return DeviceFacts(device_id, ASSUMED, ASSUMED, fields)


def _field(reader: Reader, name: str, node: Node) -> Fact:
    """A field of a device, read as an inventory reads it."""
    from zta_authz.facts.device_files import field_value

    fact = _fact(reader, node, f"facts.device.{name}")
    if fact.unknown is not None:
        return fact
    value = field_value(name, fact.value, GraceAs.UNKNOWN)
    if value is None:
        hint = "write a boolean, or `absent`; `os` and `osVersion` are texts"
        reader.fault(node, f"`facts.device.{name}` has a value that no inventory would give it", hint)
        return ABSENT
    return known(value, source=ASSUMED)


def _time(reader: Reader, node: Scalar) -> Fact:
    number = integer(node, 12)
    if number is not None:
        return known(number, source=ASSUMED)
    try:
        moment = datetime.fromisoformat(node.value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        hint = "write RFC 3339 with an offset, like 2027-01-31T18:00:00Z, or seconds since the epoch"
        reader.fault(node, f"`facts.device.{LAST_SEEN}` is not a time", hint)
        return ABSENT
    return known(int(moment.timestamp()), source=ASSUMED)


def _fact(reader: Reader, node: Node, name: str) -> Fact:
    if not isinstance(node, Scalar) or node.kind == "null":
        reader.fault(node, f"`{name}` is not a single value", "write a boolean, a number or a text, or `absent`")
        return ABSENT
    if node.value in _UNKNOWN and node.plain:
        return Fact(None, _UNKNOWN[node.value], source=ASSUMED)
    value: FactValue = node.value
    if node.plain and node.value in ("true", "false"):
        value = node.value == "true"
    elif node.plain and (number := integer(node, 15)) is not None:
        value = number
    return known(value, source=ASSUMED)

"""Facts that a request file or `--fact` assumes, beside or instead of those that the settings give."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from zta_authz.model.device_documents import GraceAs
from zta_authz.model.facts import ABSENT, DeviceFacts, Fact, NetworkFacts, SignalFacts, Unknown, known
from zta_authz.model.signal_documents import RiskLevel
from zta_authz.model.trust import HUNDREDTHS, LostPoints, TrustAssessment, TrustLevel
from zta_authz.policy.rules.fact_reader import ModelTable
from zta_authz.policy.rules.fact_values import LAST_SEEN
from zta_authz.policy.rules.require_trust import COMPONENTS
from zta_authz.policy.yaml.fields import Reader
from zta_authz.policy.yaml.nodes import Mapping, Scalar, to_plain
from zta_authz.policy.yaml.values import integer
from zta_authz.trust.assessment import NEVER
from zta_authz.trust.signals import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz.errors import Fault
    from zta_authz.model.facts import FactValue
    from zta_authz.model.options import Workload
    from zta_authz.policy.rules.fact_reader import FactModels
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.yaml.nodes import Node

ASSUMED: Final = "assumed"
"""The source of facts that a file assumes."""
NETWORK_FACTS: Final = {"country": str, "asn": int, "anonymous": bool, "reputation": int, "corporate": bool}
SIGNAL_FACTS: Final = ("risk", "assurance")
_KINDS: Final = ("network", "device", "signals", "trust")
_UNKNOWN: Final = {str(state): state for state in Unknown}
FACT_HINT: Final = (
    "write network.country, network.asn, network.anonymous, network.reputation, network.corporate, device.id, "
    "device.FIELD, signals.risk, signals.assurance, trust.level, trust.score or trust.COMPONENT"
)


@dataclass(frozen=True, slots=True)
class AssumedFacts:
    """What a request assumes; None for what is looked up as usual."""

    network: NetworkFacts | None = None
    device: DeviceFacts | None = None
    trust: TrustAssessment | None = None
    signals: SignalFacts | None = None


class AssumedTrust(ModelTable):
    """The models of a snapshot, with one assessment instead of those of the trust models."""

    def __init__(self, models: ModelTable, assessment: TrustAssessment) -> None:
        super().__init__(models.workload)
        self._models = models
        self._assessment = assessment
        self.output_headers = models.output_headers
        self.inventories = models.inventories
        self.is_empty = False

    def select(self, workload: Workload) -> FactModels:
        """Those that select `workload`."""
        return replace(self._models.select(workload), trust=self)

    def assess(self, inputs: Inputs) -> TrustAssessment:
        """The assessment, whatever the request."""
        del inputs
        return self._assessment

    def steady(self, inputs: Inputs) -> tuple[float, float]:
        """Never: there is nothing to keep."""
        del inputs
        return NEVER


def read_facts(reader: Reader, node: Node) -> AssumedFacts | None:
    """Read `facts: {network: {...}, device: {...}, ...}`; None, with a fault, if it is not a mapping.

    A value is a boolean, a number or a text, or one of the words `absent`, `stale` and `conflicting`: an unknown fact.
    """
    mapping = reader.mapping(node, "facts", _KINDS)
    if mapping is None:
        return None
    network, device, signals, trust = (mapping.get(kind) for kind in _KINDS)
    return AssumedFacts(
        None if network is None else _network(reader, network),
        None if device is None else _device(reader, device),
        None if trust is None else _trust(reader, trust),
        None if signals is None else _signals(reader, signals),
    )


def read_fact_arguments(source: str, given: Iterable[tuple[str, str]], faults: list[Fault]) -> AssumedFacts | None:
    """Read facts given as (NAME, VALUE), such as (`network.country`, `DE`). Errors go to `faults`, without a place."""
    facts = Mapping(0, 0)
    reader = Reader(source, faults)
    for name, value in given:
        kind, dot, field = _short_name(name).partition(".")
        if kind not in _KINDS or not dot or not field:
            reader.fault(facts, f"`{name}` is not the name of a fact", FACT_HINT)
            continue
        key = Scalar(kind, True, 0, 0)
        _, below = facts.entries.setdefault(kind, (key, Mapping(0, 0)))
        if isinstance(below, Mapping):
            below.entries[field] = (Scalar(field, True, 0, 0), Scalar(value, True, 0, 0))
    return read_facts(reader, facts)


def with_facts(base: AssumedFacts | None, more: AssumedFacts | None) -> AssumedFacts | None:
    """`base` with the facts of `more` instead, fact by fact."""
    if base is None or more is None:
        return base or more
    network, device = base.network, base.device
    if more.network is not None:
        given = {name: fact for name in NETWORK_FACTS if (fact := getattr(more.network, name)) is not ABSENT}
        network = replace(network or NetworkFacts(), **given)
    if more.device is not None:
        fields = {**((device and device.fields) or {}), **(more.device.fields or {})}
        named = more.device.device_id != ASSUMED or device is None
        device = replace(more.device if named else device or more.device, fields=fields)
    signals = base.signals
    if more.signals is not None:
        given = {name: fact for name in SIGNAL_FACTS if (fact := getattr(more.signals, name)) is not ABSENT}
        signals = replace(signals or SignalFacts(), **given)
    return AssumedFacts(network, device, more.trust or base.trust, signals)


def _short_name(name: str) -> str:
    """`network.country` also for `zta.remote.country`, as rules and conditions name it."""
    short = name.removeprefix("zta.")
    return "network." + short.removeprefix("remote.") if short.startswith("remote.") else short


def _network(reader: Reader, node: Node) -> NetworkFacts | None:
    mapping = reader.mapping(node, "facts.network", tuple(NETWORK_FACTS))
    if mapping is None:
        return None
    facts = {name: _fact(reader, value, f"facts.network.{name}") for name, (_, value) in mapping.entries.items()}
    for name, fact in facts.items():
        expected = NETWORK_FACTS.get(name)
        if expected is not None and fact.unknown is None and type(fact.value) is not expected:
            words = {str: "a text", int: "a number", bool: "`true` or `false`"}[expected]
            value = mapping.get(name)
            reader.fault(value or node, f"`facts.network.{name}` is not {words}", "correct the value")
    country_node, code = mapping.get("country"), facts.get("country", ABSENT).value
    if country_node is not None and isinstance(code, str) and not re.fullmatch("[A-Z]{2}", code):
        reader.fault(country_node, f"`{code[:80]}` is not a country code", "write two capital letters, like `DE`")
    reputation_node, score = mapping.get("reputation"), facts.get("reputation", ABSENT).value
    if reputation_node is not None and isinstance(score, int) and not 0 <= score <= 100:
        reader.fault(reputation_node, "`facts.network.reputation` is not from 0 to 100", "correct the value")
    country, asn, anonymous, reputation, corporate = (facts.get(name, ABSENT) for name in NETWORK_FACTS)
    return NetworkFacts(country, asn, anonymous, reputation, corporate)


def _signals(reader: Reader, node: Node) -> SignalFacts | None:
    mapping = reader.mapping(node, "facts.signals", SIGNAL_FACTS)
    if mapping is None:
        return None
    facts = {name: _fact(reader, value, f"facts.signals.{name}") for name, (_, value) in mapping.entries.items()}
    risk_node, risk = mapping.get("risk"), facts.get("risk", ABSENT)
    if risk_node is not None and risk.unknown is None and risk.value not in tuple(RiskLevel):
        hint = f"one of {', '.join(RiskLevel)}, absent or stale"
        reader.fault(risk_node, "`facts.signals.risk` is not a level of risk", hint)
    assurance_node, assurance = mapping.get("assurance"), facts.get("assurance", ABSENT)
    if assurance_node is not None and assurance.unknown is None and not isinstance(to_plain(assurance_node), str):
        hint = "write the namespace and the level, like `NIST-AAL/nist-aal2`"
        reader.fault(assurance_node, "`facts.signals.assurance` is not a text", hint)
    return SignalFacts(risk, assurance)


def _trust(reader: Reader, node: Node) -> TrustAssessment | None:
    """An assessment instead of the trust model's. A score that is left out is 0, so that it meets no demand."""
    mapping = reader.mapping(node, "facts.trust", ("level", "score", *COMPONENTS))
    level_node = None if mapping is None else reader.required(mapping, "level", "`facts.trust`")
    if mapping is None or level_node is None:
        return None
    text = reader.string(level_node, "facts.trust.level")
    if text is not None and text not in TrustLevel.__members__:
        hint = f"one of {', '.join(TrustLevel.__members__)}"
        reader.fault(level_node, f"`{text}` is not a trust level", hint)
        return None
    scores = {name: read_points(reader, mapping, name, "facts.trust") for name in ("score", *COMPONENTS)}
    score = scores.pop("score")
    lost = tuple(
        LostPoints(name, ASSUMED, FULL - points, Fact(source=ASSUMED))
        for name, points in scores.items()
        if points < FULL
    )
    return TrustAssessment(ASSUMED, score, TrustLevel[text or "DENY"], scores, lost)


def read_points(reader: Reader, mapping: Mapping, field: str, name: str) -> int:
    """A score from 0 to 100 with up to two decimals, in hundredths; 0 if it is absent, and with a fault if wrong."""
    node = mapping.get(field)
    if node is None:
        return 0
    value = to_plain(node)
    number = type(value) in (int, float) and 0 <= value <= 100
    if not number or abs(value * HUNDREDTHS - round(value * HUNDREDTHS)) > 1e-6:
        reader.fault(node, f"`{name}.{field}` is not a score", "write 0 to 100 with up to two decimals, like 70.5")
        return 0
    points: int = round(value * HUNDREDTHS)
    return points


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

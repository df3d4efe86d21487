"""The facts that a decision rests on, as its record shows them. Pure, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from zta_authz.model.facts import FactValue  # noqa: TC001 - msgspec reads the annotations
from zta_authz.model.trust import HUNDREDTHS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.facts import DeviceFacts, Fact, NetworkFacts
    from zta_authz.model.trust import TrustAssessment

MAX_LOST: Final = 32
"""More lost signals are left out of the record."""
MAX_DEVICE_FIELDS: Final = 32
MAX_FACT_CHARACTERS: Final = 128
MAX_SIGNALS: Final = 64
MAX_COUNT: Final = 1_000_000
"""A greater count is recorded as this one."""


class LostRecord(msgspec.Struct, frozen=True):
    """Points that a signal took, and the state of the fact that it rests on."""

    component: str
    signal: str
    points: float
    state: str


class TrustRecord(msgspec.Struct, frozen=True):
    """A trust assessment. `score` and `components` are from 0 to 100, with two decimals.

    `signals` has the state of each signal by what it reads, so that another model can be applied to the record: `off`
    (it takes no points), `on`, `absent`, `stale`, `conflicting`, or the number that it counts.
    """

    model: str
    score: float
    level: str
    components: dict[str, float]
    lost: tuple[LostRecord, ...]
    capped_by: tuple[str, ...]
    signals: dict[str, str | int]


class DeviceRecord(msgspec.Struct, frozen=True):
    """The device. `fields` has the known fields; `unknown` has the state of the others."""

    id: str
    inventory: str
    identified_by: str
    fields: dict[str, FactValue]
    unknown: dict[str, str]


class NetworkRecord(msgspec.Struct, frozen=True):
    """What is known of the client's address; `unknown` has the state of each value that is null."""

    country: FactValue | None
    asn: FactValue | None
    anonymous: FactValue | None
    reputation: FactValue | None
    corporate: FactValue | None
    unknown: dict[str, str]


_Parts = tuple[TrustRecord | None, DeviceRecord | None, NetworkRecord | None, str]


def facts_of(facts: DecisionFacts | None) -> _Parts:
    """The fields of a record for the facts that rules read; None for those that no rule read."""
    if facts is None:
        return None, None, None, ""
    trust, device, network, resource = facts.trust, facts.device, facts.network, facts.resource
    return (
        None if trust is None else _trust(trust),
        None if device is None else _device(device),
        None if network is None else _network(network),
        "" if resource is None else resource.name,
    )


def encoded_facts_of(facts: DecisionFacts | None) -> tuple[Any, Any, Any, str]:
    """As `facts_of`, each part as the JSON that it becomes in a record: it is encoded once for all records."""
    if facts is None:
        return None, None, None, ""
    trust, device, network, resource = facts.trust, facts.device, facts.network, facts.resource
    return (
        None if trust is None else trust.derived[0] if trust.derived else _encoded(trust.derived, _trust(trust)),
        None if device is None else device.derived[0] if device.derived else _encoded(device.derived, _device(device)),
        None
        if network is None
        else network.derived[0]
        if network.derived
        else _encoded(network.derived, _network(network)),
        "" if resource is None else resource.name,
    )


def _encoded(derived: list[object], record: msgspec.Struct) -> msgspec.Raw:
    encoded = msgspec.Raw(msgspec.json.encode(record))
    derived.append(encoded)
    return encoded


def _trust(assessment: TrustAssessment) -> TrustRecord:
    lost = tuple(
        LostRecord(loss.component, loss.signal, loss.points / HUNDREDTHS, loss.fact.state)
        for loss in assessment.lost[:MAX_LOST]
    )
    components = {name: score / HUNDREDTHS for name, score in assessment.components.items()}
    return TrustRecord(
        assessment.model,
        assessment.score / HUNDREDTHS,
        assessment.level.name,
        components,
        lost,
        assessment.capped_by,
        _signals(assessment),
    )


def _signals(assessment: TrustAssessment) -> dict[str, str | int]:
    sources = assessment.sources
    if sources is None:
        return {}
    states = dict(sources.at_rest) if len(sources.at_rest) <= MAX_SIGNALS else _first(sources.at_rest)
    for loss in assessment.lost:
        name = sources.by_signal.get((loss.component, loss.signal), "")
        if name in states:
            states[name] = _signal_state(loss.fact, counts=sources.at_rest[name] == 0)
    return states


def _first(states: Mapping[str, str | int]) -> dict[str, str | int]:
    return dict(list(states.items())[:MAX_SIGNALS])


def _signal_state(fact: Fact, *, counts: bool) -> str | int:
    if fact.unknown is not None:
        return str(fact.unknown)
    return min(fact.value, MAX_COUNT) if counts and isinstance(fact.value, int) else "on"


def _device(device: DeviceFacts) -> DeviceRecord:
    fields = tuple((device.fields or {}).items())[:MAX_DEVICE_FIELDS]
    return DeviceRecord(
        device.device_id[:MAX_FACT_CHARACTERS],
        device.inventory[:MAX_FACT_CHARACTERS],
        device.identified_by,
        {name: _cut(fact.value) for name, fact in fields if fact.unknown is None and fact.value is not None},
        _unknown(fields),
    )


def _network(network: NetworkFacts) -> NetworkRecord:
    facts = {name: getattr(network, name) for name in ("country", "asn", "anonymous", "reputation", "corporate")}
    return NetworkRecord(**{name: fact.value for name, fact in facts.items()}, unknown=_unknown(facts.items()))


def _unknown(facts: Iterable[tuple[str, Fact]]) -> dict[str, str]:
    return {name: str(fact.unknown) for name, fact in facts if fact.unknown is not None}


def _cut(value: FactValue) -> FactValue:
    return value[:MAX_FACT_CHARACTERS] if isinstance(value, str) else value

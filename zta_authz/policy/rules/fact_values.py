"""Reads single facts of a request, for clauses, `when` keys and conditions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.model.facts import ABSENT, Fact, Unknown, known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Scalar

    ReadFact = Callable[[Inputs], Fact]

LAST_SEEN: Final = "lastSeen"
"""The device's field with the time of its last report, in seconds since the epoch."""
_CLOCK_SKEW: Final = 300.0
_VERSION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){1,7}")
_WHOLE_VERSION: Final = re.compile(r"[0-9]{1,9}")
_SYSTEMS: Final = {"darwin": "macos", "mac os x": "macos", "microsoft windows": "windows"}
"""Other names of operating systems: osquery and Fleet report `darwin`."""


@dataclass(frozen=True, slots=True)
class DeviceField:
    """Reads one field of the device."""

    name: str

    def __call__(self, inputs: Inputs) -> Fact:
        """The field's fact."""
        return inputs.facts.device.field(self.name)


@dataclass(frozen=True, slots=True)
class SeenWithin:
    """Reads whether the device reported at most `seconds` ago. A report from the future is conflicting."""

    seconds: float

    def __call__(self, inputs: Inputs) -> Fact:
        """True, false or unknown."""
        fact = inputs.facts.device.field(LAST_SEEN)
        if fact.unknown or isinstance(fact.value, (bool, str)) or fact.value is None:
            return fact if fact.unknown else ABSENT
        age = inputs.now - fact.value
        if age < -_CLOCK_SKEW:
            return Fact(None, Unknown.CONFLICTING, fact.observed_at, fact.source)
        return known(age <= self.seconds, fact.observed_at, fact.source)


@dataclass(frozen=True, slots=True)
class OsAtLeast:
    """Reads whether the device's operating system has at least the version that is required for it.

    `versions` is by name of the system in lower case. A system that is not in it, and a version that has no number,
    are unknown.
    """

    versions: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, inputs: Inputs) -> Fact:
        """True, false or unknown."""
        device = inputs.facts.device
        system, version = device.field("os"), device.field("osVersion")
        for fact in (system, version):
            if fact.unknown:
                return fact
        name, text = system_name(str(system.value)), str(version.value)
        least, parts = dict(self.versions).get(name), version_parts(text)
        if least is None or parts is None:
            return Fact(source=system.source)
        if name == "windows" and len(least) > 1 and _VERSION.search(text) is None:
            return Fact(source=version.source)  # the 11 of `Windows 11` says nothing about 10.0.22631
        return known(parts >= least, version.observed_at, version.source)


def system_name(text: str) -> str:
    """An operating system's name as it is compared: in lower case, `macos` also for `darwin`."""
    name = text.strip().lower()
    return _SYSTEMS.get(name, name)


def version_parts(text: str) -> tuple[int, ...] | None:
    """The version in a text, without zeros at its end: `macOS 26.1.0` is (26, 1). None without one.

    It is the first dotted number (`Windows 11 Pro 10.0.22631`), else the first number (`CentOS Linux 7`).
    """
    match = _VERSION.search(text[:200]) or _WHOLE_VERSION.search(text[:200])
    if match is None:
        return None
    parts = [int(part) for part in match.group().split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def country(inputs: Inputs) -> Fact:
    """The country of the client's address."""
    return inputs.facts.network.country


def asn(inputs: Inputs) -> Fact:
    """The autonomous system of the client's address."""
    return inputs.facts.network.asn


def anonymous(inputs: Inputs) -> Fact:
    """Whether the client's address belongs to an anonymizing network."""
    return inputs.facts.network.anonymous


def corporate(inputs: Inputs) -> Fact:
    """Whether the client's address is in a corporate range."""
    return inputs.facts.network.corporate


def reputation(inputs: Inputs) -> Fact:
    """The reputation of the client's address, from 0 (worst) to 100."""
    return inputs.facts.network.reputation


def device_id(inputs: Inputs) -> Fact:
    """The inventory's name for the device."""
    device = inputs.facts.device
    return known(device.device_id, source=device.inventory) if device.device_id else ABSENT


def trust_level(inputs: Inputs) -> Fact:
    """The trust level; absent without a trust model."""
    assessment = inputs.facts.trust
    return ABSENT if assessment is None else known(assessment.level.name, inputs.now, assessment.model)


def resource_class(inputs: Inputs) -> Fact:
    """The class of the resource; absent without a classification."""
    resource = inputs.facts.resource_class
    return ABSENT if resource is None else known(resource.name, source=resource.source)


def caller_risk(inputs: Inputs) -> Fact:
    """The risk that security events report of the caller: LOW, MEDIUM or HIGH."""
    return inputs.facts.signals.risk


def caller_assurance(inputs: Inputs) -> Fact:
    """The assurance level that security events report of the caller, `NAMESPACE/LEVEL`; "" without an event."""
    return inputs.facts.signals.assurance


KEYS: Final[Mapping[str, ReadFact]] = {
    "zta.remote.country": country,
    "zta.remote.asn": asn,
    "zta.remote.anonymous": anonymous,
    "zta.remote.reputation": reputation,
    "zta.remote.corporate": corporate,
    "zta.device.id": device_id,
    "zta.trust.level": trust_level,
    "zta.resource.class": resource_class,
    "zta.signals.risk": caller_risk,
    "zta.signals.assurance": caller_assurance,
}
"""The keys of `when` that read facts; `zta.device.FIELD` reads any other field of the device."""
DEVICE_KEY: Final = re.compile(r"zta\.device\.([A-Za-z][A-Za-z0-9_]{0,62})")


def reader_of(key: str) -> ReadFact | None:
    """The reader for a key of `when`; None for a key that reads no fact."""
    read = KEYS.get(key)
    if read is not None:
        return read
    field = DEVICE_KEY.fullmatch(key)
    return DeviceField(field[1]) if field is not None else None


def check_values(reader: Reader, key: str, values: list[Scalar]) -> None:
    """Report values that the fact of `key` can never have."""
    allowed = _ALLOWED_VALUES.get(key)
    for value in values:
        if allowed is not None and not allowed[0].fullmatch(value.value):
            reader.fault(value, f"`{value.value}` is not a value of `{key}`", allowed[1])


_BOOLEAN: Final = (re.compile(r"true|false"), 'write "true" or "false", in quotes')
_ALLOWED_VALUES: Final = {
    "zta.remote.country": (re.compile(r"[A-Z]{2}|\*"), "write an ISO 3166-1 code of two capital letters, like `DE`"),
    "zta.remote.asn": (re.compile(r"[1-9][0-9]{0,9}|\*"), 'write the number without `AS`, like "64500"'),
    "zta.remote.anonymous": _BOOLEAN,
    "zta.remote.reputation": (re.compile(r"0|[1-9][0-9]?|100|\*"), 'write a number from 0 to 100, like "10"'),
    "zta.remote.corporate": _BOOLEAN,
    "zta.trust.level": (re.compile(r"DENY|LOW|MEDIUM|HIGH"), "one of DENY, LOW, MEDIUM, HIGH"),
    "zta.signals.risk": (re.compile(r"LOW|MEDIUM|HIGH"), "one of LOW, MEDIUM, HIGH"),
}

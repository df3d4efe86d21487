"""The variables of conditions that read facts. An unknown fact makes a condition Unknown unless the rest decides it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel

from zta_authz.model.trust import HUNDREDTHS
from zta_authz.policy.cel.variable import Variable
from zta_authz.policy.rules.fact_values import (
    DeviceField,
    anonymous,
    asn,
    caller_assurance,
    caller_risk,
    corporate,
    country,
    device_id,
    reputation,
    resource_class,
    trust_level,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.policy.rules.fact_values import ReadFact
    from zta_authz.policy.rules.inputs import Inputs

_TYPE: Final = cel.Type
DEVICE_FIELDS: Final = "device.fields"
"""A map of the known fields. Conditions may only read a key, which is an error for an unknown field."""


@dataclass(frozen=True, slots=True)
class _Value:
    """Reads a fact's value; None, which is Unknown, for an unknown fact."""

    fact: ReadFact

    def __call__(self, inputs: Inputs) -> Any:
        return self.fact(inputs).value


def _fields(inputs: Inputs) -> dict[str, Any]:
    """The known fields of the device."""
    fields = inputs.facts.device.fields or {}
    return {name: fact.value for name, fact in fields.items() if fact.unknown is None}


def _score(component: str) -> Callable[[Inputs], float | None]:
    def read(inputs: Inputs) -> float | None:
        assessment = inputs.facts.trust
        if assessment is None:
            return None
        score = assessment.components.get(component) if component else assessment.score
        return None if score is None else score / HUNDREDTHS

    return read


def _boolean_field(name: str, doc: str) -> Variable:
    return Variable(_TYPE.BOOL, _Value(DeviceField(name)), doc)


FACT_VARIABLES: Final[Mapping[str, Variable]] = {
    "remote.country": Variable(
        _TYPE.STRING, _Value(country), "country of `remote.ip` (ISO 3166-1); an error if unknown"
    ),
    "remote.asn": Variable(_TYPE.INT, _Value(asn), "its autonomous system; an error if unknown"),
    "remote.anonymous": Variable(_TYPE.BOOL, _Value(anonymous), "whether it is anonymized; an error if unknown"),
    "remote.corporate": Variable(_TYPE.BOOL, _Value(corporate), "whether it is in a corporate range"),
    "remote.reputation": Variable(_TYPE.INT, _Value(reputation), "its reputation, 0 to 100; an error if unknown"),
    "device.id": Variable(_TYPE.STRING, _Value(device_id), "the device in its inventory; an error if unknown"),
    "device.managed": _boolean_field("managed", "whether it is managed; an error if unknown"),
    "device.encrypted": _boolean_field("encrypted", "whether its disk is encrypted; an error if unknown"),
    "device.compliant": _boolean_field("compliant", "whether it is compliant; an error if unknown"),
    DEVICE_FIELDS: Variable(
        _TYPE.Map(_TYPE.STRING, _TYPE.DYN), _fields, "its fields by name, each an error if unknown"
    ),
    "trust.level": Variable(_TYPE.STRING, _Value(trust_level), "trust level; an error without a TrustModel"),
    "trust.score": Variable(_TYPE.DOUBLE, _score(""), "trust score, 0 to 100; an error without a TrustModel"),
    "trust.user": Variable(_TYPE.DOUBLE, _score("user"), "score of the user"),
    "trust.device": Variable(_TYPE.DOUBLE, _score("device"), "score of the device"),
    "trust.network": Variable(_TYPE.DOUBLE, _score("network"), "score of the network"),
    "trust.behavior": Variable(_TYPE.DOUBLE, _score("behavior"), "score of the behavior"),
    "signals.risk": Variable(
        _TYPE.STRING,
        _Value(caller_risk),
        "risk of the caller by security events: LOW, MEDIUM, HIGH; an error if unknown",
    ),
    "signals.assurance": Variable(
        _TYPE.STRING,
        _Value(caller_assurance),
        'assurance level by security events, "" without; an error if unknown',
    ),
    "resource.class": Variable(_TYPE.STRING, _Value(resource_class), "class of the resource; an error if unknown"),
}
"""All of them: a documented contract."""

FACTS_OF_TOKENS: Final = frozenset(
    name for name in FACT_VARIABLES if name.startswith(("device.", "signals.", "trust."))
)
"""Those that may differ between the tokens of one request."""

_FIELD: Final = re.compile(r"""device\.fields(?:\.(\w+)|\[["'](\w+)["']\])""")
_UNDECLARED_FIELD: Final = re.compile(r"'device\.(\w+)'")


def fact_reader(name: str) -> ReadFact | None:
    """The reader of the fact that `name` is in a condition, such as `device.fields.os`; None if it is not one fact."""
    field = _FIELD.fullmatch(name)
    if field is not None:
        return DeviceField(field[1] or field[2])
    variable = FACT_VARIABLES.get(name)
    return variable.read.fact if variable is not None and isinstance(variable.read, _Value) else None


def hint_for_undeclared(message: str) -> str:
    """What to write instead of an undeclared `device.NAME`, with a semicolon; "" for any other name."""
    field = _UNDECLARED_FIELD.search(message)
    return "" if field is None else f"write `{DEVICE_FIELDS}.{field[1]}`; "

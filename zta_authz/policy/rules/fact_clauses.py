"""Clauses on facts: `require.device`, `require.network`. An unknown fact never satisfies an ALLOW.

Reading a fact may look something up, so these clauses are tried after those on the request itself, and the index never
reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from zta_authz.model.facts import describe, known
from zta_authz.policy.rules.fact_values import (
    DeviceField,
    OsAtLeast,
    SeenWithin,
    anonymous,
    asn,
    corporate,
    country,
    reputation,
    system_name,
    version_parts,
)
from zta_authz.policy.yaml.nodes import Mapping, Scalar
from zta_authz.policy.yaml.values import duration, integer, whole_number

if TYPE_CHECKING:
    from zta_authz.model.facts import FactValue
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.fact_values import ReadFact
    from zta_authz.policy.rules.inputs import Inputs
    from zta_authz.policy.rules.matchers import IndexKey
    from zta_authz.policy.yaml.fields import Reader
    from zta_authz.policy.yaml.nodes import Node

T = TypeVar("T")
MAX_ASN: Final = 2**32 - 1
LONGEST_SEEN: Final = 366 * 86400.0
MAX_VALUES: Final = 4096
COUNTRY: Final = re.compile(r"[A-Z]{2}")
FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_NETWORK_FIELDS: Final = ("countries", "notCountries", "asns", "corporate", "anonymous", "reputationAtLeast")


class Comparison(Protocol):
    """What a known fact is compared with."""

    def accepts(self, value: FactValue | None) -> bool:
        """Whether the value satisfies it."""
        ...

    @property
    def text(self) -> str:
        """What is accepted, for an operator."""
        ...


@dataclass(frozen=True, slots=True)
class Is:
    """The value is `true` or `false`."""

    value: bool

    def accepts(self, value: FactValue | None) -> bool:
        """Whether it is that boolean."""
        return value is self.value

    @property
    def text(self) -> str:
        """The boolean."""
        return "`true`" if self.value else "`false`"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The value is one of several."""

    values: frozenset[FactValue]

    def accepts(self, value: FactValue | None) -> bool:
        """Whether it is among them."""
        return value in self.values

    @property
    def text(self) -> str:
        """The values."""
        return "one of " + ", ".join(f"`{value}`" for value in sorted(map(str, self.values)))


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The value is a number that is large enough."""

    least: int

    def accepts(self, value: FactValue | None) -> bool:
        """Whether it is at least that."""
        return isinstance(value, int) and not isinstance(value, bool) and value >= self.least

    @property
    def text(self) -> str:
        """The number."""
        return f"at least `{self.least}`"


@dataclass(frozen=True, slots=True)
class FactClause:
    """A fact is known, and compares as required; `negated` asks for the opposite, and for a known fact too."""

    label: str
    read: ReadFact
    comparison: Comparison
    negated: bool = False
    cost: int = 20
    required: str = ""
    """What is required, for an operator; "" for the comparison's own text."""

    def holds(self, inputs: Inputs, deny: bool) -> bool:
        """Whether the fact compares as required; `deny` for an unknown one."""
        fact = self.read(inputs)
        if fact.unknown is not None:
            return deny
        return self.comparison.accepts(fact.value) is not self.negated

    def index_keys(self) -> tuple[object, tuple[IndexKey, ...]] | None:
        """None: the index never reads facts."""
        return None

    def actual(self, inputs: Inputs) -> str:
        """The fact with its state, age and source."""
        return describe(self.read(inputs), inputs.now)

    @property
    def expected(self) -> str:
        """What is required."""
        return self.required or ("not " if self.negated else "") + self.comparison.text


class _OsClause(FactClause):
    """`osAtLeast`: an operator reads the system and its version, not whether they are enough."""

    __slots__ = ()

    def actual(self, inputs: Inputs) -> str:
        """The system and its version with their age and source."""
        device = inputs.facts.device
        system, version = device.field("os"), device.field("osVersion")
        if system.unknown is not None or version.unknown is not None:
            return FactClause.actual(self, inputs)
        shown = describe(known(f"{system.value} {version.value}", version.observed_at, version.source), inputs.now)
        return shown if self.read(inputs).unknown is None else f"{shown}, which cannot be compared"


def read_require_device(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.device` to its clauses; errors become faults. Other keys are boolean fields of the inventory."""
    if not isinstance(node, Mapping):
        reader.mapping(node, "require.device", ())
        return ()
    clauses: list[FactClause] = []
    for name, (key, value) in node.entries.items():
        label = f"require.device.{name}"
        if name == "osAtLeast":
            clauses += _os_at_least(reader, value, label)
        elif name == "seenWithin":
            seconds = duration(reader, node, name, 0.0, LONGEST_SEEN)
            required = f"a report in the last `{seconds:g} s`"
            clauses.append(FactClause(label, SeenWithin(seconds), Is(True), required=required))
        elif not FIELD_NAME.fullmatch(name):
            hint = "start with a letter; letters, digits and `_` may follow"
            reader.fault(key, f"`{name[:80]}` is not a field of a device", hint)
        else:
            flag = reader.boolean(value, label)
            clauses += () if flag is None else (FactClause(label, DeviceField(name), Is(flag)),)
    if not node.entries:
        reader.fault(node, "`require.device` is empty", "add `managed: true`, `osAtLeast` or `seenWithin: 24h`")
    return tuple(clauses)


def _os_at_least(reader: Reader, node: Node, label: str) -> list[FactClause]:
    versions: list[tuple[str, tuple[int, ...]]] = []
    given = reader.string_map(node, label)
    for system, text in given.items():
        parts = version_parts(text)
        if parts is None or not re.fullmatch(r"[0-9.]+", text):
            reader.fault(node, f"`{text}` in `{label}` is not a version", 'write numbers with dots, like "26.1"')
        else:
            versions.append((system_name(system), parts))
    if not versions:
        if isinstance(node, Mapping) and not node.entries:
            reader.fault(node, f"`{label}` is empty", 'write a version for each system, like `{macOS: "26.1"}`')
        return []
    shown = " or ".join(f"`{system} {text}`" for system, text in given.items())
    return [_OsClause(label, OsAtLeast(tuple(versions)), Is(True), required=f"at least {shown}")]


def read_require_network(reader: Reader, node: Node) -> tuple[Clause, ...]:
    """Read `require.network` to its clauses; errors become faults."""
    mapping = reader.mapping(node, "require.network", _NETWORK_FIELDS)
    if mapping is None:
        return ()
    if not mapping.entries:
        hint = "add `countries: [DE]`, `corporate: true`, `anonymous: false` or `reputationAtLeast: 50`"
        reader.fault(mapping, "`require.network` is empty", hint)
    clauses: list[FactClause] = []
    for name in ("countries", "notCountries"):
        codes = _countries(reader, mapping, name)
        if codes:
            label = f"require.network.{name}"
            clauses.append(FactClause(label, country, OneOf(codes), negated=name == "notCountries"))
    numbers = _numbers(reader, mapping, "asns")
    if numbers:
        clauses.append(FactClause("require.network.asns", asn, OneOf(numbers)))
    for name, read in (("corporate", corporate), ("anonymous", anonymous)):
        value = mapping.get(name)
        flag = None if value is None else reader.boolean(value, name)
        if flag is not None:
            clauses.append(FactClause(f"require.network.{name}", read, Is(flag)))
    if mapping.get("reputationAtLeast") is not None:
        least = whole_number(reader, mapping, "reputationAtLeast", 100, 0, 100)
        clauses.append(FactClause("require.network.reputationAtLeast", reputation, AtLeast(least)))
    return tuple(clauses)


def _countries(reader: Reader, mapping: Mapping, field: str) -> frozenset[FactValue]:
    node = mapping.get(field)
    codes: set[FactValue] = set()
    for item in [] if node is None else _bounded(reader, node, field, reader.strings(node, field)):
        if not COUNTRY.fullmatch(item.value):
            hint = "write an ISO 3166-1 code of two capital letters, like `DE`; quote `NO`"
            reader.fault(item, f"`{item.value}` in `{field}` is not a country code", hint)
        codes.add(item.value)
    return frozenset(codes)


def _bounded(reader: Reader, node: Node, field: str, items: list[T]) -> list[T]:
    """The items; none, with a fault, if they are too many."""
    if len(items) <= MAX_VALUES:
        return items
    message = f"{len(items)} values in `{field}`, more than the limit of {MAX_VALUES}"
    reader.fault(node, message, "list each value once, or split the rule")
    return []


def _numbers(reader: Reader, mapping: Mapping, field: str) -> frozenset[FactValue]:
    node = mapping.get(field)
    numbers: set[FactValue] = set()
    for item in [] if node is None else _bounded(reader, node, field, reader.items(node, field, "AS numbers")):
        number = integer(item, 10)
        if number is None or not 0 < number <= MAX_ASN:
            shown = item.value if isinstance(item, Scalar) else item.kind
            reader.fault(item, f"`{shown}` in `{field}` is not an AS number", "write it without `AS`, like `64500`")
            continue
        numbers.add(number)
    return frozenset(numbers)

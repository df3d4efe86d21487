"""Facts: what the operator's data says about the caller's network and device, and how sure that is.

A fact has a known value or is unknown in one of three ways (`Unknown`). Rules never read an unknown fact as "no":
an ALLOW does not match on it, a DENY does. NIST SP 800-207 section 3.3 calls these inputs of the trust algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, field, field as dataclass_field, replace
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from zta_authz.model.access import GrantView
    from zta_authz.model.addresses import Ip
    from zta_authz.model.device_documents import InventorySource
    from zta_authz.model.signals import SignalView

FactValue = bool | int | str
_SHOWN: Final = 200


class Unknown(StrEnum):
    """Why a fact has no value that counts."""

    ABSENT = "absent"  # no source says anything
    STALE = "stale"  # the last value is older than its kind's `maxAge`
    CONFLICTING = "conflicting"  # two sources, or two identifiers, disagree


class Fact(NamedTuple):
    """One fact. `value` is None exactly if `unknown` is set.

    `observed_at` is when its source observed it (seconds since the epoch), None if the source does not record it.
    `source` names the source for people: an inventory, a database, a list. `event` is the `jti` of the security event
    that it follows from, "" for others.
    """

    value: FactValue | None = None
    unknown: Unknown | None = Unknown.ABSENT
    observed_at: float | None = None
    source: str = ""
    event: str = ""

    @property
    def state(self) -> str:
        """`true`, `false`, `known` (a value that is no boolean), `absent`, `stale` or `conflicting`."""
        if self.unknown is not None:
            return self.unknown
        return "known" if not isinstance(self.value, bool) else "true" if self.value else "false"


ABSENT: Final = Fact()


def known(value: FactValue, observed_at: float | None = None, source: str = "") -> Fact:
    """A fact with a value."""
    return Fact(value, None, observed_at, source)


def steady_around(now: float, changes: Iterable[float]) -> tuple[float, float]:
    """The last of the times `changes` until `now` and the first from `now` on. Both are `now` if it is one of them."""
    since, until = -inf, inf
    for at in changes:
        if at <= now:
            since = max(since, at)
        if at >= now:
            until = min(until, at)
    return since, until


def describe(fact: Fact, now: float) -> str:
    """A fact for an operator: its value or why it is unknown, its age at `now`, and its source."""
    value = "true" if fact.value is True else "false" if fact.value is False else str(fact.value)
    parts = [f"`{value[:_SHOWN]}`" if fact.unknown is None else str(fact.unknown)]
    if fact.observed_at is not None:
        parts.append(f"observed {_age(now - fact.observed_at)}")
    if fact.source:
        parts.append(f"from {fact.source[:_SHOWN]}")
    if fact.event:
        parts.append(f"event {fact.event[:_SHOWN]}")
    return ", ".join(parts)


def _age(seconds: float) -> str:
    """An age for people: `40 s ago`, `3.5 h ago`, `12 d ago`."""
    if seconds < 0:
        return "in the future"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit} ago"
    return f"{seconds:.0f} s ago"


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What is known about one client address.

    `country` is ISO 3166-1 alpha-2 in upper case; `asn` a number; `reputation` a score from 0 (worst) to 100;
    `anonymous` and `corporate` are booleans. Inside a corporate range, country, ASN and anonymity are not looked up.

    Between `since` and `until` (exclusive, seconds since the epoch), the view says the same of the address: no fact
    changes its state by age. By default never, so that nothing is kept of a view that does not say.
    """

    country: Fact = ABSENT
    asn: Fact = ABSENT
    anonymous: Fact = ABSENT
    reputation: Fact = ABSENT
    corporate: Fact = ABSENT
    derived: list[object] = field(default_factory=list, repr=False, compare=False)
    """What is made from it once, such as its part of a record."""
    since: float = field(default=inf, repr=False, compare=False)
    until: float = field(default=-inf, repr=False, compare=False)


NO_NETWORK_FACTS: Final = NetworkFacts(since=-inf, until=inf)


class NetworkView(Protocol):
    """Network databases in force, loaded before the request. Look-ups do no I/O."""

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        """What is known of `address` at `now` (seconds since the epoch). Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known about the device behind one request.

    `device_id` is the inventory's name for it, "" if no device was identified. `identified_by` is
    `certificate` (the verified certificate of this connection) or `token` (a claim of a key-bound token).
    `fields` holds the inventory's named fields (`managed`, `encrypted`, `os`, `osVersion`, ...), each aged. `since` and
    `until` are as in `NetworkFacts`.
    """

    device_id: str = ""
    identified_by: str = ""
    inventory: str = ""
    fields: Mapping[str, Fact] | None = None
    derived: list[object] = dataclass_field(default_factory=list, repr=False, compare=False)
    """What is made from it once, such as its part of a record."""
    since: float = dataclass_field(default=inf, repr=False, compare=False)
    until: float = dataclass_field(default=-inf, repr=False, compare=False)

    def field(self, name: str) -> Fact:
        """One field; an absent fact if the device or the field is unknown."""
        return ABSENT if self.fields is None else self.fields.get(name, ABSENT)


NO_DEVICE: Final = DeviceFacts(since=-inf, until=inf)


@dataclass(frozen=True, slots=True)
class SignalFacts:
    """What security events say about the caller: its token, session, subject and workload.

    `risk` is a `RiskLevel`, `assurance` a namespace and level, "" without an event. `since` and `until` are as in
    `NetworkFacts`, as long as the view has the same version.
    """

    risk: Fact = ABSENT
    assurance: Fact = ABSENT
    since: float = dataclass_field(default=inf, repr=False, compare=False)
    until: float = dataclass_field(default=-inf, repr=False, compare=False)


NO_SIGNALS: Final = SignalFacts(since=-inf, until=inf)


class DeviceRecord(Protocol):
    """One device as an inventory's file gives it."""

    @property
    def device_id(self) -> str:
        """The inventory's name for the device."""
        ...

    @property
    def values(self) -> tuple[FactValue | None, ...]:
        """Its fields in the order of the inventory's; None for unknown."""
        ...

    @property
    def posture_at(self) -> float | None:
        """When its state was observed (seconds since the epoch)."""
        ...

    @property
    def seen_at(self) -> float | None:
        """When it last reported."""
        ...

    @property
    def conflicting(self) -> bool:
        """Whether the inventory contradicts itself about it."""
        ...

    @property
    def shared(self) -> bool:
        """Whether another device has the same certificate."""
        ...


class DeviceView(Protocol):
    """Device inventories in force, loaded before the request. Look-ups do no I/O."""

    def find(self, inventory: str, source: InventorySource, identifier: str) -> DeviceRecord | None:
        """The device that `inventory` (`namespace/name`) knows by `identifier`, or None.

        A table that was read as anything but `source` has none: its values would be those of other fields.
        """
        ...


@dataclass(frozen=True, slots=True)
class FactViews:
    """The views in force, published together and swapped as one reference.

    What is assumed is for requests that are only explained or tested: it counts instead of what would be looked up.
    """

    networks: NetworkView | None = None
    devices: DeviceView | None = None
    grants: GrantView | None = None
    signals: SignalView | None = None
    assumed_network: NetworkFacts | None = None
    assumed_device: DeviceFacts | None = None
    assumed_signals: SignalFacts | None = None
    assumed_grants: frozenset[str] = frozenset()
    """Entitlements (`namespace/name`) that the caller is assumed to hold, if it is eligible."""


NO_FACTS: Final = FactViews()
"""No source of facts: every fact is absent."""


class FactSlot:
    """Holds the views in force. A new set is published by replacing `views`, one reference."""

    __slots__ = ("views",)

    def __init__(self, views: FactViews = NO_FACTS) -> None:
        self.views = views

    def replace_networks(self, networks: NetworkView | None) -> None:
        """Publish other network data. The devices stay."""
        self._publish(replace(self.views, networks=networks))

    def replace_devices(self, devices: DeviceView | None) -> None:
        """Publish other devices. The network data stay."""
        self._publish(replace(self.views, devices=devices))

    def replace_grants(self, grants: GrantView | None) -> None:
        """Publish the administrator's grants. The other views stay."""
        self._publish(replace(self.views, grants=grants))

    def replace_signals(self, signals: SignalView | None) -> None:
        """Publish the signals of security events. The other views stay."""
        self._publish(replace(self.views, signals=signals))

    def _publish(self, views: FactViews) -> None:
        """Replace the views; without any, by the one object that decisions recognize at no cost."""
        self.views = NO_FACTS if views == NO_FACTS else views

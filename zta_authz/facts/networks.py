"""What is known about client addresses: country, ASN, anonymity, reputation, corporate ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Final

from zta_authz.errors import SettingsErrors, collect_faults
from zta_authz.facts.address_lists import MAX_LIST_BYTES, AddressSet, parse_address_list
from zta_authz.facts.databases import Database
from zta_authz.facts.files import read_file
from zta_authz.model.addresses import embedded_ipv4
from zta_authz.model.facts import ABSENT, Fact, NetworkFacts, Unknown, known, steady_around
from zta_authz.model.pace import no_pause

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from zta_authz.errors import Fault
    from zta_authz.model.addresses import Ip
    from zta_authz.model.pace import Pause

GOOD_REPUTATION: Final = 100
"""The reputation of an address that no list names."""
CLOCK_SKEW: Final = 86400.0
"""How far in the future a database may have been built: publishers stamp a day."""
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_ANONYMOUS: Final = ("is_anonymous", "is_anonymous_vpn", "is_public_proxy", "is_residential_proxy", "is_tor_exit_node")


@dataclass(frozen=True, slots=True)
class ListSource:
    """A list of addresses with a bad reputation: its file, the score of its addresses, how long it counts (s).

    A file with fewer than `least` entries is refused.
    """

    file: str
    score: int
    max_age: float
    least: int = 1


@dataclass(frozen=True, slots=True)
class NetworkSources:
    """Where network facts come from; "" and () for what is not configured. `max_age` of databases is in seconds."""

    country: str = ""
    asn: str = ""
    anonymous: str = ""
    reputation: tuple[ListSource, ...] = ()
    corporate: tuple[IPv4Network | IPv6Network, ...] = ()
    max_age: float = float("inf")

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is read."""
        databases = (self.country, self.asn, self.anonymous)
        return (*(path for path in databases if path), *(source.file for source in self.reputation))

    @property
    def configured(self) -> bool:
        """Whether anything is configured."""
        return bool(self.files or self.corporate)


@dataclass(frozen=True, slots=True)
class LoadedSource:
    """One loaded source, for status and metrics: `entries` is 0 for a database.

    `as_of` is epoch seconds, and `max_age` the seconds for which it counts.
    """

    name: str
    file: str
    as_of: float
    entries: int = 0
    max_age: float = float("inf")

    def counts(self, now: float) -> bool:
        """Whether it is recent enough at `now`."""
        return _age_problem(self.as_of, now, self.max_age) is None


class NetworkDatabases:
    """A `NetworkView` over everything configured. Immutable; no look-up does I/O."""

    __slots__ = (
        "_anonymous",
        "_asn",
        "_changes",
        "_corporate",
        "_country",
        "_lists",
        "_max_age",
        "loaded",
    )

    def __init__(self, sources: NetworkSources, pause: Pause = no_pause) -> None:
        """Read every file, and `pause` between steps. Raises `SettingsErrors` with the faults of all of them."""
        faults: list[Fault] = []
        self._country = _database(sources.country, "country", faults)
        self._asn = _database(sources.asn, "asn", faults)
        self._anonymous = _database(sources.anonymous, "anonymous", faults)
        self._lists: list[tuple[ListSource, AddressSet, float]] = []
        for source in sources.reputation:
            with collect_faults(faults):
                content, modified = read_file(source.file, MAX_LIST_BYTES, "networks.reputation")
                addresses = parse_address_list(source.file, content, source.least, pause)
                self._lists.append((source, addresses, modified))
        if faults:
            raise SettingsErrors(faults)
        self._corporate = AddressSet(sources.corporate) if sources.corporate else None
        self._max_age = sources.max_age
        self.loaded = self._loaded(sources)
        ages = [(database.built_at, sources.max_age) for database in self._databases() if database is not None]
        ages += [(as_of, source.max_age) for source, _, as_of in self._lists]
        self._changes = tuple(at for as_of, max_age in ages for at in (as_of - CLOCK_SKEW, as_of + max_age))

    def _databases(self) -> tuple[Database | None, ...]:
        return self._country, self._asn, self._anonymous

    def _loaded(self, sources: NetworkSources) -> tuple[LoadedSource, ...]:
        databases = (
            ("country", sources.country, self._country),
            ("asn", sources.asn, self._asn),
            ("anonymous", sources.anonymous, self._anonymous),
        )
        return (
            *(
                LoadedSource(name, path, held.built_at, 0, sources.max_age)
                for name, path, held in databases
                if held is not None
            ),
            *(
                LoadedSource("reputation", source.file, as_of, entry.size, source.max_age)
                for source, entry, as_of in self._lists
            ),
        )

    def look_up(self, address: Ip, now: float) -> NetworkFacts:
        """What is known of `address`. Nothing but `corporate` is known of an address that is not on the Internet.

        An IPv4-mapped IPv6 address is the IPv4 address. For another IPv6 address that embeds an IPv4 address, a fact
        is conflicting unless it is the same for both.
        """
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        facts, embedded = self._look_up(address, now), embedded_ipv4(address)
        if embedded is None or facts.corporate.value is True:  # the operator lists the address itself
            return facts
        return _agreed(facts, self._look_up(embedded, now))

    def _look_up(self, address: Ip, now: float) -> NetworkFacts:
        since, until = steady_around(now, self._changes)
        corporate = (
            ABSENT if self._corporate is None else known(address in self._corporate, source="networks.corporate")
        )
        if corporate.value is True or not address.is_global:
            return NetworkFacts(corporate=corporate, since=since, until=until)
        return NetworkFacts(
            self._fact(self._country, "country", address, now, _country_of),
            self._fact(self._asn, "asn", address, now, _asn_of),
            self._fact(self._anonymous, "anonymous", address, now, _is_anonymous),
            self._reputation(address, now),
            corporate,
            since=since,
            until=until,
        )

    def _fact(self, database: Database | None, name: str, address: Ip, now: float, read: Any) -> Fact:
        if database is None:
            return ABSENT
        source = f"networks.{name}"
        unknown = _age_problem(database.built_at, now, self._max_age)
        if unknown is not None:
            return Fact(None, unknown, database.built_at, source)
        value = read(database.look_up(address))
        return Fact(source=source) if value is None else known(value, database.built_at, source)

    def _reputation(self, address: Ip, now: float) -> Fact:
        """The worst score of the lists that name the address; unknown where a list that is too old might give less."""
        worst, since, problem, possible = GOOD_REPUTATION, None, None, GOOD_REPUTATION
        for source, addresses, as_of in self._lists:
            unknown = _age_problem(as_of, now, source.max_age)
            if unknown is not None:
                problem, possible = problem or unknown, min(possible, source.score)
            elif source.score <= worst and address in addresses:
                worst, since = source.score, as_of
        if not self._lists:
            return ABSENT
        if problem is not None and (possible < worst or since is None):
            return Fact(None, problem, None, "networks.reputation")
        return known(worst, since, "networks.reputation")


def _agreed(one: NetworkFacts, other: NetworkFacts) -> NetworkFacts:
    """The facts of `one` on which `other` agrees; the others are conflicting."""
    return NetworkFacts(
        _same(one.country, other.country),
        _same(one.asn, other.asn),
        _same(one.anonymous, other.anonymous),
        _same(one.reputation, other.reputation),
        _same(one.corporate, other.corporate),
        since=one.since,
        until=one.until,
    )


def _same(one: Fact, other: Fact) -> Fact:
    return one if one.value == other.value else Fact(None, Unknown.CONFLICTING, None, one.source or other.source)


def _age_problem(as_of: float, now: float, max_age: float) -> Unknown | None:
    """Why data of this age do not count; None if they do. The times at which that changes are in `_changes`."""
    if now < as_of - CLOCK_SKEW:
        return Unknown.CONFLICTING
    return Unknown.STALE if now > as_of + max_age else None


def _database(path: str, name: str, faults: list[Fault]) -> Database | None:
    if path:
        with collect_faults(faults):
            return Database(path, f"networks.{name}")
    return None


def _country_of(record: dict[str, Any] | None) -> str | None:
    """The country: `country.iso_code`, or `country_code` or `country` as text, as other publishers write it."""
    entry = {} if record is None else record
    country = entry.get("country", entry.get("country_code"))
    code = country.get("iso_code") if isinstance(country, dict) else country
    return code if isinstance(code, str) and _COUNTRY.fullmatch(code) else None


def _asn_of(record: dict[str, Any] | None) -> int | None:
    """The number: `autonomous_system_number`, or `asn` as a number or as text like `AS64500`."""
    entry = {} if record is None else record
    number = entry.get("autonomous_system_number", entry.get("asn"))
    if isinstance(number, str) and re.fullmatch(r"(?:AS)?[0-9]{1,10}", number):
        number = int(number.removeprefix("AS"))
    valid = isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**32
    return number if valid and isinstance(number, int) else None


def _is_anonymous(record: dict[str, Any] | None) -> bool | None:
    """Whether a flag of the record is set. The database lists only anonymizing networks: an empty record is False.

    None, so an absent fact, if the record cannot be read or has none of the flags as a boolean.
    """
    if not record:
        return None if record is None else False
    flags = [record[flag] for flag in _ANONYMOUS if isinstance(record.get(flag), bool)]
    return any(flags) if flags else None

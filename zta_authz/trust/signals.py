"""Signals: each reads one fact of a request and says how many points it takes from its component.

An unknown fact takes at least as many points as a bad one: otherwise an attacker gains by unplugging a sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

from zta_authz.model.claims import claim_at
from zta_authz.model.facts import ABSENT, Fact, Unknown, known
from zta_authz.model.signal_documents import RiskLevel
from zta_authz.policy.rules.signal_facts import COMPLIANT, DEVICE_RISK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.model.trust import TrustLevel
    from zta_authz.policy.cel.condition import Condition
    from zta_authz.policy.rules.inputs import Inputs

FULL: Final = 10000
"""The score of a component that lost nothing, in hundredths."""

MAX_READS: Final = 128
"""The longest name of what a signal reads, in characters."""
CLAIM_AGE: Final = "claimAge:"
COUNTRY: Final = "countryNotAllowed:"
REPUTATION: Final = "badReputation:"
"""Beginnings of the names of what a signal reads; the rest is its parameter."""

# RFC 8176 section 2, by the kind of factor.
_KNOWLEDGE: Final = frozenset(("kba", "pin", "pwd"))
_POSSESSION: Final = frozenset(("hwk", "otp", "pop", "sc", "sms", "swk", "tel"))
_NO_CLAIMS: Final[Mapping[str, Any]] = {}
_NUMBERS: Final = (int, float)
_MOST_SECONDS: Final = 1e15
"""A time further from the epoch is no time. An integer beyond what a float holds would raise OverflowError."""
_INHERENCE: Final = frozenset(("face", "fpt", "iris", "retina", "vbm"))


class Signal(Protocol):
    """One signal of one component."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def caps(self) -> TrustLevel | None:
        """The highest level that remains possible while it is on; None for any."""
        ...

    @property
    def points(self) -> int:
        """The points it takes, in hundredths; of one that counts, for each."""
        ...

    @property
    def reads(self) -> str:
        """What it looks at: signals for which this is equal are on and off for the same requests."""
        ...

    def lost(self, inputs: Inputs) -> tuple[int, Fact] | None:
        """The points it takes, in hundredths, and the fact it rests on; None where it takes none."""
        ...

    def changes(self, inputs: Inputs) -> tuple[float, ...] | None:
        """The times at which what it takes may change for the same token, device and network.

        None if it rests on anything else, so that nobody knows.
        """
        ...


@dataclass(frozen=True, slots=True)
class FactSignal:
    """Takes its points unless the fact it reads is known and true."""

    name: str
    points: int
    caps: TrustLevel | None
    read: Callable[[Inputs], Fact]
    passes: Callable[[Inputs], bool] | None = None
    """The same as a boolean, where that costs less than the fact, which is needed for lost points only."""
    reads: str = ""
    changes_at: Callable[[Inputs], tuple[float, ...]] | None = None
    """The times at which the fact may change, where it rests on more than values of token, device and network."""

    def lost(self, inputs: Inputs) -> tuple[int, Fact] | None:
        """All points, or none."""
        if self.passes is not None and self.passes(inputs):
            return None
        fact = self.read(inputs)
        return None if fact.value is True else (self.points, fact)

    def changes(self, inputs: Inputs) -> tuple[float, ...]:
        """Those of its fact."""
        return () if self.changes_at is None else self.changes_at(inputs)


@dataclass(frozen=True, slots=True)
class ConditionSignal:
    """Takes its points unless its condition is known and false."""

    name: str
    points: int
    caps: TrustLevel | None
    condition: Condition

    @property
    def reads(self) -> str:
        """The condition's text, as a hash: it may be long, and records are read by more people than policies."""
        return f"when:{sha256(self.condition.text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"

    def lost(self, inputs: Inputs) -> tuple[int, Fact] | None:
        """All points, or none."""
        value = self.condition.evaluate(inputs)
        if value is False:
            return None
        return self.points, (known(True, source="condition") if value else Fact(source="condition"))

    def changes(self, inputs: Inputs) -> None:
        """None: a condition may read anything."""
        del inputs


@dataclass(frozen=True, slots=True)
class CountSignal:
    """Takes its points once for each thing that a claim counts, at most `most` together."""

    name: str
    points: int
    caps: TrustLevel | None
    claim: tuple[str, ...]
    most: int

    @property
    def reads(self) -> str:
        """The claim."""
        return bounded(f"count:{'.'.join(self.claim)}")

    def lost(self, inputs: Inputs) -> tuple[int, Fact] | None:
        """The points times the count; the most where the claim is no count."""
        value = claim_at(inputs.claims or _NO_CLAIMS, self.claim)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            return self.most, _claim(self.claim)
        return self.for_count(value)

    def for_count(self, count: int) -> tuple[int, Fact] | None:
        """As `lost`, for a claim of this value."""
        return None if count == 0 else (min(self.points * count, self.most), _claim(self.claim, count))

    def changes(self, inputs: Inputs) -> tuple[float, ...]:
        """No time: it rests on a claim."""
        del inputs
        return ()


def bounded(text: str) -> str:
    """`text` for records: a long one is cut, and ends in a hash."""
    if len(text) <= MAX_READS:
        return text
    return text[: MAX_READS - 17] + "#" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _claim(path: tuple[str, ...], value: bool | int | str | None = None, unknown: Unknown | None = None) -> Fact:
    source = f"claim {'.'.join(path)}"
    return (
        Fact(value, unknown if value is None else None, source=source)
        if value is not None or unknown
        else Fact(source=source)
    )


def claim_older_than(claim: tuple[str, ...], seconds: float) -> Callable[[Inputs], Fact]:
    """Reads whether the time in a claim is at least `seconds` ago. A time in the future is conflicting."""
    absent, conflicting = _claim(claim), _claim(claim, unknown=Unknown.CONFLICTING)

    def read(inputs: Inputs) -> Fact:
        at = _time(claim_at(inputs.claims or _NO_CLAIMS, claim))
        if at is None:
            return absent
        if at > inputs.now:
            return conflicting
        return _claim(claim, inputs.now >= at + seconds)

    return read


def claim_age_changes(claim: tuple[str, ...], seconds: float) -> Callable[[Inputs], tuple[float, ...]]:
    """The times at which what `claim_older_than` reads changes: the time in the claim, and its age of `seconds`."""

    def changes(inputs: Inputs) -> tuple[float, ...]:
        at = _time(claim_at(inputs.claims or _NO_CLAIMS, claim))
        return () if at is None else (at, at + seconds)

    return changes


def _time(value: Any) -> float | None:
    """Seconds since the epoch for a NumericDate or an RFC 3339 time; None for anything else."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        return at.timestamp() if at.tzinfo is not None else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST_SECONDS < value < _MOST_SECONDS:
        return None
    return float(value)


_NO_AMR: Final = _claim(("amr",))


def several_factors(inputs: Inputs) -> Fact:
    """Whether the user authenticated with several factors: `amr` has `mfa`, or methods of two kinds (RFC 8176)."""
    value = claim_at(inputs.claims or _NO_CLAIMS, ("amr",))
    if not isinstance(value, (list, tuple)):
        return _NO_AMR
    methods = {method for method in value if isinstance(method, str)}
    kinds = sum(not kind.isdisjoint(methods) for kind in (_KNOWLEDGE, _POSSESSION, _INHERENCE))
    return _claim(("amr",), "mfa" in methods or kinds > 1)


def has_several_factors(inputs: Inputs) -> bool:
    """As `several_factors`, for the usual case that `amr` has `mfa`."""
    claims = inputs.claims
    methods = None if claims is None else claims.get("amr")
    return isinstance(methods, (list, tuple)) and "mfa" in methods


def is_older_than(claim: tuple[str, ...], seconds: float) -> Callable[[Inputs], bool]:
    """As `claim_older_than`, for a number."""

    def passes(inputs: Inputs) -> bool:
        at = claim_at(inputs.claims or _NO_CLAIMS, claim)
        return type(at) in _NUMBERS and -_MOST_SECONDS < at < _MOST_SECONDS and inputs.now >= at + seconds

    return passes


def device_field(name: str) -> Callable[[Inputs], Fact]:
    """Reads one boolean field of the device."""

    def read(inputs: Inputs) -> Fact:
        return inputs.facts.device.field(name)

    return read


def known_device(inputs: Inputs) -> Fact:
    """Whether an inventory knows the device."""
    device = inputs.facts.device
    return known(bool(device.device_id), source=device.inventory) if device.inventory else ABSENT


def country_in(countries: frozenset[str]) -> Callable[[Inputs], Fact]:
    """Reads whether the client's country is among `countries`. A corporate address counts as being there."""

    def read(inputs: Inputs) -> Fact:
        network = inputs.facts.network
        if network.corporate.value is True:
            return network.corporate
        country = network.country
        return country if country.unknown else known(country.value in countries, country.observed_at, country.source)

    return read


def is_in(countries: frozenset[str]) -> Callable[[Inputs], bool]:
    """As `country_in`, for a known country."""
    return lambda inputs: inputs.facts.network.country.value in countries


def has_reputation(least: int) -> Callable[[Inputs], bool]:
    """As `reputation_of`, for a known reputation."""

    def passes(inputs: Inputs) -> bool:
        value = inputs.facts.network.reputation.value
        return type(value) is int and value >= least

    return passes


def reputation_of(least: int) -> Callable[[Inputs], Fact]:
    """Reads whether the client's address has a reputation of at least `least`. A corporate address has."""

    def read(inputs: Inputs) -> Fact:
        network = inputs.facts.network
        if network.corporate.value is True:
            return network.corporate
        fact = network.reputation
        if fact.unknown or not isinstance(fact.value, int):
            return fact
        return known(fact.value >= least, fact.observed_at, fact.source)

    return read


def no_anonymous_network(inputs: Inputs) -> Fact:
    """Whether the client comes from a corporate address, or at least from no anonymizing network."""
    network = inputs.facts.network
    if network.corporate.value is True:
        return network.corporate
    fact = network.anonymous
    return fact if fact.unknown else known(fact.value is False, fact.observed_at, fact.source)


def is_not_anonymous(inputs: Inputs) -> bool:
    """As `no_anonymous_network`, for an address that is known not to be anonymous."""
    return inputs.facts.network.anonymous.value is False


_LOW_RISKS: Final = frozenset((RiskLevel.LOW,))
_NOT_HIGH_RISKS: Final = frozenset((RiskLevel.LOW, RiskLevel.MEDIUM))


def caller_risk_in(levels: frozenset[RiskLevel]) -> Callable[[Inputs], Fact]:
    """Reads whether the risk of the caller is one of `levels`. Another level is returned as it is, for explanations."""
    return lambda inputs: _risk_in(inputs.facts.signals.risk, levels)


def has_caller_risk_in(levels: frozenset[RiskLevel]) -> Callable[[Inputs], bool]:
    """As `caller_risk_in`, for a known risk."""
    return lambda inputs: inputs.facts.signals.risk.value in levels


def device_risk_in(levels: frozenset[RiskLevel]) -> Callable[[Inputs], Fact]:
    """As `caller_risk_in`, for the risk of the device."""
    return lambda inputs: _risk_in(inputs.facts.device.field(DEVICE_RISK), levels)


def _risk_in(fact: Fact, levels: frozenset[RiskLevel]) -> Fact:
    return fact._replace(value=True) if fact.value in levels else fact


def unmeasured(_inputs: Inputs) -> Fact:
    """A fact that no source of this version gives."""
    return ABSENT


BUILT_IN: Final[Mapping[str, Callable[[Inputs], Fact]]] = {
    "noMfa": several_factors,
    "unmanaged": device_field("managed"),
    "unencrypted": device_field("encrypted"),
    "noFirewall": device_field("firewall"),
    "staleAntivirus": device_field("antivirus"),
    "unknownDevice": known_device,
    "notCompliant": device_field(COMPLIANT),
    "highRisk": caller_risk_in(_NOT_HIGH_RISKS),
    "elevatedRisk": caller_risk_in(_LOW_RISKS),
    "highRiskDevice": device_risk_in(_NOT_HIGH_RISKS),
    "elevatedRiskDevice": device_risk_in(_LOW_RISKS),
    "anonymousNetwork": no_anonymous_network,
    "unusualTime": unmeasured,
    "unusualResource": unmeasured,
    "unusualVolume": unmeasured,
    "failedAttempts": unmeasured,
}
"""Signals that need no parameter; `countryNotAllowed` and `badReputation` take theirs from the model."""

PASSES: Final[Mapping[str, Callable[[Inputs], bool]]] = {
    "noMfa": has_several_factors,
    "anonymousNetwork": is_not_anonymous,
    "highRisk": has_caller_risk_in(_NOT_HIGH_RISKS),
    "elevatedRisk": has_caller_risk_in(_LOW_RISKS),
}
"""For some of them, the same as a boolean at less cost."""

DEVICE_SIGNALS: Final = frozenset((
    "unmanaged", "unencrypted", "noFirewall", "staleAntivirus", "unknownDevice", "notCompliant", "highRiskDevice",
    "elevatedRiskDevice",
))  # fmt: skip
RISK_SIGNALS: Final = frozenset(("highRisk", "elevatedRisk"))
NETWORK_SIGNALS: Final = frozenset(("anonymousNetwork",))
UNMEASURED: Final = frozenset(name for name, read in BUILT_IN.items() if read is unmeasured)
"""Built-in signals by what they read; those of the user read claims."""

"""Find clauses on facts that nothing gives: an ALLOW rule with such a clause never matches, a DENY rule always may."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from zta_authz.policy.rules.clauses import TextClause
from zta_authz.policy.rules.dimensions import FactDimension
from zta_authz.policy.rules.fact_clauses import FactClause
from zta_authz.policy.rules.fact_values import (
    LAST_SEEN,
    DeviceField,
    OsAtLeast,
    SeenWithin,
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
from zta_authz.policy.rules.require_trust import TrustClause, points

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.model.documents import Selector
    from zta_authz.model.trust import TrustAssessment, TrustDemand
    from zta_authz.policy.rules.clauses import Clause
    from zta_authz.policy.rules.fact_values import ReadFact

_NETWORK: Final = {
    country: "country",
    asn: "asn",
    anonymous: "anonymous",
    reputation: "reputation",
    corporate: "corporate",
}
NETWORK_FACTS: Final = frozenset(_NETWORK.values())
_EVENTS: Final = {"risk": "risk-level-change", "assurance": "assurance-level-change"}
_VARIABLES: Final = ("device.managed", "device.encrypted", "device.compliant")


@dataclass(frozen=True, slots=True)
class Absence:
    """Why a fact is unknown for every request, and what to do. Not `certain` if the settings are only the defaults."""

    reason: str
    hint: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class FactSources:
    """What gives facts: the network facts of the settings, and documents by the workloads that they select.

    `inventories` have the names of their fields, `classifications` the classes that they give, and `models` the best
    assessment that is possible with the facts that anything gives. `settings_known` is false if no settings were named.
    """

    network: frozenset[str]
    directory: bool
    settings_known: bool
    inventories: tuple[tuple[Selector, frozenset[str]], ...] = ()
    models: tuple[tuple[Selector, TrustAssessment], ...] = ()
    classifications: tuple[tuple[Selector, frozenset[str]], ...] = ()
    signals: frozenset[str] = frozenset()
    """`risk` and `assurance`, if any SignalSource reports them of callers."""

    def concerning(self, selector: Selector, root: str) -> FactSources:
        """Those that may apply to a workload that `selector` selects."""

        def concerns(own: Selector) -> bool:
            if own.namespace != selector.namespace and root not in (own.namespace, selector.namespace):
                return False
            return all(selector.labels.get(key, value) == value for key, value in own.labels.items())

        return replace(
            self,
            inventories=tuple(pair for pair in self.inventories if concerns(pair[0])),
            models=tuple(pair for pair in self.models if concerns(pair[0])),
            classifications=tuple(pair for pair in self.classifications if concerns(pair[0])),
        )

    def without_network(self, name: str) -> Absence | None:
        """Why the network fact `name` is unknown."""
        if name in self.network:
            return None
        return Absence(f"nothing gives `{name}` of the client's address", f"set `networks.{name}`", self.settings_known)

    def without_device(self, field: str = "") -> Absence | None:
        """Why a field of the device is unknown; "" for the device itself."""
        if not self.inventories:
            return Absence("no DeviceInventory selects its workloads", "add a DeviceInventory for them")
        names = frozenset().union(*(fields for _, fields in self.inventories))
        if field and field not in names:
            near = get_close_matches(field, sorted(names), 1)
            hint = f"did you mean `{near[0]}`?" if near else "add it to `fields` of the inventory"
            hint = "add `times.seen` to the inventory" if field == LAST_SEEN else hint
            return Absence(f"no DeviceInventory of its workloads has the field `{field}`", hint)
        if not self.directory:
            return Absence("no inventory is read", "set `facts.directory`", self.settings_known)
        return None

    def without_trust(self) -> Absence | None:
        """Why nothing assesses a request."""
        return None if self.models else Absence("no TrustModel selects its workloads", "add a TrustModel for them")

    def without_signal(self, name: str) -> Absence | None:
        """Why the `risk` or the `assurance` of callers is unknown."""
        if name in self.signals:
            return None
        return Absence(f"no SignalSource reports the {name} of callers", f"add one with `{_EVENTS[name]}: trust`")

    def without_class(self) -> Absence | None:
        """Why no resource has a class."""
        hint = "add a ResourceClassification for them"
        return None if self.classifications else Absence("no ResourceClassification selects its workloads", hint)


def absence_of(clause: Clause, sources: FactSources) -> Absence | None:
    """Why what the clause asks for is unknown, or out of reach, for every request; None if there is no proof."""
    match clause:
        case FactClause():
            return _absence(clause.read, sources)
        case TextClause(dimension=FactDimension() as dimension):
            return _absence(dimension.read, sources) or _unassigned_class(clause, dimension, sources)
        case TrustClause():
            return absence_of_trust(clause.demand, sources)
    return None


def absence_of_variable(name: str, sources: FactSources) -> Absence | None:
    """Why a variable of conditions is unknown for every request; None if there is no proof."""
    kind, _, field = name.partition(".")
    if kind == "remote" and field in NETWORK_FACTS:
        return sources.without_network(field)
    if name == "device.id":
        return sources.without_device()
    if name in _VARIABLES:
        return sources.without_device(field)
    if kind == "trust":
        return sources.without_trust()
    if kind == "signals":
        return sources.without_signal(field)
    return sources.without_class() if name == "resource.class" else None


def _absence(read: ReadFact, sources: FactSources) -> Absence | None:
    match read:
        case DeviceField(name=name):
            return sources.without_device(name)
        case OsAtLeast():
            return sources.without_device("os") or sources.without_device("osVersion")
        case SeenWithin():
            return sources.without_device(LAST_SEEN)
    if read in _NETWORK:
        return sources.without_network(_NETWORK[read])
    others: dict[ReadFact, Callable[[], Absence | None]] = {
        device_id: sources.without_device,
        trust_level: sources.without_trust,
        resource_class: sources.without_class,
        caller_risk: lambda: sources.without_signal("risk"),
        caller_assurance: lambda: sources.without_signal("assurance"),
    }
    other = others.get(read)
    return None if other is None else other()


def _unassigned_class(clause: TextClause, dimension: FactDimension, sources: FactSources) -> Absence | None:
    """Why no resource has any of the classes that the clause names. A negated clause holds then."""
    if dimension.read is not resource_class or clause.negated:
        return None
    classes = frozenset().union(*(given for _, given in sources.classifications))
    if any(matcher.matches(name) for matcher in clause.matchers for name in classes):
        return None
    listed = ", ".join(f"`{name}`" for name in sorted(classes))
    return Absence("no ResourceClassification of its workloads gives this class", f"they give {listed}")


def absence_of_trust(demand: TrustDemand, sources: FactSources) -> Absence | None:
    """Why no request has the trust that is demanded; None if there is no proof."""
    unmet = [(best, demand.unmet(best)) for _, best in sources.models]
    if not unmet:
        return sources.without_trust()
    if not all(low for _, low in unmet):
        return None
    best, low = max(unmet, key=lambda pair: pair[0].score)
    reached = f"level {best.level.name}" if "level" in low else f"{low[0]} {points(best.components.get(low[0], 0))}"
    lost = ", ".join(dict.fromkeys(f"{loss.component}.{loss.signal}" for loss in best.lost)) or "its numbers"
    hint = "give these facts a source, write `assume` for a component that nothing measures, or ask for less"
    return Absence(f"no request has more than {reached} by `{best.model}`, because of {lost}", hint)

"""The trust bundles in force: what several sources give, joined into one immutable set and put where verifiers look.

A trust domain belongs to the first source that names it, also while that source has nothing for it: which authorities
count must not depend on which source happened to be there first.

    documents > files > bundle endpoints > Workload API
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zta_authz.authn.bundles import BundleSlot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.authn.bundles import Bundles
    from zta_authz.authn.chain import Authorities
    from zta_authz.ports import Clock

_LOG = logging.getLogger(__name__)
MAX_DOMAINS: Final = 10_000


class BundleSource(StrEnum):
    """Where a bundle comes from, the strongest first."""

    DOCUMENTS = "documents"
    FILE = "file"
    ENDPOINT = "bundle endpoint"
    WORKLOAD_API = "Workload API"


_STRENGTH: Final = tuple(BundleSource)


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """A trust domain's bundle: where it is from, how many authorities it has, since when it is here (epoch seconds)."""

    trust_domain: str
    source: BundleSource
    authorities: int
    since: float


class BundleStore:
    """Joins the sources. `claims` says which trust domains belong to files and endpoints by the settings.

    All methods are for the event loop's thread; `slot` may be read from any.
    """

    def __init__(self, claims: Mapping[str, BundleSource], clock: Clock = time.time) -> None:
        self._claims = dict(claims)
        self._clock = clock
        self._given: dict[BundleSource, dict[str, Authorities]] = {source: {} for source in _STRENGTH}
        self._since: dict[tuple[BundleSource, str], float] = {}
        self._warned: set[tuple[str, BundleSource, BundleSource]] = set()
        self._verifiers: BundleSlot | None = None
        self.slot = BundleSlot()
        """The same bundles as in the verifier's slot, and it stays when the verifier is replaced."""

    def bind(self, slot: BundleSlot) -> None:
        """From now on keep `slot`, and no other, filled; its documents are the strongest source."""
        self._verifiers = slot
        self._replace(BundleSource.DOCUMENTS, slot.documents)
        slot.current = self.slot.current

    def put(self, source: BundleSource, authorities: Authorities) -> None:
        """Take one trust domain's bundle in place of what `source` gave for it before."""
        name = authorities.trust_domain.name
        self._replace(source, {**self._given[source], name: authorities})

    def put_all(self, source: BundleSource, domains: Mapping[str, Authorities]) -> None:
        """Take all that `source` gives; a trust domain that is not among them has no bundle of it any more."""
        self._replace(source, domains)

    def status(self) -> list[BundleStatus]:
        """The bundles in force, by trust domain."""
        return [
            BundleStatus(name, source, len(found.anchors), self._since.get((source, name), 0.0))
            for name, (source, found) in sorted(self._joined().items())
        ]

    def _replace(self, source: BundleSource, domains: Mapping[str, Authorities]) -> None:
        before, now = self._given[source], self._clock()
        self._given[source] = dict(domains)
        for name, authorities in domains.items():
            if before.get(name) is not authorities:
                self._since[source, name] = now
        for name in before.keys() - domains.keys():
            self._since.pop((source, name), None)
        self._publish()

    def _joined(self) -> dict[str, tuple[BundleSource, Authorities]]:
        """By trust domain, the bundle that counts and where it is from."""
        joined: dict[str, tuple[BundleSource, Authorities]] = {}
        for source in reversed(_STRENGTH):  # the stronger one replaces the weaker
            for name, authorities in self._given[source].items():
                weaker = joined.get(name)
                claim = self._claims.get(name)
                if claim is not None and _STRENGTH.index(claim) < _STRENGTH.index(source):
                    self._warn(name, claim, source)
                    continue
                if weaker is not None:
                    self._warn(name, source, weaker[0])
                joined[name] = (source, authorities)
        return joined

    def _publish(self) -> None:
        bundles: Bundles = MappingProxyType({name: found for name, (_, found) in self._joined().items()})
        before = self.slot.current
        if bundles.keys() == before.keys() and all(bundles[name] is before[name] for name in bundles):
            return
        self.slot.current = bundles
        if self._verifiers is not None:
            self._verifiers.current = bundles
        for name in sorted(before.keys() - bundles.keys()):
            _LOG.warning("trust bundle gone", extra={"trust_domain": name})

    def _warn(self, name: str, stronger: BundleSource, weaker: BundleSource) -> None:
        if (name, stronger, weaker) in self._warned or len(self._warned) > MAX_DOMAINS:
            return
        self._warned.add((name, stronger, weaker))
        _LOG.warning(
            "two sources for one trust domain",
            extra={"trust_domain": name, "used": stronger.value, "ignored": weaker.value},
        )

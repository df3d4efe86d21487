"""The trust bundles in force: joins the bundles of several sources into one immutable set for the verifiers.

A trust domain belongs to the first source that names it, even while that source has no bundle for it. So the
authorities in force never depend on which source was ready first. The order is:

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
    """The source of a bundle, the strongest first."""

    DOCUMENTS = "documents"
    FILE = "file"
    ENDPOINT = "bundle endpoint"
    WORKLOAD_API = "Workload API"


_STRENGTH: Final = tuple(BundleSource)


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """A trust domain's bundle: its source, its number of authorities, and when it arrived (epoch seconds)."""

    trust_domain: str
    source: BundleSource
    authorities: int
    since: float


class BundleStore:
    """Joins the bundles of all sources. `claims` lists the trust domains that the settings give to files and endpoints.

    Call all methods in the event loop's thread. Any thread may read `slot`.
    """

    def __init__(self, claims: Mapping[str, BundleSource], clock: Clock = time.time) -> None:
        self._claims = dict(claims)
        self._clock = clock
        self._given: dict[BundleSource, dict[str, Authorities]] = {source: {} for source in _STRENGTH}
        self._since: dict[tuple[BundleSource, str], float] = {}
        self._warned: set[tuple[str, BundleSource, BundleSource]] = set()
        self._verifiers: BundleSlot | None = None
        self.slot = BundleSlot()
        """The same bundles as in the verifier's slot. It stays when the verifier is replaced."""

    def bind(self, slot: BundleSlot) -> None:
        """Keep `slot`, and no other, filled from now on. Its documents are the strongest source."""
        self._verifiers = slot
        self._replace(BundleSource.DOCUMENTS, slot.documents)
        slot.current = self.slot.current

    def put(self, source: BundleSource, authorities: Authorities) -> None:
        """Store one trust domain's bundle and replace the one that `source` gave for it before."""
        name = authorities.trust_domain.name
        self._replace(source, {**self._given[source], name: authorities})

    def put_all(self, source: BundleSource, domains: Mapping[str, Authorities]) -> None:
        """Replace all bundles of `source`. Trust domains that are not in `domains` lose its bundle."""
        self._replace(source, domains)

    def status(self) -> list[BundleStatus]:
        """List the bundles in force, sorted by trust domain."""
        return [
            BundleStatus(name, source, len(authorities.anchors), self._since.get((source, name), 0.0))
            for name, (source, authorities) in sorted(self._joined().items())
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
        """Map each trust domain to its bundle in force and the bundle's source."""
        joined: dict[str, tuple[BundleSource, Authorities]] = {}
        for source in reversed(_STRENGTH):  # a stronger source replaces a weaker one
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
        bundles: Bundles = MappingProxyType({name: authorities for name, (_, authorities) in self._joined().items()})
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

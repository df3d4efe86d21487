"""Who may call over mutual TLS: listed SPIFFE IDs, or all of a trust domain if something else decides about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.model.spiffe import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Iterable


class AllowedCallers:
    """SPIFFE IDs: those listed, and those of `trust_domains` whose paths do not begin with `reserved`."""

    __slots__ = ("_reserved", "_trust_domains", "spiffe_ids")

    def __init__(
        self, spiffe_ids: Iterable[str] = (), *, trust_domains: Iterable[str] = (), reserved: str = "//"
    ) -> None:
        """No path begins with the default of `reserved`."""
        self.spiffe_ids = frozenset(spiffe_ids)
        self._trust_domains = frozenset(trust_domains)
        self._reserved = reserved

    @classmethod
    def of(cls, callers: Iterable[str] | AllowedCallers) -> AllowedCallers:
        """Callers that are given as such, or as a list of SPIFFE IDs."""
        return callers if isinstance(callers, AllowedCallers) else cls(callers)

    def __contains__(self, spiffe_id: str) -> bool:
        if spiffe_id in self.spiffe_ids:
            return True
        if not self._trust_domains:
            return False
        try:
            parsed = SpiffeId.parse(spiffe_id)
        except ValueError:
            return False
        return parsed.trust_domain.name in self._trust_domains and not parsed.path.startswith(self._reserved)

    @property
    def trust_domains(self) -> list[str]:
        """The trust domains of all of them, sorted."""
        listed = {SpiffeId.parse(spiffe_id).trust_domain.name for spiffe_id in self.spiffe_ids}
        return sorted(listed | self._trust_domains)

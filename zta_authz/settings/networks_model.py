"""Settings of facts about networks, and of the directory for data files that documents name."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from zta_authz.facts.address_lists import MAX_ENTRIES
from zta_authz.facts.networks import ListSource, NetworkSources
from zta_authz.settings.values import Section, Text, invalid

_DAY = 86400.0
MaxAge = Annotated[float, Field(ge=60, le=3660 * _DAY, allow_inf_nan=False)]


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise invalid("is not a network", "write it like 203.0.113.0/24 or 2001:db8::/32, without host bits") from None
    return text


class FactsSettings(Section):
    """Data files that documents name: `directory` is the only place that they may be in."""

    directory: Text | None = None


class ReputationSettings(Section):
    """A list of addresses with a bad reputation, the score of its addresses (0 to 100), and how long it counts.

    A file with fewer than `min_entries` entries is refused.
    """

    file: Text
    score: Annotated[int, Field(ge=0, le=100)] = 0
    max_age_seconds: MaxAge = 7 * _DAY
    min_entries: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = 1


class NetworksSettings(Section):
    """Facts about client addresses: mmdb files for country, ASN and anonymity, reputation lists, corporate ranges.

    Data that are older than `max_age_seconds` are stale.
    """

    country: Text | None = None
    asn: Text | None = None
    anonymous: Text | None = None
    reputation: Annotated[tuple[ReputationSettings, ...], Field(max_length=16)] = ()
    corporate: Annotated[tuple[Annotated[Text, AfterValidator(_network)], ...], Field(max_length=4096)] = ()
    max_age_seconds: MaxAge = 60 * _DAY

    def sources(self) -> NetworkSources:
        """Return where network facts come from."""
        return NetworkSources(
            self.country or "",
            self.asn or "",
            self.anonymous or "",
            tuple(
                ListSource(item.file, item.score, item.max_age_seconds, item.min_entries) for item in self.reputation
            ),
            tuple(ip_network(text) for text in self.corporate),
            self.max_age_seconds,
        )

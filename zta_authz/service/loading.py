"""Load everything that is needed before listening: policies, trust bundles, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.errors import FaultsError
from zta_authz.keys.addresses import AddressRules
from zta_authz.keys.http_client import HttpClient, trusted_authorities
from zta_authz.keys.jwks import JwksLoader
from zta_authz.keys.refresh_schedule import Timing
from zta_authz.keys.refresher import JwksRefresher
from zta_authz.keys.trust import TrustRefresher
from zta_authz.policy_sources.files import load_snapshot
from zta_authz.policy_sources.reloader import log_warnings_and_notes
from zta_authz.servers.svid_tls import SvidTls
from zta_authz.servers.tls import MutualTls
from zta_authz.settings.trust import trust_sources

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from zta_authz.keys.outcomes import FetchOutcome
    from zta_authz.model.options import Options
    from zta_authz.pdp.snapshot import Snapshot
    from zta_authz.settings import Settings


def load(
    settings: Settings,
    options: Options,
    on_change: Callable[[], None],
    on_fetch: Callable[[str, FetchOutcome], None],
) -> tuple[Snapshot, ssl.SSLContext | None, TrustRefresher, MutualTls | SvidTls | None]:
    """Load policies, authorities for issuers' servers (None: the system's), trust bundles, and our certificate.

    Raises `FaultsError` with all their faults.
    """
    errors: list[FaultsError] = []
    snapshot: Snapshot | None = None
    trust: TrustRefresher | None = None
    tls: MutualTls | SvidTls | None = None
    authorities: ssl.SSLContext | None = None
    try:
        snapshot = load_snapshot(settings.policies, options)
        log_warnings_and_notes(snapshot)
    except FaultsError as error:
        errors.append(error)
    try:
        trust = TrustRefresher(trust_sources(settings), on_change, on_fetch=on_fetch)
    except FaultsError as error:
        errors.append(error)
    try:
        tls = load_tls(settings, trust)
    except FaultsError as error:
        errors.append(error)
    try:
        authorities = None if settings.jwks.ca_file is None else trusted_authorities(settings.jwks.ca_file)
    except FaultsError as error:
        errors.append(error)
    if errors or snapshot is None or trust is None:
        raise FaultsError(fault for error in errors for fault in error.faults)
    return snapshot, authorities, trust, tls


def load_tls(settings: Settings, trust: TrustRefresher | None) -> MutualTls | SvidTls | None:
    """Load the mutual TLS of our TCP listeners, or None for plain ones. Raises `SettingsErrors`."""
    section = settings.tls
    if section is None:
        return None
    allowed, age = section.allowed_spiffe_ids, section.max_connection_age_seconds
    if section.source == "workload_api":
        return None if trust is None else SvidTls(trust.svid, trust.store.slot, allowed, max_connection_age=age)
    files = (section.cert_file or "", section.key_file or "", section.client_ca_file or "")
    return MutualTls(*files, allowed, max_connection_age=age)


def build_jwks(
    settings: Settings, authorities: ssl.SSLContext | None, on_fetch: Callable[[str, FetchOutcome], None]
) -> JwksRefresher:
    """Build what fetches issuers' keys. `authorities` verify their servers; None: those of the system."""
    jwks = settings.jwks
    client = HttpClient(
        AddressRules(jwks.allow_private_addresses, frozenset(jwks.private_hosts)),
        allow_http=jwks.allow_http,
        tls=authorities,
    )
    timing = Timing(
        refresh=jwks.refresh_seconds,
        min_refresh=jwks.min_refresh_seconds,
        max_refresh=jwks.max_refresh_seconds,
        max_stale=jwks.max_stale_seconds,
        unknown_kid=jwks.unknown_kid_seconds,
    )
    return JwksRefresher(JwksLoader(client, strict=settings.options().strict), timing, on_fetch)

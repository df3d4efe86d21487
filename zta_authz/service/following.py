"""Build what follows the administrator, as the settings say."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.errors import Fault, SettingsErrors
from zta_authz.following.connection import TlsTunnel, UnixConnection
from zta_authz.following.relay import RelayReader
from zta_authz.following.tls import AdministratorTls, AgentIdentity, IdentityFiles, TlsProblem
from zta_authz.following.views import FollowedViews
from zta_authz.model.spiffe import SpiffeId
from zta_authz.policy_sources.pacing import freeze_growth
from zta_authz.ports import FollowingStatus
from zta_authz.servers.listeners import Endpoint
from zta_authz.settings.following_model import host_and_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.following.client import Follower
    from zta_authz.following.connection import Connection
    from zta_authz.keys.trust import TrustRefresher
    from zta_authz.model.facts import FactSlot
    from zta_authz.ports import Clock
    from zta_authz.settings import Settings
    from zta_authz.settings.following_model import FollowTlsSettings

_MAX_NODE: Final = 200
_SETTING: Final = "administrator.tls"
_NO_VIEW: Final = "nothing was received from the administrator yet"
_STALE: Final = "what needs a grant or a signal: nothing was received from the administrator for too long"


class Following:
    """The administrator's view in a decision point, and what keeps it up to date. Does nothing if none is followed."""

    def __init__(
        self,
        settings: Settings,
        trust: TrustRefresher,
        facts: FactSlot,
        on_change: Callable[[], None],
        clock: Clock,
        relay: socket.socket | None = None,
    ) -> None:
        """Publish the view's grants in `facts`. `on_change` is called when readiness may have changed.

        `trust` has our SVID and the trust bundles. A worker reads the view from its supervisor, over `relay`. Raises
        `SettingsErrors` for unusable TLS files.
        """
        self._relay = relay
        self._connection = open_connection(settings, trust) if relay is None else None
        self._on_change = on_change
        self._clock = clock
        self._revocations = DynamicRevocations()
        self._views: FollowedViews | None = None
        self._feed: Follower | RelayReader | None = None
        self._address = settings.administrator.followed or ""
        if self._address:
            self._views = FollowedViews(facts, self._revocations, settings.administrator.max_age_seconds, freeze_growth)

    def use_in(self, verifier: IdentityVerifier) -> None:
        """Apply the administrator's revocations in the first verifier. Those that replace it inherit them."""
        if self._views is not None:
            verifier.use_revocations(self._revocations)

    def obstacles(self) -> tuple[str, ...]:
        """Why the view can't be used yet."""
        return () if self._views is None or self._views.is_complete else (_NO_VIEW,)

    def blanket_denials(self) -> tuple[str, ...]:
        """What is denied because the view is too old."""
        status = self.status()
        return (_STALE,) if status is not None and status.stale and status.age is not None else ()

    def status(self) -> FollowingStatus | None:
        """How the administrator is followed, None if none is."""
        views, feed = self._views, self._feed
        if views is None:
            return None
        now = self._clock()
        return FollowingStatus(
            address=self._address,
            connected=feed is not None and feed.connected,
            age=None if views.heard_at is None else max(0.0, now - views.heard_at),
            stale=views.grants.is_stale(now),
            revision=views.revision,
            items={"grant": len(views.grants), "revocation": len(self._revocations), "signal": len(views.signals)},
            streams=0 if feed is None else feed.streams,
            refused_items=views.refused,
            refused_updates=0 if feed is None else feed.invalid,
        )

    def start(self) -> None:
        """Begin to follow."""
        if self._views is None:
            return
        if self._relay is not None:
            self._feed = RelayReader(self._relay, self._views, self._on_change)
        elif self._connection is not None:
            from zta_authz.following.client import Follower  # noqa: PLC0415 - imports gRPC, which others don't need

            self._feed = Follower(self._connection, self._views, node_name(), self._on_change, self._clock)
        if self._feed is not None:
            self._feed.start()

    async def close(self) -> None:
        """End the stream. The views stay as they are."""
        if self._feed is not None:
            await self._feed.close()


def node_name() -> str:
    """The name by which the administrator logs this process."""
    return f"{socket.gethostname()}/{os.getpid()}"[:_MAX_NODE]


def open_connection(settings: Settings, trust: TrustRefresher) -> Connection | None:
    """Return the way to the administrator, None if none is followed. Raises `SettingsErrors` for unusable TLS files."""
    section = settings.administrator
    if section.followed is None:
        return None
    if section.tls is None:
        return UnixConnection(Endpoint.parse(section.followed).path)
    tls = _tls(section.tls, trust)
    host, port = host_and_port(section.followed)
    return TlsTunnel(host, port, tls)


def _tls(section: FollowTlsSettings, trust: TrustRefresher) -> AdministratorTls:
    domain = SpiffeId.parse(section.spiffe_ids[0]).trust_domain.name
    if section.source == "workload_api":
        return AdministratorTls(AgentIdentity(trust.svid, trust.store.slot, domain), section.spiffe_ids)
    files = IdentityFiles(section.cert_file or "", section.key_file or "", section.ca_file or "")
    tls = AdministratorTls(files, section.spiffe_ids)
    try:
        tls.context()
    except TlsProblem as error:
        fault = Fault(error.source, 0, 0, error.message, f"correct the files in `{_SETTING}`")
        raise SettingsErrors([fault]) from None
    return tls

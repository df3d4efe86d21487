"""The supervisor follows the administrator for all workers: one stream a host."""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING

from zta_authz.following.relay import RelayedView
from zta_authz.keys.trust import TrustRefresher
from zta_authz.service.following import node_name, open_connection
from zta_authz.settings.trust import trust_sources

if TYPE_CHECKING:
    from zta_authz.following.client import Follower
    from zta_authz.settings import Settings

_LOG = logging.getLogger(__name__)


class SharedFollowing:
    """Follows the administrator, if the settings name one, and passes the view on to the workers."""

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsErrors` for unusable TLS files."""
        self._trust = TrustRefresher(trust_sources(settings))
        self._uses_agent = (
            settings.administrator.tls is not None and settings.administrator.tls.source == "workload_api"
        )
        connection = open_connection(settings, self._trust)
        self._view = RelayedView()
        self.follower: Follower | None = None
        if connection is not None:
            from zta_authz.following.client import Follower  # noqa: PLC0415 - imports gRPC, which others don't need

            self.follower = Follower(connection, self._view, node_name(), self._changed, time.time)

    def new_relay(self) -> tuple[socket.socket, socket.socket] | None:
        """Our end and the worker's end of a socket pair for one worker; None if no administrator is followed."""
        return None if self.follower is None else socket.socketpair()

    async def start(self) -> None:
        """Begin to follow."""
        if self.follower is not None:
            if self._uses_agent:
                await self._trust.start()
            self.follower.start()

    async def pass_on(self, connection: socket.socket) -> None:
        """Pass the view on to the worker at the other end of `connection`, until it ends."""
        connection.setblocking(False)
        try:
            await self._view.serve(connection)
        except Exception:  # noqa: BLE001  the worker is replaced
            _LOG.exception("passing on the administrator's view failed")

    async def close(self) -> None:
        """End the stream."""
        if self.follower is not None:
            await self.follower.close()
        await self._trust.close()

    def _changed(self) -> None:
        if self.follower is not None:
            self._view.show_connected(connected=self.follower.connected)

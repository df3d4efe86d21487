"""Build what follows the administrator, as the settings say."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from zta_authz.authn.revocation import DynamicRevocations
from zta_authz.following.views import FollowedViews
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from zta_authz.authn.verify import IdentityVerifier
    from zta_authz.following.client import Follower
    from zta_authz.model.facts import FactSlot
    from zta_authz.ports import Clock
    from zta_authz.settings import Settings

_MAX_NODE: Final = 200
_NO_VIEW: Final = "nothing was received from the administrator yet"


class Following:
    """The administrator's view in a decision point, and what keeps it up to date. Does nothing if none is followed."""

    def __init__(self, settings: Settings, facts: FactSlot, on_change: Callable[[], None], clock: Clock) -> None:
        """Publish the view's grants in `facts`. `on_change` is called when readiness may have changed."""
        self._address = settings.administrator.followed
        self._max_age = settings.administrator.max_age_seconds
        self._on_change = on_change
        self._clock = clock
        self._revocations = DynamicRevocations()
        self._views: FollowedViews | None = None
        self._follower: Follower | None = None
        if self._address is not None:
            self._views = FollowedViews(facts, self._revocations, self._max_age)

    def use_in(self, verifier: IdentityVerifier) -> None:
        """Apply the administrator's revocations in the first verifier. Those that replace it inherit them."""
        if self._views is not None:
            verifier.use_revocations(self._revocations)

    def obstacles(self) -> tuple[str, ...]:
        """Why the view can't be used yet."""
        return () if self._views is None or self._views.is_complete else (_NO_VIEW,)

    def start(self) -> None:
        """Begin to follow."""
        if self._views is None or self._address is None:
            return
        from zta_authz.following.client import Follower  # noqa: PLC0415 - imports gRPC, which others don't need

        node = f"{socket.gethostname()}/{os.getpid()}"[:_MAX_NODE]
        self._follower = Follower(_target(self._address), self._views, node, self._on_change, self._clock)
        self._follower.start()

    async def close(self) -> None:
        """End the stream. The views stay as they are."""
        if self._follower is not None:
            await self._follower.close()


def _target(address: str) -> str:
    """The name of an address as gRPC writes it."""
    endpoint = Endpoint.parse(address)
    return f"unix:{endpoint.path}" if endpoint.is_unix else f"{endpoint}"

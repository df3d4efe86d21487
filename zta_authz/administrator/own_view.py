"""Applies the published view to the administrator itself: whoever is revoked must not approve anything either."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from zta_authz._proto.administrator_pb2 import ViewUpdate
from zta_authz.following.position import InvalidView
from zta_authz.following.views import FollowedViews
from zta_authz.model.facts import FactSlot

if TYPE_CHECKING:
    from zta_authz.administrator.follow_service import FollowService
    from zta_authz.authn.revocation import DynamicRevocations

RETRY_SECONDS: Final = 1.0
_LOG = logging.getLogger(__name__)


class OwnView:
    """Follows the view in this process, as decision points do over a socket."""

    def __init__(self, follow: FollowService, revocations: DynamicRevocations, max_age: float) -> None:
        """Keep `revocations` up to date while `run` runs."""
        self._follow = follow
        self._views = FollowedViews(FactSlot(), revocations, max_age)
        self._complete = asyncio.Event()

    async def run(self) -> None:
        """Apply the view and its changes until cancelled. One that can't be applied is read again as a whole."""
        views = self._views
        while True:
            views.begin()
            try:
                async for update in self._follow.updates(views.epoch, views.revision):
                    views.apply(ViewUpdate.FromString(update), time.time())
                    if views.is_complete:
                        self._complete.set()
            except InvalidView as error:
                _LOG.error("revocations may be out of date here: the view can't be applied: %s", error)
                views.forget_position()
            await asyncio.sleep(RETRY_SECONDS)

    async def wait(self) -> None:
        """Return when the whole view has been applied. Nobody may call the administrator before."""
        await self._complete.wait()

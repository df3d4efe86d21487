"""`Views.Follow`: sends the view to a decision point, then every change to it, over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from zta_authz._proto.administrator_pb2 import FollowRequest, ViewUpdate
from zta_authz.following.pages import pages, serialized

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from zta_authz.administrator.view import Delta, PublishedView

SERVICE: Final = "zta.administrator.v1.Views"
FOLLOW: Final = "Follow"
HEARTBEAT_SECONDS: Final = 5.0
MAX_CATCH_UP: Final = 1024
"""The whole view is made again once more items than that have changed since."""
CATCH_UP_SECONDS: Final = 5.0
MAX_FOLLOWERS: Final = 4096
_MAX_NODE: Final = 200
_LOG = logging.getLogger(__name__)


class FollowService:
    """Serves the view to many followers. `followers` is how many streams are open now."""

    def __init__(self, view: PublishedView, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._view = view
        self._heartbeat = heartbeat
        self.followers = 0
        self._last: tuple[str, int, int, tuple[bytes, ...]] = ("", 0, 0, ())
        self._whole: _WholeView | None = None

    async def follow(self, payload: bytes, context: Any, caller: str) -> AsyncGenerator[bytes, None]:
        """Yield serialized updates without end; `caller` is the follower's SPIFFE ID, "" on a Unix socket.

        Each update is sent before the next one is made, so a slow follower gets fewer and larger updates.
        """
        del context
        try:
            request = FollowRequest.FromString(payload)
        except DecodeError:
            request = FollowRequest()  # begins with the whole view
        if self.followers >= MAX_FOLLOWERS:
            _LOG.error("a follower was refused: there are %d", self.followers)
            return
        node = request.node[:_MAX_NODE]
        self.followers += 1
        _LOG.info("a follower connected", extra={"node": node, "caller": caller, "followers": self.followers})
        try:
            async with aclosing(self.updates(request.epoch, request.revision)) as updates:
                async for update in updates:
                    yield update
        finally:
            self.followers -= 1
            _LOG.info("a follower left", extra={"node": node, "caller": caller, "followers": self.followers})

    async def updates(self, epoch: str, revision: int) -> AsyncGenerator[bytes, None]:
        """Yield what changes after `revision`, as `follow` does."""
        view = self._view
        await self._catch_up(epoch, revision)
        while True:
            delta = view.since(epoch, revision)
            if delta is None:
                whole = self._whole_view()
                for number in range(len(whole.pages)):
                    yield whole.page(number)
                    await asyncio.sleep(0)  # a large view must not keep others waiting
                epoch, revision = whole.epoch, whole.revision
            else:
                for update in self._change(epoch, revision, delta):
                    yield update
                    await asyncio.sleep(0)
                revision = delta.revision
            await view.wait(epoch, revision, self._heartbeat)

    async def _catch_up(self, epoch: str, revision: int) -> None:
        """Wait until the view has a follower's `revision`, for a while: another administrator may be ahead of it."""
        view, loop = self._view, asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_SECONDS
        while view.epoch == epoch and view.revision < revision and loop.time() < deadline:
            await view.wait(epoch, view.revision, deadline - loop.time())

    def _whole_view(self) -> _WholeView:
        """The whole view as it is now, or a little earlier: a follower gets what has changed since right after it."""
        view, whole = self._view, self._whole
        known = None if whole is None else view.since(whole.epoch, whole.revision)
        if whole is None or known is None or len(known.changes) > MAX_CATCH_UP:
            whole = self._whole = _WholeView(view.epoch, view.revision, list(view.items.items()))
        return whole

    def _change(self, epoch: str, revision: int, delta: Delta) -> tuple[bytes, ...]:
        """The updates from `revision` to that of `delta`. Followers at one revision get the same bytes."""
        if delta.changes and self._last[:3] == (epoch, revision, delta.revision):
            return self._last[3]
        split = list(pages(list(delta.changes.items()))) or [()]
        last, updates = len(split) - 1, []
        for number, page in enumerate(split):
            update = ViewUpdate(
                epoch=epoch,
                revision=delta.revision if number == last else revision,
                complete=number == last,
                sent_at=time.time(),
            )
            updates.append(serialized(update, page))
        if delta.changes:
            self._last = (epoch, revision, delta.revision, tuple(updates))
        return tuple(updates)


class _WholeView:
    """The items at one revision, in pages that are serialized once for all followers."""

    __slots__ = ("_serialized", "epoch", "pages", "revision")

    def __init__(self, epoch: str, revision: int, items: Sequence[tuple[str, bytes]]) -> None:
        self.epoch, self.revision = epoch, revision
        self.pages = tuple(pages(items)) or ((),)
        self._serialized: dict[int, bytes] = {}

    def page(self, number: int) -> bytes:
        """The update with the page of this number, from 0 on."""
        known = self._serialized.get(number)
        if known is None:
            update = ViewUpdate(
                epoch=self.epoch,
                revision=self.revision,
                full=number == 0,
                complete=number == len(self.pages) - 1,
                sent_at=time.time(),
            )
            known = self._serialized[number] = serialized(update, self.pages[number])
        return known

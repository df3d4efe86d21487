"""`Views.Follow`: sends the view to a decision point, then every change to it, over gRPC."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from zta_authz._proto.administrator_pb2 import FollowRequest, ViewUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zta_authz.administrator.view import Delta, PublishedView

SERVICE: Final = "zta.administrator.v1.Views"
FOLLOW: Final = "Follow"
HEARTBEAT_SECONDS: Final = 5.0
PAGE_ITEMS: Final = 500
MAX_FOLLOWERS: Final = 4096
_PUT_TAG: Final = bytes((ViewUpdate.PUT_FIELD_NUMBER << 3 | 2,))
_MAX_NODE: Final = 200
_LOG = logging.getLogger(__name__)


class FollowService:
    """Serves the view to many followers. `followers` is how many streams are open now."""

    def __init__(self, view: PublishedView, heartbeat: float = HEARTBEAT_SECONDS) -> None:
        self._view = view
        self._heartbeat = heartbeat
        self.followers = 0
        self._last: tuple[str, int, int, bytes] = ("", 0, 0, b"")
        self._whole: _WholeView | None = None

    async def follow(self, payload: bytes, context: Any, caller: str) -> AsyncIterator[bytes]:
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
            async for update in self.updates(request.epoch, request.revision):
                yield update
        finally:
            self.followers -= 1
            _LOG.info("a follower left", extra={"node": node, "caller": caller, "followers": self.followers})

    async def updates(self, epoch: str, revision: int) -> AsyncIterator[bytes]:
        """Yield what changes after `revision`, as `follow` does."""
        view = self._view
        while True:
            delta = view.since(epoch, revision)
            if delta is None:
                whole = self._whole_view()
                for number in range(whole.pages):
                    yield whole.page(number)
                    await asyncio.sleep(0)  # a large view must not keep others waiting
                epoch, revision = whole.epoch, whole.revision
            else:
                yield self._change(epoch, revision, delta)
                revision = delta.revision
            await view.wait(epoch, revision, self._heartbeat)

    def _whole_view(self) -> _WholeView:
        """The whole view as it is now, or a little earlier: a follower gets what has changed since right after it."""
        view, whole = self._view, self._whole
        known = None if whole is None else view.since(whole.epoch, whole.revision)
        if whole is None or known is None or len(known.changes) > PAGE_ITEMS:
            whole = self._whole = _WholeView(view.epoch, view.revision, tuple(view.items.values()))
        return whole

    def _change(self, epoch: str, revision: int, delta: Delta) -> bytes:
        """The update from `revision` to that of `delta`. Followers at one revision get the same bytes."""
        if delta.changes and self._last[:3] == (epoch, revision, delta.revision):
            return self._last[3]
        update = ViewUpdate(epoch=epoch, revision=delta.revision, complete=True, sent_at=time.time())
        update.removed.extend(key for key, value in delta.changes.items() if value is None)
        serialized = _with_items(update, (value for value in delta.changes.values() if value is not None))
        if delta.changes:
            self._last = (epoch, revision, delta.revision, serialized)
        return serialized


class _WholeView:
    """The items at one revision, in pages that are serialized once for all followers."""

    __slots__ = ("_items", "_serialized", "epoch", "pages", "revision")

    def __init__(self, epoch: str, revision: int, items: tuple[bytes, ...]) -> None:
        self.epoch, self.revision = epoch, revision
        self._items = items
        self.pages = max(1, -(-len(items) // PAGE_ITEMS))
        self._serialized: dict[int, bytes] = {}

    def page(self, number: int) -> bytes:
        """The update with the page of this number, from 0 on."""
        serialized = self._serialized.get(number)
        if serialized is None:
            update = ViewUpdate(
                epoch=self.epoch,
                revision=self.revision,
                full=number == 0,
                complete=number == self.pages - 1,
                sent_at=time.time(),
            )
            items = self._items[number * PAGE_ITEMS : (number + 1) * PAGE_ITEMS]
            serialized = self._serialized[number] = _with_items(update, items)
        return serialized


def _with_items(update: ViewUpdate, items: Iterable[bytes]) -> bytes:
    """Serialize `update` with items that are serialized already: concatenated messages are merged by protobuf."""
    parts = [update.SerializeToString()]
    for item in items:
        parts += (_PUT_TAG, _varint(len(item)), item)
    return b"".join(parts)


def _varint(number: int) -> bytes:
    """Encode a length as protobuf does (base 128, the lowest group first)."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

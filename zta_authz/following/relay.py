"""One stream for all workers of a host: their supervisor follows the administrator and passes its updates on.

Each worker has a socket pair with the supervisor, on which frames travel: four bytes of length, when the administrator
was last heard (seconds since the epoch), whether it is reachable, and a serialized `ViewUpdate` (empty: no news). A new
worker gets the whole view, and so does one that reads too slowly, so the supervisor queues little for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from zta_authz._proto.administrator_pb2 import Item, ViewUpdate
from zta_authz.following.pages import pages, serialized
from zta_authz.following.position import MAX_ITEM_BYTES, MAX_ITEMS, InvalidView, ViewPosition

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterator

    from zta_authz.following.views import FollowedViews

_HEAD: Final = struct.Struct(">Id?")
_MAX_FRAME_BYTES: Final = 1024 * 1024
MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
"""A worker that has more to read than that gets the whole view instead."""
_NEVER: Final = 0.0
_LOG = logging.getLogger(__name__)


class RelayedView(ViewPosition):
    """The supervisor's copy of the view, as serialized items, and the workers that get it.

    It belongs to one event loop.
    """

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[str, bytes] = {}
        self.connected = False
        self._staged: dict[str, bytes] | None = None
        self._lost: dict[str, bytes] = {}  # revocations that only earlier stores of the administrator had
        self._pages: tuple[bytes, ...] | None = None  # the whole view, until it changes
        self._workers: set[_Worker] = set()

    def begin(self) -> None:
        """See `ViewPosition`."""
        super().begin()
        self._staged = None

    def apply(self, update: ViewUpdate, now: float) -> None:
        """Apply one update, received at `now` in seconds since the epoch, and pass it on. Raises `InvalidView`."""
        self.check(update, now)
        if update.full:
            self._staged = {}
        self._put(update)
        was_full = self._staged is not None
        if not self.advance(update, now):
            return
        if self._staged is not None:
            self._replace(self._staged, now)
            self._staged = None
        for worker in self._workers:
            if was_full:
                worker.start_over()
            else:
                worker.offer(self._frame(update.SerializeToString()))

    def _put(self, update: ViewUpdate) -> None:
        items = self.items if self._staged is None else self._staged
        for item in update.put:
            if item.ByteSize() <= MAX_ITEM_BYTES:  # workers refuse a larger one, and keep what they have
                items[item.key] = item.SerializeToString()
        for key in update.removed:
            items.pop(key, None)
        if self._staged is None and (update.put or update.removed):
            self._pages = None
            for key in (*(item.key for item in update.put), *update.removed):
                self._lost.pop(key, None)
        if len(items) > MAX_ITEMS:
            raise InvalidView(f"a view of more than {MAX_ITEMS} items")

    def _replace(self, items: dict[str, bytes], now: float) -> None:
        """Put a full view in force. As in `FollowedViews`, revocations stay that the store of another epoch lacks."""
        known = _revocations(self.items, now) if self.is_other_store else self._lost
        self._lost = {key: item for key, item in known.items() if key not in items}
        self.items = items | self._lost
        self._pages = None

    def show_connected(self, *, connected: bool) -> None:
        """Pass on whether the administrator is reachable."""
        self.connected = connected
        for worker in self._workers:
            worker.offer(self._frame(b""))

    async def serve(self, connection: socket.socket) -> None:
        """Pass the view on to the worker at the other end of `connection` until it ends. Closes it."""
        _, writer = await asyncio.open_connection(sock=connection)
        worker = _Worker()
        self._workers.add(worker)
        try:
            with contextlib.suppress(OSError):
                async for frame in worker.frames(self):
                    writer.write(frame)
                    await writer.drain()
        finally:
            self._workers.discard(worker)
            writer.close()

    def whole(self) -> Iterator[bytes]:
        """Yield the frames of the whole view; before there is one, a frame without news."""
        if not self.is_complete:
            yield self._frame(b"")
            return
        if self._pages is None:
            self._pages = tuple(self._serialize())
        for page in self._pages:
            yield self._frame(page)

    def _serialize(self) -> Iterator[bytes]:
        split = list(pages(list(self.items.items()))) or [()]
        epoch, last = self.epoch, len(split) - 1
        for number, page in enumerate(split):
            update = ViewUpdate(epoch=epoch, revision=self.revision, full=number == 0, complete=number == last)
            yield serialized(update, page)

    def _frame(self, payload: bytes) -> bytes:
        heard_at = _NEVER if self.heard_at is None else self.heard_at
        return _HEAD.pack(len(payload), heard_at, self.connected) + payload


def _revocations(items: dict[str, bytes], now: float) -> dict[str, bytes]:
    """The revocations among `items` that have not ended."""
    in_force = {}
    for key, data in items.items():
        if key.startswith("revocation/"):
            until = Item.FromString(data).revocation.until
            if not until or now < until:
                in_force[key] = data
    return in_force


class _Worker:
    """What a worker is still to get."""

    def __init__(self) -> None:
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._behind = True
        self._news = asyncio.Event()
        self._news.set()

    def offer(self, frame: bytes) -> None:
        """Queue a frame, unless the whole view is due anyway."""
        if not self._behind:
            self._queue.append(frame)
            self._queued += len(frame)
            if self._queued > MAX_QUEUED_BYTES:
                self.start_over()
        self._news.set()

    def start_over(self) -> None:
        """Send the whole view next."""
        self._queue.clear()
        self._queued = 0
        self._behind = True
        self._news.set()

    async def frames(self, view: RelayedView) -> AsyncIterator[bytes]:
        """Yield frames as they come, without end."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._behind:
                self._behind = False
                for frame in view.whole():
                    yield frame
                    if self._behind:
                        break
            while self._queue and not self._behind:
                frame = self._queue.popleft()
                self._queued -= len(frame)
                yield frame
            if self._behind:
                self._news.set()


class RelayReader:
    """The worker's side: applies to `views` what the supervisor passes on.

    `on_change` is called when the administrator becomes reachable or unreachable, and when the first view is complete.
    """

    def __init__(self, connection: socket.socket, views: FollowedViews, on_change: Callable[[], None]) -> None:
        self.connected = False
        self.streams = 0
        """The supervisor counts streams."""
        self.invalid = 0
        self._connection = connection
        self._views = views
        views.accepts_older = True  # the supervisor has decided that
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read. Call it in the event loop that decides."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="the administrator's view")

    async def close(self) -> None:
        """Read no more. The views stay as they are."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        self._connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=self._connection)
        try:
            while True:
                await self._read_one(reader)
        except (OSError, EOFError, DecodeError, InvalidView) as error:
            _LOG.error("the supervisor passes on no more updates of the administrator: %s", type(error).__name__)
        finally:
            writer.close()
            self._show(connected=False)

    async def _read_one(self, reader: asyncio.StreamReader) -> None:
        length, heard_at, connected = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if length > _MAX_FRAME_BYTES:
            raise InvalidView("a frame that is too long")
        was_complete = self._views.is_complete
        if length:
            self._views.apply(ViewUpdate.FromString(await reader.readexactly(length)), heard_at)
        self._show(connected=connected)
        if self._views.is_complete is not was_complete:
            self._on_change()

    def _show(self, *, connected: bool) -> None:
        if connected is not self.connected:
            self.connected = connected
            self._on_change()

"""The view that decision points follow: the items of the store whose keys begin with `view/`, at one revision.

An operation puts its items into the store with its own commit, so every replica of the administrator publishes the same
view at the same revision. Nothing is queued for a follower: each one asks for what changed since its own revision, so a
slow follower costs no memory and gets later changes in one piece.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from zta_authz.administrator.store.port import Forgotten, StoreForgot, StoreUnavailable, read_items
from zta_authz.administrator.view_items import VIEW, BadItem, wire_item
from zta_authz.following.position import MAX_ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from zta_authz.administrator.store.port import Commit, Store

REMEMBERED_CHANGES: Final = 4096
"""How many revisions a follower may be behind and still get only what changed."""
RETRY_SECONDS: Final = 0.5
BATCH: Final = 256
_LOG = logging.getLogger(__name__)


def _published(key: str, value: bytes) -> bytes | None:
    """The item as followers get it; None, and a line in the log, for one that can't be read."""
    try:
        item = wire_item(key, value)
    except BadItem as error:
        _LOG.error("an item of the store is not published: %s", error)
        return None
    if len(item) > MAX_ITEM_BYTES:
        _LOG.error("an item of the store is not published: it has more than %d bytes", MAX_ITEM_BYTES)
        return None
    return item


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed after one revision up to another: serialized items by key, None for a removed one."""

    revision: int
    changes: Mapping[str, bytes | None]


class PublishedView:
    """Keeps the view as the store has it. Everything runs in one event loop."""

    def __init__(self, store: Store, on_failure: Callable[[str], None] = lambda _reason: None) -> None:
        """`on_failure` gets the reason why the store can't be read, and "" once it can again."""
        self._store = store
        self._on_failure = on_failure
        self.epoch = ""
        self.revision = 0
        self.items: dict[str, bytes] = {}
        """Serialized `Item` messages by key."""
        self._recent: deque[tuple[int, Mapping[str, bytes | None]]] = deque(maxlen=REMEMBERED_CHANGES)
        self._known_since = 0
        self._changed = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the whole view, then follow the store. Raises `StoreError` if the first reading fails."""
        await self._read_all()
        self._following = asyncio.get_running_loop().create_task(self._follow(), name="published view")

    async def close(self) -> None:
        """Stop following the store."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def wait(self, epoch: str, revision: int, seconds: float) -> None:
        """Return when the view is another one than that of `epoch` and `revision`, or after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while (self.epoch, self.revision) == (epoch, revision):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return

    def since(self, epoch: str, revision: int) -> Delta | None:
        """What changed after `revision`; None if that is no longer known, so that the whole view is needed."""
        if epoch != self.epoch or not self._known_since <= revision <= self.revision:
            return None
        changes: dict[str, bytes | None] = {}
        for number, change in reversed(self._recent):
            if number <= revision:
                break
            for key, value in change.items():
                changes.setdefault(key, value)
        return Delta(self.revision, changes)

    async def _read_all(self) -> None:
        epoch = await self._store.epoch()
        revision, items = await read_items(self._store, VIEW)
        self.items = {}
        for number, (key, item) in enumerate(items.items()):
            value = _published(key, item.value)
            if value is not None:
                self.items[key.removeprefix(VIEW)] = value
            if number % BATCH == 0:
                await asyncio.sleep(0)
        self.epoch, self.revision, self._known_since = epoch, revision, revision
        self._recent.clear()
        self._announce()

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_stream()
            except (StoreForgot, Forgotten):
                await self._again()
            except StoreUnavailable as error:
                self._on_failure(str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _again(self) -> None:
        """Read everything again: the store lost commits, or this replica fell too far behind."""
        try:
            await self._read_all()
        except (StoreForgot, Forgotten, StoreUnavailable) as error:
            self._on_failure(str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def _follow_stream(self) -> None:
        await self._catch_up()
        async for _ in self._store.watch(self.revision):
            await self._catch_up()

    async def _catch_up(self) -> None:
        while commits := await self._store.read_since(self.revision):
            for commit in commits:
                self._apply(commit)
            self._announce()
        self._on_failure("")

    def _apply(self, commit: Commit) -> None:
        changes: dict[str, bytes | None] = {
            key.removeprefix(VIEW): _published(key, value) for key, value in commit.put.items() if key.startswith(VIEW)
        }
        changes |= {key.removeprefix(VIEW): None for key in commit.deleted if key.startswith(VIEW)}
        for key, value in changes.items():
            if value is None:
                self.items.pop(key, None)
            else:
                self.items[key] = value
        if len(self._recent) == REMEMBERED_CHANGES:
            self._known_since = self._recent[0][0]
        if changes:
            self._recent.append((commit.revision, changes))
        self.revision = commit.revision

    def _announce(self) -> None:
        """Wake everybody who waits."""
        self._changed.set()
        self._changed = asyncio.Event()

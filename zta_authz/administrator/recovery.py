"""Make revocations again that the store lost, from this administrator's access log.

If the store loses its data, what it revoked must not count again. The access log has each revocation that was made and
lifted. Grants are not made again: a lost grant denies, and can be requested anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from zta_authz.access.lifecycle import OperationRefused
from zta_authz.administrator.access_events import MAX_NAME_CHARACTERS, EventKind, read_log_line
from zta_authz.administrator.access_items import at_once, commit_draft
from zta_authz.administrator.revocation_items import end_key, revocation_event
from zta_authz.administrator.revocations import counts_of
from zta_authz.administrator.store.port import StoreError, read_items
from zta_authz.administrator.view_items import REVOCATION, RevocationItem, encode_item
from zta_authz.audit.hash_chain import read_link
from zta_authz.audit.segments import finished_segments
from zta_authz.model.documents import Revoked

if TYPE_CHECKING:
    from zta_authz.administrator.access_events import LoggedEvent
    from zta_authz.administrator.access_items import Draft
    from zta_authz.administrator.event_log import EventLog
    from zta_authz.administrator.store.port import Store

REASON: Final = "the store had lost it"
_MARK: Final = "recovered/"
"""`recovered/LOG` has the epoch for which the log LOG was read."""
_BATCH: Final = 200
_RETRY_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 30.0
_ADDED: Final = frozenset({EventKind.REVOCATION_ADDED})
_GONE: Final = frozenset({EventKind.REVOCATION_LIFTED, EventKind.REVOCATION_EXPIRED})
_KINDS: Final = frozenset(map(str, Revoked))
_LOG = logging.getLogger(__name__)


class Recovery:
    """Compares the store with the access log at `path`, once for each epoch of the store."""

    def __init__(self, store: Store, log: EventLog, path: str) -> None:
        """`log` writes the access log at `path`."""
        self._store = store
        self._log = log
        self._path = Path(path)
        self._compared = asyncio.Event()

    async def wait(self) -> None:
        """Wait until the store was compared for the first time: its view has all revocations then.

        Gives up after a while, because a view without some revocations is better than none for those who have one.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._compared.wait()
        except TimeoutError:
            _LOG.error("the access log could not be compared with the store: revocations that it lost may be missing")

    async def run(self) -> None:
        """Compare at the start, and whenever the store has another epoch, until cancelled."""
        epoch = ""
        while True:
            epoch = await self._log.next_epoch(epoch)
            while True:
                try:
                    await self.recover(epoch)
                    self._compared.set()
                    break
                except (StoreError, OperationRefused, OSError) as error:
                    _LOG.error("revocations that the store may have lost can't be made again yet: %s", error)
                    await asyncio.sleep(_RETRY_SECONDS)

    async def recover(self, epoch: str) -> int:
        """Make revocations again that the log has and the store of `epoch` lacks. Returns how many there were.

        Raises `StoreError`, `OperationRefused` and OSError.
        """
        log_id, lost = await asyncio.to_thread(read_log, self._path)
        mark = _MARK + log_id
        known = await self._store.get(mark)
        if known is not None and known.value == epoch.encode():
            return 0
        _, existing = await read_items(self._store, REVOCATION)
        items = [item for item in lost.values() if item.key not in existing]
        made = 0
        for start in range(0, len(items), _BATCH):
            made += await self._make(mark, items[start : start + _BATCH])

        async def attempt(draft: Draft, now: float) -> None:
            del now
            await draft.read(self._store, mark)
            draft.put[mark] = epoch.encode()

        await commit_draft(self._store, attempt, at_once)
        if made:
            _LOG.error("the store had lost %d revocations, which were made again from the access log", made)
        return made

    async def _make(self, mark: str, items: list[RevocationItem]) -> int:
        """Make those of `items` that the store lacks and that have not ended."""

        async def attempt(draft: Draft, now: float) -> int:
            made = 0
            counts: Counter[str] = Counter()
            for item in items:
                if (item.until and item.until <= now) or await draft.read(self._store, item.key) is not None:
                    continue
                draft.put[item.key] = encode_item(item)
                if item.until:
                    draft.put[end_key(item)] = b"{}"
                draft.add_event(revocation_event(EventKind.REVOCATION_ADDED, item, reason=REASON))
                made += 1
                counts.update(counts_of(item))
            for key, count in counts.items():
                entry = await draft.read(self._store, key)
                draft.put[key] = b"%d" % ((0 if entry is None else int(entry.value)) + count)
            draft.put[mark] = b""  # not finished
            return made

        return await commit_draft(self._store, attempt, at_once)


def read_log(path: Path) -> tuple[str, dict[str, RevocationItem]]:
    """The ID of the log at `path`, and the revocations in force at its end by their IDs. Raises OSError."""
    log_id, revocations, seen = "", dict[str, RevocationItem](), set[str]()
    for file in (*finished_segments(path), path):
        with file.open("rb") as lines:
            for number, line in enumerate(lines):
                if not number:
                    link = read_link(line.rstrip(b"\n"))
                    log_id = link.log if link is not None else log_id
                event = read_log_line(line) if b'"revocation.' in line else None
                if event is None or event.event_id in seen:  # after an epoch, the log has some events again
                    continue
                seen.add(event.event_id)
                _apply(revocations, event)
    return log_id, revocations


def _apply(revocations: dict[str, RevocationItem], event: LoggedEvent) -> None:
    if event.kind in _GONE:
        revocations.pop(event.id, None)
    elif event.kind in _ADDED:
        item = _item(event)
        if item is None:
            _LOG.error("the access log does not have all of revocation %s, so it can't be made again", event.id)
        else:
            revocations[item.id] = item


def _item(event: LoggedEvent) -> RevocationItem | None:
    """The revocation of an event, None if the event does not have all of it."""
    texts = [event.detail.get(name) for name in ("what", "value", "issuer")]
    times = [event.detail.get(name) for name in ("before", "until")]
    if not all(isinstance(text, str) and len(text) < MAX_NAME_CHARACTERS for text in texts):
        return None
    if not all(isinstance(time, int | float) and not isinstance(time, bool) for time in times):
        return None
    what, value, issuer = map(str, texts)
    before, until = (float(time) for time in times if isinstance(time, int | float))
    if what not in _KINDS or not event.id or not value:
        return None
    return RevocationItem(event.id, what, value, issuer, before, until, event.reason, "access log")

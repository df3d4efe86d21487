"""Apply the administrator's updates to the views that decisions read.

A full view replaces the one in force only when it is complete. Until then the old one decides, but revocations of the
new one count at once: refusing too early is safe, and allowing too long is not.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zta_authz.access.grants import GrantTable
from zta_authz.following.items import InvalidItem, read_grant, read_revocation, read_signal, read_source
from zta_authz.security_events.signal_table import SignalTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zta_authz._proto import administrator_pb2 as pb
    from zta_authz.authn.revocation import DynamicRevocations
    from zta_authz.model.facts import FactSlot

MAX_ITEMS: Final = 500_000
"""A view with more items is refused: the follower keeps what it has."""
MAX_ITEM_BYTES: Final = 16 * 1024
"""A larger item is refused."""
FULL_VIEW_SECONDS: Final = 120.0
"""A full view must be complete by then. Until it is, the follower's facts get no fresher."""
_LOG = logging.getLogger(__name__)


class InvalidView(ValueError):
    """The administrator's updates can't be applied: the follower has to begin again."""


@dataclass(slots=True)
class _Staged:
    """A full view that is still being received."""

    grants: GrantTable
    signals: SignalTable
    began_at: float
    revocations: set[str] = field(default_factory=set)
    items: int = 0


class FollowedViews:
    """The views in force. Use it in the thread that decides.

    `epoch` and `revision` say where the next stream begins: "" and 0 ask for a whole view. `refused` counts
    items that could not be read.
    """

    def __init__(self, slot: FactSlot, revocations: DynamicRevocations, max_age: float) -> None:
        """Publish grants and signals in `slot`. They are stale until the first view is complete."""
        self.epoch = ""
        self.revision = 0
        self.refused = 0
        self.is_complete = False
        """Whether a whole view has been received."""
        self.grants = GrantTable(max_age)
        self.signals = SignalTable(max_age)
        self.heard_at: float | None = None
        self._max_age = max_age
        self._revocations = revocations
        self._staged: _Staged | None = None
        slot.replace_grants(self.grants)
        slot.replace_signals(self.signals)

    def begin(self) -> None:
        """Begin a new stream: what an earlier one left incomplete is dropped."""
        self._staged = None

    def forget_position(self) -> None:
        """Ask for a whole view next. What is in force stays."""
        self.epoch, self.revision = "", 0

    def apply(self, update: pb.ViewUpdate, now: float) -> None:
        """Apply one update, received at `now` in seconds since the epoch. Raises `InvalidView`."""
        if update.full:
            self._staged = _Staged(GrantTable(self._max_age), SignalTable(self._max_age), now)
        elif self._staged is None and update.epoch != self.epoch:
            raise InvalidView("an update of another epoch, without a full view")
        if self._staged is None and update.revision < self.revision:
            raise InvalidView("an update that is older than the view")
        if self._staged is not None and now - self._staged.began_at > FULL_VIEW_SECONDS:
            raise InvalidView(f"a full view that was not complete after {FULL_VIEW_SECONDS:g} s")
        self._put(update.put, now)
        self._remove(update.removed)
        if update.complete:
            self._complete(update)
        if self._staged is None:
            self.heard_at = now
            self.grants.confirm(now)
            self.signals.confirm(now)

    def _complete(self, update: pb.ViewUpdate) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            self.grants.replace(staged.grants)
            self.signals.replace(staged.signals)
            self._revocations.clear(keep=staged.revocations)
        self.epoch, self.revision, self.is_complete = update.epoch, update.revision, True

    def _put(self, items: Iterable[pb.Item], now: float) -> None:
        staged = self._staged
        for item in items:
            if staged is not None:
                staged.items += 1
            total = 0 if staged is None else staged.items
            if max(total, self._size) > MAX_ITEMS:
                raise InvalidView(f"a view of more than {MAX_ITEMS} items")
            try:
                if item.ByteSize() > MAX_ITEM_BYTES:
                    raise InvalidItem("an item that is too large")
                self._put_one(item, staged, now)
            except InvalidItem as error:
                self.refused += 1
                _LOG.error("the administrator sent an item that can't be read: %s", error)

    def _put_one(self, item: pb.Item, staged: _Staged | None, now: float) -> None:
        value = item.WhichOneof("value")
        if value == "grant":
            grant = read_grant(item.grant)
            _check_key(item.key, f"grant/{grant.id}")
            (self.grants if staged is None else staged.grants).put(grant)
        elif value == "revocation":
            timed = read_revocation(item.revocation)
            _check_key(item.key, f"revocation/{timed.id}")
            self._revocations.put(timed.id, timed.revocation, timed.until)
            if staged is not None:
                staged.revocations.add(timed.id)
        elif value == "signal":
            signal = read_signal(item.signal)
            _check_key(item.key, f"signal/{signal.id}")
            (self.signals if staged is None else staged.signals).put(signal)
        elif value == "source":
            source = read_source(item.source)
            _check_key(item.key, f"source/{source.name}")
            (self.signals if staged is None else staged.signals).put_source(source, now)

    @property
    def _size(self) -> int:
        return len(self.grants) + len(self._revocations) + len(self.signals)

    def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            kind, _, name = key.partition("/")
            if kind == "grant":
                (self.grants if self._staged is None else self._staged.grants).remove(name)
            elif kind == "signal":
                (self.signals if self._staged is None else self._staged.signals).remove(name)
            elif kind == "source":
                (self.signals if self._staged is None else self._staged.signals).remove_source(name)
            elif kind == "revocation":
                if self._staged is None:
                    self._revocations.remove(name)
                else:
                    self._staged.revocations.discard(name)


def _check_key(key: str, expected: str) -> None:
    """Items are removed by their keys. Raises `InvalidItem` if the key is not that of the item."""
    if key != expected:
        raise InvalidItem("an item whose key is not its ID")

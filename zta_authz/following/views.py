"""Apply the administrator's updates to the views that decisions read.

A full view replaces the one in force only when it is complete. Until then the old one decides, but revocations of the
new one count at once: refusing too early is safe, and allowing too long is not. For the same reason, revocations stay
in force if the administrator's store lost them: a view of another epoch adds revocations, and removes those that ended.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from zta_authz.access.grants import GrantTable
from zta_authz.following.items import InvalidItem, read_grant, read_revocation, read_signal, read_source
from zta_authz.following.position import MAX_ITEM_BYTES, MAX_ITEMS, InvalidView, ViewPosition
from zta_authz.security_events.signal_table import SignalTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from zta_authz._proto import administrator_pb2 as pb
    from zta_authz.authn.revocation import DynamicRevocations
    from zta_authz.model.facts import FactSlot

GROWTH_ITEMS: Final = 10_000
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class _Staged:
    """A full view that is still being received."""

    grants: GrantTable
    signals: SignalTable
    revocations: set[str] = field(default_factory=set)
    items: int = 0


class FollowedViews(ViewPosition):
    """The views in force. Use it in the thread that decides. `refused` counts items that could not be read."""

    def __init__(
        self,
        slot: FactSlot,
        revocations: DynamicRevocations,
        max_age: float,
        on_growth: Callable[[], None] = lambda: None,
    ) -> None:
        """Publish grants and signals in `slot`. They are stale until the first view is complete.

        `on_growth` is called after every `GROWTH_ITEMS` items of a full view, and after its end.
        """
        super().__init__()
        self._on_growth = on_growth
        self.refused = 0
        self.grants = GrantTable(max_age)
        self.signals = SignalTable(max_age)
        self._max_age = max_age
        self._revocations = revocations
        self._staged: _Staged | None = None
        self._lost: set[str] = set()  # revocations that only earlier stores of the administrator had
        slot.replace_grants(self.grants)
        slot.replace_signals(self.signals)

    def begin(self) -> None:
        """See `ViewPosition`."""
        super().begin()
        self._staged = None

    def apply(self, update: pb.ViewUpdate, now: float) -> None:
        """Apply one update, received at `now` in seconds since the epoch. Raises `InvalidView`."""
        self.check(update, now)
        if update.full:
            self._staged = _Staged(GrantTable(self._max_age), SignalTable(self._max_age))
        self._put(update.put)
        self._remove(update.removed)
        if self.advance(update, now):
            self._replace(now)
            self.grants.confirm(now)
            self.signals.confirm(now)

    def _replace(self, now: float) -> None:
        """Put a full view in force that is complete now, if there is one."""
        staged, self._staged = self._staged, None
        if staged is not None:
            self.grants.replace(staged.grants)
            self.signals.replace(staged.signals)
            self._keep_lost(staged, now)
            self._revocations.clear(keep=staged.revocations | self._lost)
            self._on_growth()

    def _keep_lost(self, staged: _Staged, now: float) -> None:
        """Note the revocations in force that the store of another epoch does not have."""
        known = self._revocations.in_force(now) if self.is_other_store else self._lost
        self._lost = known - staged.revocations
        if self.is_other_store and self._lost:
            _LOG.error(
                "the administrator has another store than before, which lacks %d revocations: they stay in force here "
                "until this process ends or the administrator lifts them",
                len(self._lost),
            )

    def _put(self, items: Iterable[pb.Item]) -> None:
        staged = self._staged
        for item in items:
            if staged is not None:
                staged.items += 1
                if staged.items % GROWTH_ITEMS == 0:
                    self._on_growth()
            total = 0 if staged is None else staged.items
            if max(total, self._size) > MAX_ITEMS:
                raise InvalidView(f"a view of more than {MAX_ITEMS} items")
            try:
                if item.ByteSize() > MAX_ITEM_BYTES:
                    raise InvalidItem("an item that is too large")
                self._put_one(item, staged)
            except InvalidItem as error:
                self.refused += 1
                _LOG.error("the administrator sent an item that can't be read: %s", error)

    def _put_one(self, item: pb.Item, staged: _Staged | None) -> None:
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
            else:
                self._lost.discard(timed.id)
        elif value == "signal":
            signal = read_signal(item.signal)
            _check_key(item.key, f"signal/{signal.id}")
            (self.signals if staged is None else staged.signals).put(signal)
        elif value == "source":
            source = read_source(item.source)
            _check_key(item.key, f"source/{source.name}")
            (self.signals if staged is None else staged.signals).put_source(source)

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
                    self._lost.discard(name)
                else:
                    self._staged.revocations.discard(name)


def _check_key(key: str, expected: str) -> None:
    """Items are removed by their keys. Raises `InvalidItem` if the key is not that of the item."""
    if key != expected:
        raise InvalidItem("an item whose key is not its ID")

"""Where a follower is in the administrator's updates, and which update may come next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zta_authz._proto import administrator_pb2 as pb

MAX_ITEMS: Final = 500_000
"""A view with more items is refused: the follower keeps what it has."""
MAX_ITEM_BYTES: Final = 16 * 1024
"""A larger item is refused."""
FULL_VIEW_SECONDS: Final = 120.0
"""A full view must be complete by then. Until it is, the follower's facts get no fresher."""


class InvalidView(ValueError):
    """The administrator's updates can't be applied: the follower has to begin again."""


class ViewPosition:
    """The position of a follower: "" and 0 ask for a whole view."""

    def __init__(self) -> None:
        self.epoch = ""
        self.revision = 0
        self.is_complete = False
        """Whether a whole view has been received."""
        self.is_other_store = False
        """Whether the newest full view is of another store than the one before: the administrator's store lost data."""
        self.heard_at: float | None = None
        self._view_epoch = ""  # of the view in force, even if `epoch` asks for a whole view
        self._staged_since: float | None = None

    def begin(self) -> None:
        """Begin a new stream: what an earlier one left incomplete is dropped."""
        self._staged_since = None

    def forget_position(self) -> None:
        """Ask for a whole view next. What is in force stays."""
        self.epoch, self.revision = "", 0

    def check(self, update: pb.ViewUpdate, now: float) -> None:
        """Check that `update` continues what was received before. Raises `InvalidView`."""
        if update.full:
            self._staged_since = now
        since = self._staged_since
        if since is not None:
            if now - since > FULL_VIEW_SECONDS:
                raise InvalidView(f"a full view that was not complete after {FULL_VIEW_SECONDS:g} s")
        elif update.epoch != self.epoch:
            raise InvalidView("an update of another epoch, without a full view")
        elif update.revision < self.revision:
            raise InvalidView("an update that is older than the view")

    def advance(self, update: pb.ViewUpdate, now: float) -> bool:
        """Note that `update` is applied. Return whether the view is as the administrator has it, or a change to it."""
        if update.complete:
            self.is_other_store = self._view_epoch not in ("", update.epoch)
            self._view_epoch = update.epoch
            self.epoch, self.revision, self.is_complete = update.epoch, update.revision, True
            self._staged_since = None
        if self._staged_since is not None:
            return False
        self.heard_at = now
        return True

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


OLDER_SECONDS: Final = 60.0
"""An older view of the same store is refused for so long: a replica may be behind. After that, the store lost data."""


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
        """Whether the newest full view lacks what the one before had: the administrator's store lost data."""
        self.accepts_older = False
        """Whether an older view is accepted at once, because who sends it has checked that."""
        self.heard_at: float | None = None
        self._view_epoch = ""  # of the view in force, even if `epoch` asks for a whole view
        self._view_revision = 0
        self._older_since: float | None = None
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
            self._check_age(update, now)
            self._staged_since = now
        since = self._staged_since
        if since is not None:
            if now - since > FULL_VIEW_SECONDS:
                raise InvalidView(f"a full view that was not complete after {FULL_VIEW_SECONDS:g} s")
        elif update.epoch != self.epoch:
            raise InvalidView("an update of another epoch, without a full view")
        elif update.revision < self.revision:
            raise InvalidView("an update that is older than the view")

    def _check_age(self, update: pb.ViewUpdate, now: float) -> None:
        """Check that a full view is not that of a replica which is behind. Raises `InvalidView`."""
        if update.epoch != self._view_epoch or update.revision >= self._view_revision or self.accepts_older:
            self._older_since = None
            return
        if self._older_since is None:
            self._older_since = now
        if 0 <= now - self._older_since < OLDER_SECONDS:
            raise InvalidView("a full view that is older than the one in force")

    def advance(self, update: pb.ViewUpdate, now: float) -> bool:
        """Note that `update` is applied. Return whether the view is as the administrator has it, or a change to it."""
        if update.complete:
            older = update.epoch == self._view_epoch and update.revision < self._view_revision
            self.is_other_store = older or self._view_epoch not in ("", update.epoch)
            self._view_epoch, self._view_revision = update.epoch, update.revision
            self.epoch, self.revision, self.is_complete = update.epoch, update.revision, True
            self._staged_since = None
        if self._staged_since is not None:
            return False
        self.heard_at = now
        return True

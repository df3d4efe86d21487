"""The administrator's grants as a decision point holds them. Pure: changed by the follower, read by decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.access import Grant, Subject

_Key = tuple[str, "Subject"]


class GrantTable:
    """Grants by entitlement and subject. It is changed in place, in the thread that decides.

    Without a word of the administrator for more than `max_age` seconds the table is stale. A grant that ended stays
    until the administrator removes it, so that explanations can name it.
    """

    __slots__ = ("_by_id", "_grants", "_heard_at", "_max_age")

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._heard_at = float("-inf")
        self._grants: dict[_Key, tuple[Grant, ...]] = {}
        self._by_id: dict[str, _Key] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def confirm(self, now: float) -> None:
        """Note that the table was complete at `now`, in seconds since the epoch."""
        self._heard_at = now

    def is_stale(self, now: float) -> bool:
        """Whether nothing was heard of the administrator for too long. A clock that was set back counts as well."""
        return not -self._max_age <= now - self._heard_at <= self._max_age

    def put(self, grant: Grant) -> None:
        """Add a grant, or replace the one of its ID."""
        self.remove(grant.id)
        key = (grant.entitlement, grant.subject)
        self._grants[key] = (*self._grants.get(key, ()), grant)
        self._by_id[grant.id] = key

    def remove(self, grant_id: str) -> None:
        """Remove a grant, if it exists."""
        key = self._by_id.pop(grant_id, None)
        if key is None:
            return
        left = tuple(grant for grant in self._grants[key] if grant.id != grant_id)
        if left:
            self._grants[key] = left
        else:
            del self._grants[key]

    def replace(self, other: GrantTable) -> None:
        """Take the grants of `other`, which must not be used afterwards."""
        self._grants, self._by_id = other._grants, other._by_id

    def find(self, entitlement: str, subjects: Sequence[Subject], now: float) -> Grant | None:
        """The grant of `entitlement` that is active at `now` for one of `subjects` and ends last, or None."""
        best: Grant | None = None
        for grant in self._of(entitlement, subjects):
            if grant.is_active(now) and (best is None or grant.until > best.until):
                best = grant
        return best

    def latest(self, entitlement: str, subjects: Sequence[Subject]) -> Grant | None:
        """The grant that ends or ended last, or None."""
        return max(self._of(entitlement, subjects), key=lambda grant: grant.until, default=None)

    def _of(self, entitlement: str, subjects: Sequence[Subject]) -> list[Grant]:
        return [grant for subject in subjects for grant in self._grants.get((entitlement, subject), ())]

"""Just-in-time access: who may ask for what, and what was granted.

An entitlement is a document. A grant is a document, or was requested and approved through the administrator. Times are
seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.documents import Position

LEAST_GRANT: Final = 60.0
"""The shortest grant that anybody can ask for, in seconds."""


class Subject(NamedTuple):
    """A person or a workload: the subject of an issuer's tokens, or a SPIFFE ID. The other fields are ""."""

    issuer: str = ""
    subject: str = ""
    spiffe_id: str = ""

    def __str__(self) -> str:
        return self.spiffe_id or f"{self.issuer}/{self.subject}"


class Grant(NamedTuple):
    """Access to `entitlement` (`namespace/name`) for `subject` from `start` until before `until`.

    `source` names the document, "" for a grant of the administrator.
    """

    id: str
    entitlement: str
    subject: Subject
    start: float
    until: float
    break_glass: bool = False
    source: str = ""

    def is_active(self, now: float) -> bool:
        """Whether the grant counts at `now`. A grant ends by this comparison; nothing has to run at its end."""
        return self.start <= now < self.until


class GrantView(Protocol):
    """The administrator's grants, received before the request. Look-ups do no I/O."""

    def is_stale(self, now: float) -> bool:
        """Whether the view is older than the settings allow, so that its grants no longer count."""
        ...

    def find(self, entitlement: str, subjects: Sequence[Subject], now: float) -> Grant | None:
        """The grant of `entitlement` that is active at `now` for one of `subjects`, or None. The latest end wins."""
        ...

    def latest(self, entitlement: str, subjects: Sequence[Subject]) -> Grant | None:
        """The grant that ends or ended last, whether active or not, for explanations."""
        ...


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """Access without approval in an emergency, at most for `max_duration`, reviewed within `review_within` seconds."""

    max_duration: float
    review_within: float


@dataclass(frozen=True, slots=True)
class EntitlementTerms:
    """The terms of an `AccessEntitlement`. Durations are in seconds.

    A request lapses if it is undecided for `pending_for`. `approvals` has the number of approvers that each group must
    give; a request needs all of them, all by different people, none by the requester. `max_open` bounds the undecided
    requests and active grants of one requester.
    """

    max_duration: float
    pending_for: float
    reason_required: bool = True
    reason_pattern: str = ""
    approvals: tuple[int, ...] = ()
    break_glass: BreakGlass | None = None
    max_open: int = 10


@dataclass(frozen=True, slots=True)
class GrantDocument:
    """`zta.dev/v1` AccessGrant."""

    name: str
    namespace: str
    position: Position
    grant: Grant

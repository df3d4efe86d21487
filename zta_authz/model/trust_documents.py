"""`zta.dev/v1` TrustModel as written: checked for shape, not yet compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zta_authz.model.documents import Position, Selector
    from zta_authz.model.trust import TrustLevel


@dataclass(frozen=True, slots=True)
class ClaimAge:
    """The time in a claim is less than `below` seconds ago. `claim` is a path into the token's payload."""

    claim: tuple[str, ...]
    below: float


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """Something that takes points from a component, in hundredths.

    What it looks at is one of `condition` (CEL, true where the points are lost), `claim_age`, and `count_claim` (an
    integer; the points are lost for each, at most `most` together). None of the three: a signal that is built in.
    `caps` is the highest level that remains possible while the signal is on, None for any.
    """

    name: str
    position: Position
    points: int
    most: int | None = None
    caps: TrustLevel | None = None
    condition: str | None = None
    claim_age: ClaimAge | None = None
    count_claim: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """One component: its share of the score, and the least score below which the level is DENY.

    `floor` and `assume` are in hundredths. `assume` is the score of a component that the operator does not measure.
    """

    name: str
    weight: int
    floor: int = 0
    assume: int | None = None
    signals: tuple[SignalSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustModelSpec:
    """One TrustModel. `least_scores` has the least score of each level above DENY, in hundredths.

    `sessions` gives the longest session by level and `reverify` the time between two verifications, both in seconds.
    `allowed_countries` are ISO 3166-1 alpha-2 codes. `seed_compatible` averages the resource's class into the score.
    """

    name: str
    namespace: str
    position: Position
    selector: Selector
    components: tuple[ComponentSpec, ...]
    least_scores: Mapping[TrustLevel, int]
    sessions: Mapping[TrustLevel, int]
    reverify: int
    allowed_countries: frozenset[str] = frozenset()
    least_reputation: int = 50
    seed_compatible: bool = False

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

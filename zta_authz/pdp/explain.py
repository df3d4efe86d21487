"""Why a decision came out as it did, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Miss:
    """An ALLOW rule that nearly matched: `failed` says which predicates did not hold and what was seen instead."""

    policy: str
    rule: int
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The decision and, for a denial, the nearest ALLOW rules, nearest first."""

    decision: Decision
    nearest: tuple[Miss, ...] = ()


def explain(snapshot: Snapshot, request: RequestAttributes, evidence: Evidence, now: float) -> Explanation:
    """Decide as `decide` does, on the same core, and say what was missing for the nearest allow."""
    raise NotImplementedError

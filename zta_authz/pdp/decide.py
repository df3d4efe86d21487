"""Deciding one request: pure, total, deny is the fall-through."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zta_authz.model.decision import Decision
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.pdp.snapshot import Snapshot


def decide(snapshot: Snapshot, request: RequestAttributes, evidence: Evidence, now: float) -> Decision:
    """The decision on `request` at `now` (seconds since the epoch). Never raises for what the request holds."""
    raise NotImplementedError

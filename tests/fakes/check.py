"""Fake ports of the data path: they return scripted results, record their calls, and can fail on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.model.facts import NO_FACTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.facts import FactViews
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import CheckEvent, Metadata


class ScriptedDecision:
    """Stands where shadow policies do, and has the last word: `outcome`, raised where it is an exception."""

    def __init__(self, outcome: Decision | Exception) -> None:
        self.outcome = outcome

    def compare(
        self,
        request: RequestAttributes,
        decision: Decision,
        now: float,
        caller: str = "",
        views: FactViews = NO_FACTS,
    ) -> Decision:
        """Return the scripted outcome."""
        del request, decision, now, caller
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class RecordingSink:
    """Stores each record and returns `keeps`, or raises it if it is an exception."""

    def __init__(self, keeps: bool | Exception = True) -> None:
        self.keeps = keeps
        self.records: list[tuple[RequestAttributes | None, Decision, str]] = []
        self.digests: list[str] = []

    def record(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
        table_digest: str = "",
    ) -> bool:
        """Keep the record."""
        del now, metadata
        self.records.append((request, decision, decision_id))
        self.digests.append(table_digest)
        if isinstance(self.keeps, Exception):
            raise self.keeps
        return self.keeps


class RecordingObserver:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[CheckEvent] = []

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """No call is timed."""
        del metadata
        return None

    def observe(self, event: CheckEvent) -> None:
        """Keep the event."""
        self.events.append(event)

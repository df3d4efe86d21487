"""An authorizer that says what it is told to, and an observer that remembers, both easy to make fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.model.decision import Decision
    from zta_authz.model.request import Evidence, RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import CheckEvent, Metadata


class ScriptedAuthorizer:
    """Returns `outcome`, or raises it where it is an exception; `asked` holds what it was asked."""

    def __init__(self, outcome: Decision | BaseException) -> None:
        self.outcome = outcome
        self.asked: list[tuple[RequestAttributes, Evidence, float]] = []
        self.recorded: list[tuple[RequestAttributes | None, Decision, str]] = []
        self.accounts: Decision | Exception | None = None

    async def authorize(
        self,
        request: RequestAttributes,
        evidence: Evidence,
        now: float,
        caller: str = "",
        stages: Stages | None = None,
    ) -> Decision:
        """The scripted outcome."""
        self.asked.append((request, evidence, now))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def account(
        self,
        request: RequestAttributes | None,
        decision: Decision,
        decision_id: str,
        now: float,
        metadata: Metadata = (),
    ) -> Decision:
        """Remember what is answered; give or raise `accounts` instead, where it is set."""
        del now, metadata
        self.recorded.append((request, decision, decision_id))
        if isinstance(self.accounts, Exception):
            raise self.accounts
        return decision if self.accounts is None else self.accounts


class RecordingObserver:
    """Keeps every event; raises `failure` after keeping it, where there is one."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.events: list[CheckEvent] = []
        self._failure = failure

    traces = True

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """No call is timed."""
        del metadata
        return None

    def observe(self, event: CheckEvent) -> None:
        """Keep the event."""
        self.events.append(event)
        if self._failure is not None:
            raise self._failure

"""Plays a story through a running stack and judges each row by the answer and by the decision log."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from envoy.demo.story import BY_ENVOY, DECISION_ID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from envoy.demo.client import Answer
    from envoy.demo.stack import Stack
    from envoy.demo.story import Row

_LOG_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """What the decision log says of one decision; all empty where Envoy answered without asking."""

    policy: str = ""
    rule: int | None = None
    reason: str = BY_ENVOY

    def __str__(self) -> str:
        rule = "" if self.rule is None else f" #{self.rule}"
        return f"{self.policy}{rule}" if self.policy else ""


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row that was played; `faults` say what was not as expected."""

    row: Row
    answer: Answer
    logged: LoggedDecision
    faults: tuple[str, ...] = field(default=())


def _records(log: Path) -> Iterable[dict[str, Any]]:
    for line in log.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a line that is still being written
            continue
        if isinstance(record, dict):
            yield record


def find_decision(log: Path, decision_id: str) -> LoggedDecision:
    """The record of `decision_id`, for which it waits up to five seconds. Raises LookupError if it does not come."""
    deadline = time.monotonic() + _LOG_SECONDS
    while time.monotonic() < deadline:
        for record in _records(log):
            if record.get("decision_id") == decision_id:
                return LoggedDecision(record.get("policy") or "", record.get("rule"), record["reason"])
        time.sleep(0.02)
    raise LookupError(f"decision {decision_id} is not in {log}")


def decision_id(answer: Answer) -> str:
    """The decision's id: in the denied answer, or in what reached the upstream; "" where nobody decided."""
    return answer.headers.get(DECISION_ID) or answer.upstream_header(DECISION_ID) or ""


def judge(row: Row, answer: Answer, logged: LoggedDecision) -> tuple[str, ...]:
    """What is not as the row expects, in words."""
    checks = (
        (answer.status == row.status, f"status {answer.status}, not {row.status}"),
        (logged.reason == row.reason, f"reason {logged.reason}, not {row.reason}"),
        (logged.policy == row.policy, f"policy {logged.policy or 'none'}, not {row.policy or 'none'}"),
        (answer.reached_upstream == (row.status == 200), "reached the upstream, or did not, against expectation"),
    )
    faults = [message for good, message in checks if not good]
    if not faults and answer.reached_upstream and not row.seen(answer):
        faults.append("the upstream was told what it should not be")
    return tuple(faults)


def run_row(stack: Stack, row: Row) -> RowResult:
    """Send one row's request and judge what came of it."""
    answer = stack.send(row.peer, row.full_request(stack.layout))
    identifier = decision_id(answer)
    logged = find_decision(stack.decisions, identifier) if identifier else LoggedDecision()
    return RowResult(row, answer, logged, judge(row, answer, logged))

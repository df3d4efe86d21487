"""Sends the requests of the demo through a running stack, and checks responses and decision log."""

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
IN_FORCE_SECONDS = 1.0
"""What the administrator changes is in force at decision points within this time."""


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """The recorded decision. The defaults mean that Envoy answered without a check."""

    policy: str = ""
    rule: int | None = None
    reason: str = BY_ENVOY

    def __str__(self) -> str:
        rule = "" if self.rule is None else f" #{self.rule}"
        return f"{self.policy}{rule}" if self.policy else ""


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result of one row. `faults` describes the differences from the expectation."""

    row: Row
    answer: Answer
    logged: LoggedDecision
    faults: tuple[str, ...] = field(default=())


def _records(log: Path) -> Iterable[dict[str, Any]]:
    for line in log.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # an incomplete line
            continue
        if isinstance(record, dict):
            yield record


def find_decision(log: Path, decision_id: str) -> LoggedDecision:
    """Wait up to five seconds for the record of `decision_id`. Raises LookupError if it does not appear."""
    deadline = time.monotonic() + _LOG_SECONDS
    while time.monotonic() < deadline:
        for record in _records(log):
            if record.get("decision_id") == decision_id:
                return LoggedDecision(record.get("policy") or "", record.get("rule"), record["reason"])
        time.sleep(0.02)
    raise LookupError(f"decision {decision_id} is not in {log}")


def decision_id(answer: Answer) -> str:
    """Return the id of the decision, from the denial or the echoed request; "" without a decision."""
    return answer.headers.get(DECISION_ID) or answer.upstream_header(DECISION_ID) or ""


def judge(row: Row, answer: Answer, logged: LoggedDecision) -> tuple[str, ...]:
    """Return descriptions of the differences from what the row expects."""
    checks = (
        (answer.status == row.status, f"status {answer.status}, not {row.status}"),
        (logged.reason == row.reason, f"reason {logged.reason}, not {row.reason}"),
        (logged.policy == row.policy, f"policy {logged.policy or 'none'}, not {row.policy or 'none'}"),
        (
            answer.reached_upstream == (row.status == 200),
            "the request reached the upstream unexpectedly, or did not reach it",
        ),
    )
    faults = [message for good, message in checks if not good]
    if not faults and not row.seen(answer):
        faults.append("the upstream received wrong headers" if answer.reached_upstream else "the response is wrong")
    return tuple(faults)


def run_row(stack: Stack, row: Row) -> RowResult:
    """Do what comes before a row, send its request, and check the result."""
    if row.before is None:
        return _run_once(stack, row)
    row.before(stack)
    deadline = time.monotonic() + IN_FORCE_SECONDS
    while (result := _run_once(stack, row)).faults and time.monotonic() < deadline:
        time.sleep(0.02)
    return result


def _run_once(stack: Stack, row: Row) -> RowResult:
    answer = stack.send(row.peer, row.full_request(stack.layout))
    identifier = decision_id(answer)
    logged = find_decision(stack.decisions, identifier) if identifier else LoggedDecision()
    return RowResult(row, answer, logged, judge(row, answer, logged))

"""`zta-authz audit verify` with the access logs of several replicas: none lacks or changes what another one has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.access_logs import NOON, AccessLogFile
from tests.unit.cli.audit.test_references import answer, kinds
from zta_authz.administrator.access_events import EventKind, EventObject
from zta_authz.audit.segments import SegmentedLog

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Replicas:
    """The lines of one log, and logs that were written from them."""

    directory: Path
    lines: list[bytes]

    def write(self, name: str, lines: list[bytes]) -> str:
        """Write a log with a chain of its own, as whoever holds the file can."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        log = SegmentedLog(str(path), max_bytes=1 << 20, max_files=10, checkpoints=None)
        log.write(lines)
        log.close()
        return f"--access-log={path}"

    def verify(self, *others: list[bytes]) -> list[str]:
        """The kinds of findings for a whole log and these others."""
        logs = [self.write(f"{number}.jsonl", lines) for number, lines in enumerate((self.lines, *others))]
        return kinds(answer(*logs))


@pytest.fixture
def replicas(tmp_path: Path) -> Replicas:
    """Six events, of the revisions 1 to 6."""
    log = AccessLogFile(tmp_path / "access.jsonl")
    for number in range(6):
        log.add(EventKind.REVOCATION_ADDED, EventObject("revocation", f"r{number}"), NOON + number)
    log.close()
    content = log.path.read_bytes().splitlines(keepends=True)
    lines = [b"{" + line.partition(b'",')[2] for line in content if b"access-event" in line]
    return Replicas(tmp_path, lines)


def test_equal_logs_have_no_findings(replicas: Replicas) -> None:
    assert replicas.verify(replicas.lines, replicas.lines) == []


def test_a_log_that_lacks_an_event_is_found_though_its_chain_is_right(replicas: Replicas) -> None:
    shorter = [*replicas.lines[:2], *replicas.lines[3:]]
    assert replicas.verify(shorter) == ["event_missing"]


def test_a_log_that_was_written_anew_with_another_event_is_found(replicas: Replicas) -> None:
    changed = [line.replace(b'"r2"', b'"r9"') for line in replicas.lines]
    assert replicas.verify(changed) == ["event_differs"]


def test_an_event_that_only_one_log_has_is_found(replicas: Replicas) -> None:
    invented = replicas.lines[2].replace(b'"event_id":"', b'"event_id":"x')
    assert replicas.verify([*replicas.lines[:3], invented, *replicas.lines[3:]]) == ["event_missing"]


@pytest.mark.parametrize(("first", "last"), [(0, 4), (2, 6), (1, 3)])
def test_a_log_that_begins_later_or_ends_earlier_is_right(replicas: Replicas, first: int, last: int) -> None:
    assert replicas.verify(replicas.lines[first:last]) == []


def test_a_log_that_says_what_it_skipped_is_right(replicas: Replicas) -> None:
    skipped = (
        b'{"schema":"zta.dev/access-event/v1","time":"2023-11-14T22:13:20.000000+00:00","epoch":"%b","revision":3,'
        b'"event_id":"%b","kind":"store.skipped","actor":{},"object":{},"detail":{"from_revision":2,"to_revision":3}}\n'
    ) % (b"e" * 32, b"5" * 32)
    assert replicas.verify([replicas.lines[0], skipped, *replicas.lines[3:]]) == []
    other = skipped.replace(b'"from_revision":2', b'"from_revision":3')
    assert replicas.verify([replicas.lines[0], other, *replicas.lines[3:]]) == ["event_missing"]


def test_logs_of_different_stores_are_not_compared(replicas: Replicas) -> None:
    elsewhere = [line.replace(b"e" * 32, b"d" * 32) for line in replicas.lines[1:]]
    assert replicas.verify(elsewhere) == []

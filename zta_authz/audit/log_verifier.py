"""Verifies decision logs: finds lines that were changed, removed, moved, cut off or recomputed.

The chain alone shows that lines belong together. Only checkpoints show that nobody recomputed it or cut off its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.audit.checkpoints import BadCheckpoint, Checkpoint, read_checkpoint
from zta_authz.audit.hash_chain import GENESIS, Event, Link, digest, read_link
from zta_authz.audit.record import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_FINDINGS: Final = 1000
"""Findings that are kept. Further ones are only counted."""
_UNCHAINED: Final = f'{{"schema":"{SCHEMA}",'.encode()


class FindingKind(StrEnum):
    """The kinds of findings."""

    CHANGED = "changed"  # the line's hash differs from the one in the next line
    UNREADABLE = "unreadable"  # not a record of a chain
    REMOVED = "removed"  # numbers are missing before this line
    MOVED = "moved"  # the line's number is out of order
    UNSEALED = "unsealed"  # a finished segment has no seal, or a seal that does not match
    SEGMENT_MISSING = "segment_missing"
    RECOMPUTED = "recomputed"  # the chain is consistent, but differs from a checkpoint
    CUT = "cut"  # a checkpoint covers lines after the last one
    HEAD_MISSING = "head_missing"  # the first records are missing, and no checkpoint says that retention removed them
    ANOTHER_LOG = "another_log"  # a file or checkpoint belongs to another log
    CHECKPOINT = "checkpoint"  # not signed with the key, or its number is out of order
    GRANT_UNKNOWN = "grant_unknown"  # from here on: what a decision rests on, compared with the access log
    GRANT_NOT_BEGUN = "grant_not_begun"
    GRANT_ENDED = "grant_ended"
    GRANT_DIFFERS = "grant_differs"  # another entitlement, holder or end than in the access log
    REVOCATION_UNKNOWN = "revocation_unknown"
    SIGNAL_UNKNOWN = "signal_unknown"
    EVENT_MISSING = "event_missing"  # the access log of another replica has it
    EVENT_DIFFERS = "event_differs"
    OPERATION_DENIED = "operation_denied"  # the decision that an access event names denies


@dataclass(frozen=True, slots=True)
class Finding:
    """A sign of tampering. `line` counts from 1 and is 0 without a line; `seq` is None without a record."""

    file: str
    line: int
    seq: int | None
    kind: FindingKind
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth knowing that is not a sign of tampering."""

    file: str
    line: int
    message: str


@dataclass(slots=True)
class Report:
    """The result of verification. `findings` has the first `MAX_FINDINGS`; `finding_count` counts all.

    `first_seq` and `last_seq` are None for an empty log. `log` is the log's ID, "" for logs of earlier versions.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    finding_count: int = 0
    decisions: int = 0
    access_events: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    head: str = GENESIS
    checkpoints: int = 0
    log: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return self.finding_count == 0

    def add_finding(self, file: str, line: int, seq: int | None, kind: FindingKind, message: str) -> None:
        """Add a finding."""
        self.finding_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(file, line, seq, kind, message))


@dataclass(slots=True)
class _TornLine:
    """An unreadable line. If the next line says so, a crash left it incomplete."""

    line: int
    data: bytes


class LogVerifier:
    """Verifies segments, oldest first, against checkpoints, which must be read before."""

    def __init__(self, first_record: int = 1) -> None:
        """Start a verification. `first_record` is the first expected record if older ones are kept elsewhere."""
        self.report = Report()
        self._first_record = first_record
        self._first_kept = 0
        self._logs: set[str] = set()
        self._checkpoints: dict[int, list[Checkpoint]] = {}
        self._file, self._line = "", 0
        self._segment = 0
        self._first_in_file = 0
        self._last: Link | None = None
        self._torn: _TornLine | None = None

    def read_checkpoints(self, file: str, lines: Iterable[bytes], key: Ed25519PublicKey) -> None:
        """Read the checkpoints signed with `key`. Other lines become findings."""
        number: int | None = None
        line = 0
        for line, data in enumerate(lines, 1):
            try:
                checkpoint = read_checkpoint(data.rstrip(b"\n"), key)
            except BadCheckpoint as error:
                self.report.add_finding(file, line, None, FindingKind.CHECKPOINT, str(error))
                continue
            if number is not None and checkpoint.number != number + 1:
                message = f"checkpoint {checkpoint.number} follows {number}"
                self.report.add_finding(file, line, checkpoint.seq, FindingKind.CHECKPOINT, message)
            number = checkpoint.number
            self._checkpoints.setdefault(checkpoint.seq, []).append(checkpoint)
            self._first_kept = max(self._first_kept, checkpoint.first_segment)
            self.report.checkpoints += 1
        if not line:
            self.report.add_finding(file, 0, None, FindingKind.CHECKPOINT, "the file has no checkpoint")

    def read_segment(self, file: str, lines: Iterable[bytes]) -> None:
        r"""Verify the chain through a file. `lines` include their `\n`."""
        self._leave_file()
        self._file, self._line, self._first_in_file = file, 0, 0
        for data in lines:
            self._line += 1
            link = read_link(data[:-1]) if data.endswith(b"\n") else None
            if link is None:
                self._resolve_torn(None)
                self._torn = _TornLine(self._line, data)
                continue
            self._resolve_torn(link)
            self._check_link(link)
            self._check_event(link)
            self._accept(link, digest(data[:-1]))

    def finish(self) -> Report:
        """Check the remaining checkpoints and return the report."""
        torn, report = self._torn, self.report
        if torn is not None and not torn.data.endswith(b"\n"):
            report.notes.append(Note(self._file, torn.line, f"a torn line of {len(torn.data)} bytes at the end"))
        else:
            self._resolve_torn(None)
        last = report.last_seq or 0
        self._check_hidden()
        for seq in sorted(self._checkpoints):
            number, log = self._checkpoints[seq][0].number, self._checkpoints[seq][0].log
            if self._logs and log not in self._logs and (log or seq >= (report.first_seq or 0)):
                message = f"checkpoint {number} belongs to the log {log or 'without an ID'}, not to this one"
                report.add_finding(self._file, 0, seq, FindingKind.ANOTHER_LOG, message)
            elif seq > last:
                message = f"the log ends with record {last}, but checkpoint {number} covers record {seq}"
                report.add_finding(self._file, self._line, last, FindingKind.CUT, message)
            elif report.first_seq is not None and seq >= report.first_seq:
                message = f"record {seq}, which checkpoint {number} covers, is missing"
                report.add_finding(self._file, 0, seq, FindingKind.REMOVED, message)
        return report

    def _leave_file(self) -> None:
        """Check that the current segment is finished before the next one."""
        if not self._file:
            return
        self._resolve_torn(None)
        if self._last is None or not (self._last.is_event and self._last.event == Event.SEAL):
            seq = None if self._last is None else self._last.seq
            self.report.add_finding(self._file, self._line, seq, FindingKind.UNSEALED, "it does not end in a seal")

    def _resolve_torn(self, after: Link | None) -> None:
        """Accept an unreadable line if the next line records that a crash left it; otherwise add a finding."""
        torn, self._torn = self._torn, None
        if torn is None:
            return
        data = torn.data.removesuffix(b"\n")
        known = after is not None and after.is_event and after.event == Event.RESUME
        if after is not None and known and (after.torn_bytes, after.torn_sha256) == (len(data), digest(data)):
            self.report.notes.append(
                Note(self._file, torn.line, f"{len(data)} bytes of a torn line, recorded after a crash")
            )
        else:
            self.report.add_finding(self._file, torn.line, None, FindingKind.UNREADABLE, _unreadable(data))

    def _check_link(self, link: Link) -> None:
        """Compare a line with the previous one."""
        report = self.report
        if report.last_seq is None:
            report.first_seq = link.seq
            self._check_beginning(link)
            return
        expected = report.last_seq + 1
        if link.seq < expected:
            message = f"record {link.seq} is in the place of record {expected}"
            report.add_finding(self._file, self._line, link.seq, FindingKind.MOVED, message)
        elif link.seq > expected:
            missing = f"record {expected}" if link.seq == expected + 1 else f"records {expected} to {link.seq - 1}"
            message = f"{missing} missing before record {link.seq}"
            report.add_finding(self._file, self._line, link.seq, FindingKind.REMOVED, message)
        elif link.prev != report.head:
            self._find_change(link)

    def _check_beginning(self, link: Link) -> None:
        """Check that the log starts with its first record, or that a checkpoint shows that retention removed it."""
        if link.seq == 1:
            if link.prev != GENESIS:
                message = "the first record claims to follow another one"
                self.report.add_finding(self._file, self._line, link.seq, FindingKind.CHANGED, message)
        elif link.seq == self._first_record:
            self.report.notes.append(Note(self._file, self._line, f"the log is verified from record {link.seq} on"))
        elif link.event == Event.OPEN and link.is_event and link.segment <= self._first_kept:
            message = (
                f"the log starts with record {link.seq}: retention has removed older ones, as a checkpoint confirms"
            )
            self.report.notes.append(Note(self._file, self._line, message))
        else:
            message = (
                f"the log starts with record {link.seq}, and no checkpoint says that retention removed earlier ones "
                f"(if you keep them elsewhere: --first-record {link.seq})"
            )
            self.report.add_finding(self._file, self._line, link.seq, FindingKind.HEAD_MISSING, message)

    def _check_hidden(self) -> None:
        """Check that no checkpoint covers a record before the first one in a segment that retention kept."""
        report, first = self.report, self.report.first_seq
        if first is None or self._first_record != 1:
            return
        if any(finding.kind is FindingKind.HEAD_MISSING for finding in report.findings):
            return
        earlier = [checkpoint for seq, signed in self._checkpoints.items() if seq < first for checkpoint in signed]
        hidden = [item for item in earlier if item.segment >= self._first_kept > 0 and item.log in self._logs]
        if hidden:
            number, seq = hidden[0].number, hidden[0].seq
            message = (
                f"the log starts with record {first}, but checkpoint {number} covers record {seq}, "
                "which retention has not removed"
            )
            report.add_finding(self._file, 0, first, FindingKind.HEAD_MISSING, message)

    def _find_change(self, link: Link) -> None:
        message = f"record {link.seq - 1} is not the one that record {link.seq} follows: one of the two was changed"
        before = self._line - 1
        if before:
            self.report.add_finding(self._file, before, link.seq - 1, FindingKind.CHANGED, message)
        else:
            self.report.add_finding(self._file, self._line, link.seq, FindingKind.CHANGED, message)

    def _check_event(self, link: Link) -> None:
        """Check what an event says about the log."""
        opens = link.is_event and link.event == Event.OPEN
        if (self._line == 1) != opens:
            message = (
                "it opens a segment in the middle of another" if opens else "the segment's opening line is missing"
            )
            self.report.add_finding(self._file, self._line, link.seq, FindingKind.MOVED, message)
        if opens:
            if self._segment and link.segment != self._segment + 1:
                message = f"segment {link.segment} follows segment {self._segment}"
                self.report.add_finding(self._file, self._line, link.seq, FindingKind.SEGMENT_MISSING, message)
            self._segment, self._first_in_file = link.segment, link.seq
            if not self.report.log:  # logs of earlier versions get their id with the next segment
                self.report.log = link.log
        if link.is_event:
            self._logs.add(link.log)
            if link.log != self.report.log:
                expected = self.report.log or "one without an ID"
                message = f"it belongs to the log {link.log or 'without an ID'}, not to {expected}"
                self.report.add_finding(self._file, self._line, link.seq, FindingKind.ANOTHER_LOG, message)
        elif self._last is not None and self._last.is_event and self._last.event == Event.SEAL:
            self.report.add_finding(
                self._file, self._line, link.seq, FindingKind.MOVED, "it follows the seal of its segment"
            )
        if link.is_event and link.event == Event.SEAL:
            count = link.seq - self._first_in_file
            if (link.count, link.head, link.segment) != (count, link.prev, self._segment):
                self.report.add_finding(
                    self._file, self._line, link.seq, FindingKind.UNSEALED, "its seal does not match the segment"
                )

    def _accept(self, link: Link, head: str) -> None:
        """Compare a line with its checkpoints and continue from it, whatever was wrong, to find more."""
        report = self.report
        for checkpoint in self._checkpoints.pop(link.seq, ()):
            if checkpoint.log not in self._logs:
                which = (
                    "not to this one" if self._logs else "and no line up to here says which log this file belongs to"
                )
                message = (
                    f"checkpoint {checkpoint.number} belongs to the log {checkpoint.log or 'without an ID'}, {which}"
                )
                report.add_finding(self._file, self._line, link.seq, FindingKind.ANOTHER_LOG, message)
            elif checkpoint.head != head:
                message = f"record {link.seq} is not the one that checkpoint {checkpoint.number} covers"
                report.add_finding(self._file, self._line, link.seq, FindingKind.RECOMPUTED, message)
        if link.is_access_event:
            report.access_events += 1
        else:
            report.decisions += not link.is_event
        report.last_seq, report.head = link.seq, head
        self._last = link


def segment_order(first_lines: Sequence[tuple[str, bytes]]) -> list[str]:
    """Sort files by the segment numbers in their first lines. Files without a number come last in the given order."""

    def key(numbered: tuple[int, tuple[str, bytes]]) -> tuple[int, int, int]:
        index, (_, line) = numbered
        link = read_link(line.rstrip(b"\n"))
        if link is None or not link.is_event:
            return (1, 0, index)
        return (0, link.segment, index)

    return [name for _, (name, _) in sorted(enumerate(first_lines), key=key)]


def _unreadable(data: bytes) -> str:
    if data.startswith(_UNCHAINED):
        return "a decision outside of a chain: only `audit.sink: file` writes chains, or someone removed its link"
    return "it is not a record of a decision log"


def logs_of(first_lines: Sequence[tuple[str, bytes]]) -> list[list[tuple[str, bytes]]]:
    """Group files by the log IDs in their first lines. Files without an ID are grouped by name."""
    groups: dict[str, list[tuple[str, bytes]]] = {}
    named: dict[str, str] = {}
    ids = {name: _log_of(line) for name, line in first_lines}
    for name, log in ids.items():
        if log:
            named.setdefault(_base_name(name), log)
    for name, line in first_lines:
        key = ids[name] or named.get(_base_name(name)) or _base_name(name)
        groups.setdefault(key, []).append((name, line))
    return list(groups.values())


def log_id(segments: Sequence[tuple[str, bytes]]) -> str:
    """Return the log ID in the first lines of these segments; "" if none has one."""
    return next((log for _, line in segments if (log := _log_of(line))), "")


def _log_of(first_line: bytes) -> str:
    link = read_link(first_line.rstrip(b"\n"))
    return link.log if link is not None and link.is_event else ""


def _base_name(file: str) -> str:
    """Return the name without a finished segment's number."""
    base, dot, number = file.rpartition(".")
    return base if dot and number.isdigit() else file

"""Whether a decision log is as it was written: what was changed, removed, moved, cut off or computed anew, by line.

A chain alone shows that lines belong together, not that nobody computed it anew or cut its end off; checkpoints do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from zta_authz.audit.chain import GENESIS, Event, Link, digest, read_link
from zta_authz.audit.checkpoints import BadCheckpoint, Checkpoint, read_checkpoint
from zta_authz.audit.record import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_FINDINGS: Final = 1000
"""More are counted, not kept."""
_UNCHAINED: Final = f'{{"schema":"{SCHEMA}",'.encode()


class Kind(StrEnum):
    """What is wrong with a log."""

    CHANGED = "changed"  # its hash is not what the line after it says
    UNREADABLE = "unreadable"  # no record of a chain
    REMOVED = "removed"  # numbers are missing before this line
    MOVED = "moved"  # its number is not in its place
    UNSEALED = "unsealed"  # a segment that another follows has no seal, or one that does not agree
    SEGMENT_MISSING = "segment_missing"
    RECOMPUTED = "recomputed"  # the chain holds together, but a checkpoint saw another
    CUT = "cut"  # a checkpoint saw lines after the last one
    HEAD_MISSING = "head_missing"  # the first records are not there, and no checkpoint says that retention removed them
    ANOTHER_LOG = "another_log"  # a file or checkpoint of one log among those of another
    CHECKPOINT = "checkpoint"  # not signed by the key, or its number is not in its place


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where; `line` counts from 1, 0 where there is none; `seq` is None likewise."""

    file: str
    line: int
    seq: int | None
    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """What is no sign of tampering but should be known."""

    file: str
    line: int
    message: str


@dataclass(slots=True)
class Report:
    """What verification found. `first_seq` and `last_seq` are None for an empty log; `findings` has the first ones.

    `log` is the log's id, "" where it has none (earlier versions gave none).
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    finding_count: int = 0
    decisions: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    head: str = GENESIS
    checkpoints: int = 0
    log: str = ""

    @property
    def ok(self) -> bool:
        """True where nothing is wrong."""
        return self.finding_count == 0

    def find(self, file: str, line: int, seq: int | None, kind: Kind, message: str) -> None:
        """Something is wrong."""
        self.finding_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(file, line, seq, kind, message))


@dataclass(slots=True)
class _Torn:
    """A line that is none, at `line`: a crash may have torn it, if the next one says so."""

    line: int
    data: bytes


class LogVerifier:
    """Reads segments, oldest first, and compares with checkpoints, which are read before."""

    def __init__(self, first_record: int = 1) -> None:
        """`first_record` is the one that the log is known to begin with, where older ones are kept elsewhere."""
        self.report = Report()
        self._first_record = first_record
        self._first_kept = 0
        self._logs: set[str] = set()
        self._checkpoints: dict[int, list[Checkpoint]] = {}
        self._file, self._line = "", 0
        self._segment = 0
        self._first_in_file = 0
        self._last: Link | None = None
        self._torn: _Torn | None = None

    def read_checkpoints(self, file: str, lines: Iterable[bytes], key: Ed25519PublicKey) -> None:
        """Take what `key` signed; what it did not sign is found."""
        number: int | None = None
        line = 0
        for line, data in enumerate(lines, 1):
            try:
                checkpoint = read_checkpoint(data.rstrip(b"\n"), key)
            except BadCheckpoint as error:
                self.report.find(file, line, None, Kind.CHECKPOINT, str(error))
                continue
            if number is not None and checkpoint.number != number + 1:
                told = f"checkpoint {checkpoint.number} follows {number}"
                self.report.find(file, line, checkpoint.seq, Kind.CHECKPOINT, told)
            number = checkpoint.number
            self._checkpoints.setdefault(checkpoint.seq, []).append(checkpoint)
            self._first_kept = max(self._first_kept, checkpoint.first_segment)
            self.report.checkpoints += 1
        if not line:
            self.report.find(file, 0, None, Kind.CHECKPOINT, "there is no checkpoint")

    def read_segment(self, file: str, lines: Iterable[bytes]) -> None:
        r"""Follow the chain through a file; `lines` come with their `\n`."""
        self._leave_file()
        self._file, self._line, self._first_in_file = file, 0, 0
        for data in lines:
            self._line += 1
            link = read_link(data[:-1]) if data.endswith(b"\n") else None
            if link is None:
                self._settle_torn(None)
                self._torn = _Torn(self._line, data)
                continue
            self._settle_torn(link)
            self._follow(link)
            self._check_event(link)
            self._accept(link, digest(data[:-1]))

    def finish(self) -> Report:
        """Nothing follows: what checkpoints say beyond, and the report."""
        torn, report = self._torn, self.report
        if torn is not None and not torn.data.endswith(b"\n"):
            report.notes.append(Note(self._file, torn.line, f"a torn line of {len(torn.data)} bytes at the end"))
        else:
            self._settle_torn(None)
        last = report.last_seq or 0
        self._check_hidden()
        for seq in sorted(self._checkpoints):
            number, log = self._checkpoints[seq][0].number, self._checkpoints[seq][0].log
            if self._logs and log not in self._logs and (log or seq >= (report.first_seq or 0)):
                told = f"checkpoint {number} is of the log {log or 'without an id'}, not of this one"
                report.find(self._file, 0, seq, Kind.ANOTHER_LOG, told)
            elif seq > last:
                told = f"the log ends with record {last}, but checkpoint {number} saw record {seq}"
                report.find(self._file, self._line, last, Kind.CUT, told)
            elif report.first_seq is not None and seq >= report.first_seq:
                told = f"record {seq}, which checkpoint {number} saw, is not there"
                report.find(self._file, 0, seq, Kind.REMOVED, told)
        return report

    def _leave_file(self) -> None:
        """Another segment follows: this one must have been finished."""
        if not self._file:
            return
        self._settle_torn(None)
        if self._last is None or not (self._last.is_event and self._last.event == Event.SEAL):
            seq = None if self._last is None else self._last.seq
            self.report.find(self._file, self._line, seq, Kind.UNSEALED, "it does not end in a seal")

    def _settle_torn(self, after: Link | None) -> None:
        """A broken line is a crash's if the next one knows it, else somebody's."""
        torn, self._torn = self._torn, None
        if torn is None:
            return
        data = torn.data.removesuffix(b"\n")
        known = after is not None and after.is_event and after.event == Event.RESUME
        if after is not None and known and (after.torn_bytes, after.torn_sha256) == (len(data), digest(data)):
            self.report.notes.append(Note(self._file, torn.line, f"{len(data)} bytes torn by a crash, as recorded"))
        else:
            self.report.find(self._file, torn.line, None, Kind.UNREADABLE, _unreadable(data))

    def _follow(self, link: Link) -> None:
        """Compare a line with the one before it."""
        report = self.report
        if report.last_seq is None:
            report.first_seq = link.seq
            self._check_beginning(link)
            return
        expected = report.last_seq + 1
        if link.seq < expected:
            told = f"record {link.seq} stands where record {expected} belongs"
            report.find(self._file, self._line, link.seq, Kind.MOVED, told)
        elif link.seq > expected:
            missing = f"record {expected}" if link.seq == expected + 1 else f"records {expected} to {link.seq - 1}"
            told = f"{missing} missing before record {link.seq}"
            report.find(self._file, self._line, link.seq, Kind.REMOVED, told)
        elif link.prev != report.head:
            self._find_change(link)

    def _check_beginning(self, link: Link) -> None:
        """The log begins with its first record, unless retention has removed that, as only a checkpoint can show."""
        if link.seq == 1:
            if link.prev != GENESIS:
                told = "the first record follows another, which it can't"
                self.report.find(self._file, self._line, link.seq, Kind.CHANGED, told)
        elif link.seq == self._first_record:
            self.report.notes.append(Note(self._file, self._line, f"the log is read from record {link.seq} on"))
        elif link.event == Event.OPEN and link.is_event and link.segment <= self._first_kept:
            told = f"the log begins with record {link.seq}: retention has removed older ones, as a checkpoint says"
            self.report.notes.append(Note(self._file, self._line, told))
        else:
            told = (
                f"the log begins with record {link.seq}, and no checkpoint says that retention removed those before "
                f"(if you have them elsewhere: --first-record {link.seq})"
            )
            self.report.find(self._file, self._line, link.seq, Kind.HEAD_MISSING, told)

    def _check_hidden(self) -> None:
        """No checkpoint saw a record before the first one in a segment that retention has kept."""
        report, first = self.report, self.report.first_seq
        if first is None or self._first_record != 1 or any(each.kind is Kind.HEAD_MISSING for each in report.findings):
            return
        seen = [each for seq, signed in self._checkpoints.items() if seq < first for each in signed]
        hidden = [each for each in seen if each.segment >= self._first_kept > 0 and each.log in self._logs]
        if hidden:
            told = f"the log begins with record {first}, but checkpoint {hidden[0].number} saw record {hidden[0].seq}"
            report.find(self._file, 0, first, Kind.HEAD_MISSING, f"{told}, which retention has not removed")

    def _find_change(self, link: Link) -> None:
        told = f"record {link.seq - 1} is not the one that record {link.seq} follows: one of the two was changed"
        before = self._line - 1
        if before:
            self.report.find(self._file, before, link.seq - 1, Kind.CHANGED, told)
        else:
            self.report.find(self._file, self._line, link.seq, Kind.CHANGED, told)

    def _check_event(self, link: Link) -> None:
        """What a line says about the log must be so."""
        opens = link.is_event and link.event == Event.OPEN
        if (self._line == 1) != opens:
            told = "it opens a segment in the middle of one" if opens else "it should open the segment"
            self.report.find(self._file, self._line, link.seq, Kind.MOVED, told)
        if opens:
            if self._segment and link.segment != self._segment + 1:
                told = f"segment {link.segment} follows segment {self._segment}"
                self.report.find(self._file, self._line, link.seq, Kind.SEGMENT_MISSING, told)
            self._segment, self._first_in_file = link.segment, link.seq
            if not self.report.log:  # logs of earlier versions get their id with the next segment
                self.report.log = link.log
        if link.is_event:
            self._logs.add(link.log)
            if link.log != self.report.log:
                told = (
                    f"it is of the log {link.log or 'without an id'}, not of {self.report.log or 'one without an id'}"
                )
                self.report.find(self._file, self._line, link.seq, Kind.ANOTHER_LOG, told)
        elif self._last is not None and self._last.is_event and self._last.event == Event.SEAL:
            self.report.find(self._file, self._line, link.seq, Kind.MOVED, "it stands after the seal of its segment")
        if link.is_event and link.event == Event.SEAL:
            count = link.seq - self._first_in_file
            if (link.count, link.head, link.segment) != (count, link.prev, self._segment):
                self.report.find(self._file, self._line, link.seq, Kind.UNSEALED, "its seal does not agree with it")

    def _accept(self, link: Link, head: str) -> None:
        """Go on from this line, whatever was wrong with it, to find what else is."""
        report = self.report
        for checkpoint in self._checkpoints.pop(link.seq, ()):
            if checkpoint.log not in self._logs:
                which = "not of this one" if self._logs else "and no line up to here says of which log this file is"
                told = f"checkpoint {checkpoint.number} is of the log {checkpoint.log or 'without an id'}, {which}"
                report.find(self._file, self._line, link.seq, Kind.ANOTHER_LOG, told)
            elif checkpoint.head != head:
                told = f"record {link.seq} is not the one that checkpoint {checkpoint.number} saw"
                report.find(self._file, self._line, link.seq, Kind.RECOMPUTED, told)
        report.decisions += not link.is_event
        report.last_seq, report.head = link.seq, head
        self._last = link


def segment_order(first_lines: Sequence[tuple[str, bytes]]) -> list[str]:
    """Files in the order of their segments, which their first lines tell; those that tell none come last, as given."""

    def key(numbered: tuple[int, tuple[str, bytes]]) -> tuple[int, int, int]:
        index, (_, line) = numbered
        link = read_link(line.rstrip(b"\n"))
        if link is None or not link.is_event:
            return (1, 0, index)
        return (0, link.segment, index)

    return [name for _, (name, _) in sorted(enumerate(first_lines), key=key)]


def _unreadable(data: bytes) -> str:
    if data.startswith(_UNCHAINED):
        return "a decision without its place in a chain: only `audit.sink: file` makes chains, or it was taken out"
    return "it is no record of a decision log"


def logs_of(first_lines: Sequence[tuple[str, bytes]]) -> list[list[tuple[str, bytes]]]:
    """Files by the logs that they are of, which their first lines name; those that name none go by their names."""
    found: dict[str, list[tuple[str, bytes]]] = {}
    named: dict[str, str] = {}
    ids = {name: _log_of(line) for name, line in first_lines}
    for name, log in ids.items():
        if log:
            named.setdefault(_base_name(name), log)
    for name, line in first_lines:
        key = ids[name] or named.get(_base_name(name)) or _base_name(name)
        found.setdefault(key, []).append((name, line))
    return list(found.values())


def log_id(segments: Sequence[tuple[str, bytes]]) -> str:
    """The id of the log that these files are of, by their first lines; "" where none says."""
    return next((log for _, line in segments if (log := _log_of(line))), "")


def _log_of(first_line: bytes) -> str:
    link = read_link(first_line.rstrip(b"\n"))
    return link.log if link is not None and link.is_event else ""


def _base_name(file: str) -> str:
    """The name without a finished segment's number."""
    base, dot, number = file.rpartition(".")
    return base if dot and number.isdigit() else file

"""Every way to tamper with a log is found and reported with its line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.audit_logs import (
    KEY,
    OTHER_KEY,
    open_log,
    read_lines,
    recompute,
    record_line,
    segments,
    verify,
    write_log,
)
from zta_authz.audit.checkpoints import CHECKPOINT_SCHEMA, Checkpoint, sign_checkpoint
from zta_authz.audit.hash_chain import GENESIS, Event, Position, append, digest, event_line, read_link
from zta_authz.audit.log_verifier import MAX_FINDINGS, FindingKind, LogVerifier, logs_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from zta_authz.audit.log_verifier import Report

Lines = list[bytes]


def kinds(report: Report) -> list[tuple[int, FindingKind]]:
    return [(finding.line, finding.kind) for finding in report.findings]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of one file: an opening line and ten decisions, signed at its end (record 11)."""
    write_log(tmp_path, 10, signed=True)
    return tmp_path


def tamper(directory: Path, change: Callable[[Lines], Lines]) -> None:
    file = directory / "decisions.jsonl"
    file.write_bytes(b"".join(change(read_lines(file))))


def test_an_unchanged_log_has_no_findings(log: Path) -> None:
    report = verify(log, signed=True)
    assert (report.ok, report.notes, report.findings) == (True, [], [])
    assert (report.decisions, report.first_seq, report.last_seq, report.checkpoints) == (10, 1, 11, 1)
    assert report.head == digest(read_lines(log / "decisions.jsonl")[-1].rstrip(b"\n"))


def test_without_the_opening_line_the_log_is_called_unknown_and_not_another_one(log: Path) -> None:
    tamper(log, lambda lines: lines[2:])
    report = verify(log, signed=True)
    messages = {finding.kind: finding.message for finding in report.findings}
    assert messages[FindingKind.ANOTHER_LOG].endswith(", and no line up to here says which log this file belongs to")
    assert not report.ok


def test_a_log_without_an_id_is_described_in_full_words(tmp_path: Path) -> None:
    write_log(tmp_path, 30, max_bytes=2048)
    first = segments(tmp_path)[0]
    first.write_bytes(b"".join(read_lines(first)[2:]))
    findings = verify(tmp_path, files=[first]).findings
    (message,) = [finding.message for finding in findings if finding.kind is FindingKind.ANOTHER_LOG]
    assert message.endswith(", not to one without an ID")


def test_a_changed_line_is_named(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:4], lines[4].replace(b'"deny"', b'"allow"'), *lines[5:]])
    assert kinds(verify(log)) == [(5, FindingKind.CHANGED)]


def test_a_changed_last_line_is_found_by_a_checkpoint(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:-1], lines[-1].replace(b'"deny"', b'"allow"')])
    assert verify(log).ok
    assert kinds(verify(log, signed=True)) == [(11, FindingKind.RECOMPUTED)]


def test_a_removed_line_is_named(log: Path) -> None:
    tamper(log, lambda lines: lines[:4] + lines[5:])
    report = verify(log)
    assert kinds(report) == [(5, FindingKind.REMOVED)]
    assert "record 5 missing before record 6" in report.findings[0].message


def test_reordered_lines_are_found(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:4], lines[5], lines[4], *lines[6:]])
    assert (6, FindingKind.MOVED) in kinds(verify(log))


def test_a_duplicated_line_is_found(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:5], lines[4], *lines[5:]])
    assert (6, FindingKind.MOVED) in kinds(verify(log))


def test_an_unreadable_line_is_found(log: Path) -> None:
    tamper(log, lambda lines: [*lines[:4], b"nothing happened\n", *lines[5:]])
    assert (5, FindingKind.UNREADABLE) in kinds(verify(log))


def test_decisions_outside_of_a_chain_are_named(tmp_path: Path) -> None:
    """`audit.sink: stdout` writes such lines; here they are in a file of the same name."""
    (tmp_path / "decisions.jsonl").write_bytes(b'{"schema":"zta.dev/decision/v1","verdict":"allow"}\n')
    report = verify(tmp_path)
    assert kinds(report) == [(1, FindingKind.UNREADABLE)]
    assert "only `audit.sink: file` writes chains" in report.findings[0].message


def test_a_cut_end_is_found_by_the_checkpoint_that_covers_it(log: Path) -> None:
    tamper(log, lambda lines: lines[:-2])
    assert verify(log).ok
    report = verify(log, signed=True)
    assert kinds(report) == [(9, FindingKind.CUT)]
    assert "checkpoint 1 covers record 11" in report.findings[0].message


def test_an_emptied_log_is_reported_as_cut(log: Path) -> None:
    tamper(log, lambda _: [])
    assert [kind for _, kind in kinds(verify(log, signed=True))] == [FindingKind.CUT]


def test_a_recomputed_chain_is_found_by_a_checkpoint(log: Path) -> None:
    def forge(lines: Lines) -> Lines:
        return [recompute([*lines[:4], lines[4].replace(b'"deny"', b'"allow"'), *lines[5:]])]

    tamper(log, forge)
    assert verify(log).ok
    assert kinds(verify(log, signed=True)) == [(11, FindingKind.RECOMPUTED)]


def test_a_recomputed_chain_with_a_removed_line_is_found_by_a_checkpoint(log: Path) -> None:
    tamper(log, lambda lines: [recompute(lines[:4] + lines[5:])])
    assert verify(log).ok
    assert [kind for _, kind in kinds(verify(log, signed=True))] == [FindingKind.CUT]


def test_a_recomputed_chain_does_not_pass_with_checkpoints_of_another_key(log: Path) -> None:
    tamper(log, lambda lines: [recompute(lines[:5])])
    head = digest(read_lines(log / "decisions.jsonl")[-1].rstrip(b"\n"))
    forged = Checkpoint(CHECKPOINT_SCHEMA, 1, "2026-01-01T00:00:00+00:00", 1, 5, head)
    (log / "checkpoints.jsonl").write_bytes(sign_checkpoint(forged, OTHER_KEY))
    assert kinds(verify(log, signed=True)) == [(1, FindingKind.CHECKPOINT)]


def test_a_missing_checkpoint_and_an_empty_checkpoint_file_are_found(tmp_path: Path) -> None:
    for _ in range(3):
        write_log(tmp_path, 1, signed=True)
    file = tmp_path / "checkpoints.jsonl"
    lines = read_lines(file)
    assert verify(tmp_path, signed=True).ok
    file.write_bytes(lines[0] + lines[2])
    assert kinds(verify(tmp_path, signed=True)) == [(2, FindingKind.CHECKPOINT)]
    file.write_bytes(b"")
    assert kinds(verify(tmp_path, signed=True)) == [(0, FindingKind.CHECKPOINT)]


def test_a_changed_checkpoint_is_found(log: Path) -> None:
    file = log / "checkpoints.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"seq":11', b'"seq":10'))
    assert kinds(verify(log, signed=True)) == [(1, FindingKind.CHECKPOINT)]


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """A log of several files."""
    write_log(tmp_path, 40, max_bytes=8192, signed=True)
    assert len(segments(tmp_path)) >= 4
    return tmp_path


def test_files_are_one_chain_in_whatever_order_they_are_given(rotated: Path) -> None:
    report = verify(rotated, files=list(reversed(segments(rotated))), signed=True)
    assert (report.ok, report.notes, report.decisions) == (True, [], 40)


def test_a_missing_file_is_found(rotated: Path) -> None:
    files = segments(rotated)
    found_kinds = {kind for _, kind in kinds(verify(rotated, files=[files[0], *files[2:]]))}
    assert found_kinds == {FindingKind.SEGMENT_MISSING, FindingKind.REMOVED}


@pytest.mark.parametrize("signed", [False, True])
def test_a_missing_head_is_found_unless_a_checkpoint_says_that_retention_removed_it(
    rotated: Path, signed: bool
) -> None:
    files = segments(rotated)
    assert kinds(verify(rotated, files=files[1:], signed=signed)) == [(1, FindingKind.HEAD_MISSING)]
    tail = read_lines(files[0])[3:]
    files[0].write_bytes(b"".join(tail))
    found_kinds = {kind for _, kind in kinds(verify(rotated, signed=signed))}
    assert FindingKind.HEAD_MISSING in found_kinds


@pytest.mark.parametrize("max_files", [2, 100])
def test_a_forged_beginning_can_not_hide_a_record_that_a_checkpoint_covers(tmp_path: Path, max_files: int) -> None:
    """With and without retention: only lines since the last checkpoint can be forged."""
    written = open_log(tmp_path, max_bytes=4096, max_files=max_files, signed=True)
    for number in range(40):
        written.write([record_line(number)])
    written.close()
    last = read_link(read_lines(tmp_path / "decisions.jsonl")[-1].rstrip(b"\n"))
    opened = read_link(read_lines(segments(tmp_path)[0])[0].rstrip(b"\n"))
    assert last is not None
    assert opened is not None
    forged = event_line(Event.OPEN, opened.segment, 0.0, previous_file=None, log=opened.log)
    lines = append(Position(last.seq, GENESIS), forged, record_line(1))[1]
    verifier = LogVerifier()
    verifier.read_checkpoints("c", read_lines(tmp_path / "checkpoints.jsonl"), KEY.public_key())
    verifier.read_segment("a", lines.splitlines(keepends=True))
    assert [finding.kind for finding in verifier.finish().findings] == [FindingKind.HEAD_MISSING]
    assert verify(tmp_path, signed=True).ok  # as it was written


def test_a_missing_head_that_is_kept_elsewhere_is_not_a_finding(rotated: Path) -> None:
    lines = read_lines(segments(rotated)[1])
    first = json.loads(lines[0])["seq"]
    for known, ok in ((first, True), (first - 1, False)):
        verifier = LogVerifier(first_record=known)
        verifier.read_segment("a", lines)
        assert verifier.finish().ok is ok


def test_a_log_or_checkpoints_of_another_worker_are_found(tmp_path: Path) -> None:
    """This holds even if all of the other's checkpoints cover records before the first present one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name, 30, max_bytes=4096, signed=True)
    one, two = segments(tmp_path / "one"), segments(tmp_path / "two")
    for files in (two, two[-1:]):
        report = verify(tmp_path / "one", files=files, signed=True)
        assert FindingKind.ANOTHER_LOG in {finding.kind for finding in report.findings}
    mixed = verify(tmp_path / "one", files=[one[0], *two[1:]])
    assert FindingKind.ANOTHER_LOG in {finding.kind for finding in mixed.findings}


def test_files_are_grouped_by_log(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_log(tmp_path / name, 20, max_bytes=4096)
    firsts = [
        (f"{name}/{file.name}", read_lines(file)[0]) for name in ("one", "two") for file in segments(tmp_path / name)
    ]
    logs = logs_of(sorted(firsts, key=lambda first: first[0].partition("/")[2]))
    assert sorted({name.partition("/")[0] for name, _ in log} for log in logs) == [{"one"}, {"two"}]
    assert logs_of([("a.1", b"{}"), ("b", b""), ("a", b"")]) == [[("a.1", b"{}"), ("a", b"")], [("b", b"")]]


def test_a_missing_newest_file_is_found_by_a_checkpoint(rotated: Path) -> None:
    files = segments(rotated)
    assert verify(rotated, files=files[:-1]).ok
    assert [kind for _, kind in kinds(verify(rotated, files=files[:-1], signed=True))] == [FindingKind.CUT]


def test_a_missing_seal_is_found(rotated: Path) -> None:
    file = segments(rotated)[0]
    file.write_bytes(b"".join(read_lines(file)[:-1]))
    assert {kind for _, kind in kinds(verify(rotated))} == {FindingKind.UNSEALED, FindingKind.REMOVED}


def test_a_seal_that_does_not_match_is_found(rotated: Path) -> None:
    file = segments(rotated)[0]
    lines = read_lines(file)
    file.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b'"count":', b'"count":1')]))
    assert FindingKind.UNSEALED in {kind for _, kind in kinds(verify(rotated))}


def test_a_line_after_the_seal_is_found(rotated: Path) -> None:
    file = segments(rotated)[0]
    file.write_bytes(file.read_bytes() + read_lines(file)[1])
    assert FindingKind.MOVED in {kind for _, kind in kinds(verify(rotated))}


def test_findings_are_limited_and_counted() -> None:
    verifier = LogVerifier()
    verifier.read_segment("a", [b"x\n"] * (MAX_FINDINGS + 5))
    report = verifier.finish()
    assert len(report.findings) == MAX_FINDINGS
    assert report.finding_count == MAX_FINDINGS + 5


@given(st.lists(st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=6))
def test_arbitrary_content_is_verified_without_an_exception(lines: list[bytes]) -> None:
    verifier = LogVerifier()
    verifier.read_checkpoints("c", lines, KEY.public_key())
    verifier.read_segment("a", lines)
    assert not verifier.finish().ok


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_signed_log_can_be_changed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("log")
    write_log(directory, 3, signed=True)
    file = directory / "decisions.jsonl"
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    assert not verify(directory, signed=True).ok

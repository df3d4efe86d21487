"""Files of the decision log: one chain through rotation, restarts and crashes."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit_logs import KEY, open_log, read_lines, record_line, segments, verify, write_log
from zta_authz.audit.checkpoints import CheckpointWriter
from zta_authz.audit.hash_chain import GENESIS, Event, Position, append, digest, event_line
from zta_authz.audit.log_verifier import FindingKind
from zta_authz.audit.segments import SegmentedLog

if TYPE_CHECKING:
    from pathlib import Path


def events(directory: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for file in segments(directory) for line in read_lines(file) if line.endswith(b"}\n")]
    return [line for line in lines if "event" in line]


def test_each_line_has_the_hash_of_the_previous_one(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    head = GENESIS
    for number, line in enumerate(read_lines(tmp_path / "decisions.jsonl"), 1):
        parsed = json.loads(line)
        assert (parsed["seq"], parsed["prev"]) == (number, head)
        head = digest(line[:-1])


def test_a_full_file_is_sealed_and_the_next_one_continues_the_chain(tmp_path: Path) -> None:
    write_log(tmp_path, 20, max_bytes=4096)
    log_events = events(tmp_path)
    assert [event["event"] for event in log_events[:3]] == ["open", "seal", "open"]
    opened, sealed, following = log_events[:3]
    assert opened["previous_file"] is None
    assert following["previous_file"] == "decisions.jsonl.00000001"
    first = read_lines(segments(tmp_path)[0])
    assert sealed["count"] == len(first) - 1
    assert sealed["head"] == digest(first[-2][:-1])
    assert following["prev"] == digest(first[-1][:-1])
    assert verify(tmp_path).decisions == 20


def test_the_number_of_finished_files_is_limited(tmp_path: Path) -> None:
    log = open_log(tmp_path, max_bytes=4096, max_files=2, signed=True)
    for number in range(40):
        log.write([record_line(number)])
    log.close()
    assert len(segments(tmp_path)) == 3
    report = verify(tmp_path, signed=True)
    assert report.ok
    assert "retention has removed older ones" in report.notes[0].message
    assert {finding.kind for finding in verify(tmp_path).findings} == {FindingKind.HEAD_MISSING}


def test_files_removed_beyond_retention_are_missing_even_after_restarts(tmp_path: Path) -> None:
    def write(count: int) -> None:
        log = open_log(tmp_path, max_bytes=4096, max_files=4, signed=True)
        for number in range(count):
            log.write([record_line(number)])
        log.close()

    write(40)
    for file in segments(tmp_path)[:2]:
        file.unlink()
    write(1)  # a restart signs for nothing that it finds missing
    assert [finding.kind for finding in verify(tmp_path, signed=True).findings] == [FindingKind.HEAD_MISSING]
    write(40)  # and retention has removed that now
    assert verify(tmp_path, signed=True).ok


def test_a_log_keeps_its_id_across_restarts_and_files(tmp_path: Path) -> None:
    for _ in range(3):
        log = open_log(tmp_path, max_bytes=2048)
        for number in range(5):
            log.write([record_line(number)])
        log.close()
    log_events = events(tmp_path)
    assert len(log_events) > 5
    assert len({event["log"] for event in log_events}) == 1
    assert len(log_events[0]["log"]) == 32
    other = tmp_path / "other"
    other.mkdir()
    write_log(other, 1)
    assert json.loads(read_lines(other / "decisions.jsonl")[0])["log"] != log_events[0]["log"]


def test_a_log_without_an_id_gets_one_with_its_next_file(tmp_path: Path) -> None:
    """Earlier versions wrote logs without an ID."""
    first, position = b"", Position()
    opened = event_line(Event.OPEN, 1, 0.0, previous_file=None)
    for line in (opened, *map(record_line, range(12))):
        position, linked = append(position, line)
        first += linked
    (tmp_path / "decisions.jsonl").write_bytes(first)
    log = open_log(tmp_path, max_bytes=2048, signed=True)
    for number in range(12):
        log.write([record_line(number)])
    log.close()
    assert len(segments(tmp_path)) > 2
    report = verify(tmp_path, signed=True)
    assert (report.findings, len(report.log)) == ([], 32)


def test_a_log_that_was_replaced_or_cut_while_the_service_was_down_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path, 3, signed=True)
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(b"".join(read_lines(file)[:2]))
    open_log(tmp_path, signed=True).close()
    assert "it was cut" in caplog.text
    file.unlink()
    open_log(tmp_path, signed=True).close()
    assert "was it replaced" in caplog.text


def test_a_restart_continues_the_chain(tmp_path: Path) -> None:
    for _ in range(3):
        write_log(tmp_path, 2)
    report = verify(tmp_path)
    assert (report.ok, report.decisions, report.notes) == (True, 6, [])
    assert [event["event"] for event in events(tmp_path)] == ["open", "resume", "resume"]


def test_a_seal_counts_the_lines_of_all_processes_that_wrote_the_file(tmp_path: Path) -> None:
    for _ in range(4):
        write_log(tmp_path, 3, max_bytes=8192)
    assert len(segments(tmp_path)) > 1
    assert verify(tmp_path).ok


@pytest.mark.parametrize("torn", [b'{"seq":4,"prev":"', b"{", b"\x00" * 500])
def test_a_line_torn_by_a_crash_is_recorded_and_the_chain_continues(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path, 2)
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(file.read_bytes() + torn)
    before = verify(tmp_path)
    assert before.ok
    assert f"a torn line of {len(torn)} bytes" in before.notes[0].message
    with caplog.at_level(logging.WARNING):
        write_log(tmp_path, 2)
    assert f"torn line of {len(torn)} bytes" in caplog.text
    report = verify(tmp_path)
    assert (report.ok, report.decisions) == (True, 4)
    assert [note.line for note in report.notes] == [4]
    assert events(tmp_path)[1]["torn_bytes"] == len(torn)


def test_a_torn_line_can_not_be_changed_afterwards(tmp_path: Path) -> None:
    write_log(tmp_path, 2)
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(file.read_bytes() + b'{"seq":4,"pr')
    write_log(tmp_path, 2)
    file.write_bytes(file.read_bytes().replace(b'{"seq":4,"pr\n', b'{"seq":4,"pp\n'))
    assert not verify(tmp_path).ok


def test_a_torn_opening_line_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "decisions.jsonl").write_bytes(b'{"seq":1,"pre')
    write_log(tmp_path, 1)
    assert verify(tmp_path).ok


@pytest.mark.parametrize("crash", ["before the rename", "before the next file"])
def test_a_rotation_that_a_crash_interrupted_is_finished(tmp_path: Path, crash: str) -> None:
    write_log(tmp_path, 20, max_bytes=4096)
    files = segments(tmp_path)
    files[-1].unlink()
    if crash == "before the rename":
        files[-2].rename(tmp_path / "decisions.jsonl")
    write_log(tmp_path, 2)
    report = verify(tmp_path)
    assert report.ok
    assert [file.name for file in segments(tmp_path)] == [file.name for file in files]


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b'{"verdict":"allow"}\n', b"x" * 2_000_000])
def test_a_file_that_is_not_a_chain_is_not_changed(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(content)
    with pytest.raises(OSError, match="move it away"):
        open_log(tmp_path)
    assert file.read_bytes() == content


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with pytest.raises(OSError, match="another process"):
        open_log(tmp_path)
    log.close()
    open_log(tmp_path).close()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "decisions.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_log(tmp_path)
    assert target.read_bytes() == b""


def test_files_are_not_readable_by_everyone(tmp_path: Path) -> None:
    write_log(tmp_path, 20, max_bytes=4096, signed=True)
    assert {stat.S_IMODE(file.stat().st_mode) & 0o027 for file in tmp_path.iterdir()} == {0}


def test_written_records_are_on_disk_within_the_flush_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    log = SegmentedLog(str(tmp_path / "decisions.jsonl"), flush_seconds=0.05)
    monkeypatch.setattr("zta_authz.audit.segments.os.fsync", flushed.append)
    assert log.seconds_until_due() is None
    log.write([record_line(0)])
    log.run_due_work()
    assert flushed == []
    seconds_until_due = log.seconds_until_due()
    assert seconds_until_due is not None
    assert seconds_until_due <= 0.05
    time.sleep(0.06)
    log.run_due_work()
    assert len(flushed) == 1
    assert log.seconds_until_due() is None
    log.close()


def test_a_failing_flush_is_reported_and_retried_after_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    checkpoints = CheckpointWriter(str(tmp_path / "checkpoints.jsonl"), KEY, 0.1)
    log = SegmentedLog(str(tmp_path / "decisions.jsonl"), flush_seconds=0.5, checkpoints=checkpoints)
    log.write([record_line(0)])
    time.sleep(0.11)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr("zta_authz.audit.segments.os.fsync", fail)
        log.run_due_work()
    assert "can't be flushed: Input/output error" in caplog.text
    assert (tmp_path / "checkpoints.jsonl").read_bytes() == b""
    seconds_until_due = log.seconds_until_due()
    assert seconds_until_due is not None
    assert seconds_until_due > 0.05
    log.close()
    assert verify(tmp_path, signed=True).checkpoints == 1


def test_checkpoints_are_signed_while_records_are_written_and_at_the_end(tmp_path: Path) -> None:
    checkpoints = CheckpointWriter(str(tmp_path / "checkpoints.jsonl"), KEY, 0.05)
    log = SegmentedLog(str(tmp_path / "decisions.jsonl"), checkpoints=checkpoints)
    for number in range(3):
        log.write([record_line(number)])
        time.sleep(0.06)
        log.run_due_work()
    log.run_due_work()
    log.write([record_line(3)])
    log.close()
    checkpoints = [json.loads(line) for line in read_lines(tmp_path / "checkpoints.jsonl")]
    assert [(checkpoint["number"], checkpoint["seq"]) for checkpoint in checkpoints] == [(1, 2), (2, 3), (3, 4), (4, 5)]
    assert verify(tmp_path, signed=True).ok


def test_the_lock_is_released_if_the_log_can_not_be_opened(tmp_path: Path) -> None:
    (tmp_path / "decisions.jsonl").write_bytes(b"hello\n")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="move it away"):
        open_log(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_failing_disk_is_reported_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(tmp_path, signed=True)
    assert log.failing == ""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("zta_authz.audit.segments.os.fsync", fail)
        log.write([record_line(1)])
        log._sign()
    assert log.failing == "Input/output error"
    log._sign()
    assert log.failing == ""
    log.close()

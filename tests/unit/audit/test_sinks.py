"""Sinks: they never block, and report every record that they could not keep."""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.audit import sinks
from zta_authz.audit.hash_chain import EVENT_SCHEMA
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.outputs import PlainOutput
from zta_authz.audit.record import MAX_TEXT_CHARACTERS
from zta_authz.audit.segments import SegmentedLog
from zta_authz.audit.sinks import ENCODE_BATCH, WRITE_BATCH, LineSink, NullSink, OnFull
from zta_authz.model.decision import Shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zta_authz.model.decision import Decision
    from zta_authz.model.request import RequestAttributes

REQUEST = attributes()


def record(sink: LineSink | NullSink, decision: Decision, request: RequestAttributes = REQUEST) -> bool:
    return sink.record(request, decision, DECISION_ID, 0.0)


def file_sink(path: Path) -> LineSink:
    return LineSink(SegmentedLog(str(path)))


def decisions(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file without the log's events and without the chain's fields."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = [line for line in lines if line["schema"] != EVENT_SCHEMA]
    return [{name: value for name, value in line.items() if name not in ("seq", "prev")} for line in records]


@pytest.fixture
def stuck_pipe() -> Iterator[tuple[int, int]]:
    """Create a full pipe that nobody reads: (read end, write end). The sink owns the write end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield reader, writer
    os.close(reader)


def wait_until_stuck(sink: LineSink) -> None:
    """Let the writer thread block on one record."""
    record(sink, deny())
    wait_for(lambda: not sink.queued)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_record_is_a_line_of_the_file_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = file_sink(path)
    assert all(record(sink, decision) for decision in [allow(), deny()] * 500)
    sink.close()
    verdicts = [item["verdict"] for item in decisions(path)]
    assert verdicts == ["allow", "deny"] * 500
    assert (sink.written, sink.dropped) == (1000, 0)


def test_a_file_is_appended_to_and_not_readable_by_everyone(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    for _ in range(2):
        sink = file_sink(path)
        record(sink, deny())
        sink.close()
    assert len(decisions(path)) == 2
    assert not stat.S_IMODE(path.stat().st_mode) & 0o007


def test_records_appear_without_closing(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = file_sink(path)
    record(sink, allow())
    wait_for(lambda: bool(decisions(path)))
    assert path.read_bytes().endswith(b"\n")
    sink.close()


def test_a_file_that_can_not_be_opened_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SegmentedLog(str(tmp_path / "missing" / "decisions.jsonl"))


def test_standard_output_gets_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    sink = LineSink(PlainOutput(os.dup(1)))
    record(sink, allow())
    sink.close()
    assert json.loads(capfd.readouterr().out)["decision_id"] == DECISION_ID


def test_a_full_queue_refuses_without_blocking(stuck_pipe: tuple[int, int]) -> None:
    reader, writer = stuck_pipe
    sink = LineSink(PlainOutput(writer), capacity=8)
    wait_until_stuck(sink)
    started = time.monotonic()
    kept = [record(sink, allow()) for _ in range(12)]
    assert time.monotonic() - started < 1
    assert kept == [True] * 8 + [False] * 4
    assert sink.dropped == 4
    drain(reader, sink)


def test_a_stalled_reader_shows_in_the_age_of_the_oldest_record(stuck_pipe: tuple[int, int]) -> None:
    reader, writer = stuck_pipe
    sink = LineSink(PlainOutput(writer), capacity=8)
    assert sink.oldest_unwritten is None
    wait_until_stuck(sink)
    oldest = sink.oldest_unwritten
    assert oldest is not None
    record(sink, allow())
    assert sink.oldest_unwritten == oldest
    assert sink.failing == ""
    drain(reader, sink)
    assert sink.oldest_unwritten is None


def test_a_full_disk_is_reported_while_it_lasts() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    sink = LineSink(PlainOutput(descriptor))
    assert sink.failing == ""
    record(sink, allow())
    wait_for(lambda: bool(sink.failing))
    assert (sink.failing, sink.oldest_unwritten is not None) == ("No space left on device", True)
    room = os.open(os.devnull, os.O_WRONLY)
    os.dup2(room, descriptor)
    os.close(room)
    wait_for(lambda: sink.written == 1)
    assert (sink.failing, sink.oldest_unwritten) == ("", None)
    sink.close()


def test_denials_leave_capacity_for_allows(stuck_pipe: tuple[int, int]) -> None:
    reader, writer = stuck_pipe
    sink = LineSink(PlainOutput(writer), capacity=8)
    wait_until_stuck(sink)
    assert [record(sink, deny()) for _ in range(8)] == [True] * 6 + [False] * 2
    assert [record(sink, allow()) for _ in range(3)] == [True, True, False]
    drain(reader, sink)


def test_long_records_fill_the_queue_by_bytes(stuck_pipe: tuple[int, int]) -> None:
    reader, writer = stuck_pipe
    endless = replace(REQUEST, path="/" * 1_000_000, host="h" * 1_000_000)
    sink = LineSink(PlainOutput(writer), max_bytes=100_000)
    wait_until_stuck(sink)
    kept = [record(sink, deny(), endless) for _ in range(100)]
    assert 13 <= kept.count(True) <= 18  # of 75,000 bytes
    assert record(sink, allow(), endless) is True
    assert [record(sink, allow(), endless) for _ in range(10)][-1] is False
    assert not sink._pending  # a long one does not wait for others: its request would be kept whole
    assert sum(map(len, (line for lines in sink._lines for line in lines))) < 105_000
    drain(reader, sink)
    assert sink._queued_bytes == sink._done_bytes


@pytest.mark.parametrize("where", ["method", "path", "host", "request_id", "detail", "traceparent"])
def test_a_record_with_long_texts_is_encoded_at_once(tmp_path: Path, where: str) -> None:
    endless = "x" * (MAX_TEXT_CHARACTERS + 1)
    request = attributes(traceparent=endless) if where == "traceparent" else attributes()
    if where in request.__struct_fields__:
        request = replace(request, **{where: endless})
    sink = file_sink(tmp_path / "decisions.jsonl")
    record(sink, replace(deny(), detail=endless) if where == "detail" else deny(), request)
    assert not sink._pending
    record(sink, deny())
    assert sink._pending
    sink.close()


@pytest.mark.parametrize("records", [ENCODE_BATCH - 1, ENCODE_BATCH, ENCODE_BATCH + 1, 5 * WRITE_BATCH + 7])
def test_records_are_written_in_order_however_many_arrive_at_once(tmp_path: Path, records: int) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = file_sink(path)
    ids = [f"{number:032x}" for number in range(records)]
    for decision_id in ids:
        sink.record(REQUEST, allow(), decision_id, 0.0)
    sink.close()
    assert [item["decision_id"] for item in decisions(path)] == ids
    assert (sink.written, sink.queued, sink.dropped) == (records, 0, 0)


def test_no_record_is_lost_or_reordered_while_both_threads_encode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_BATCH_SECONDS", 0.0)  # the writer makes lines all the time
    monkeypatch.setattr(sinks, "ENCODE_BATCH", 3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        path = tmp_path / "decisions.jsonl"
        sink = file_sink(path)
        ids = [f"{number:032x}" for number in range(5000)]
        for decision_id in ids:
            assert sink.record(REQUEST, allow(), decision_id, 0.0)
        sink.close()
    finally:
        sys.setswitchinterval(interval)
    assert [item["decision_id"] for item in decisions(path)] == ids
    assert (sink.written, sink.queued, sink.dropped) == (5000, 0, 0)


def test_a_record_that_can_not_be_encoded_leaves_a_stub_and_the_writer_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = file_sink(path)
    with caplog.at_level(logging.ERROR):
        sink.record(REQUEST, allow(), DECISION_ID, float("inf"))  # no clock says so
        assert record(sink, deny())
        sink.close()
    lines = decisions(path)
    assert lines[0] == {
        "schema": "zta.dev/decision/v1",
        "decision_id": DECISION_ID,
        "verdict": "allow",
        "reason": "allow_policy",
        "detail": "the record could not be made",
    }
    assert lines[1]["verdict"] == "deny"
    assert "can't be encoded: OverflowError" in caplog.text


def test_the_writer_survives_a_record_without_even_a_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "decisions.jsonl"

    def fail(_: object) -> bytes:
        raise MemoryError

    sink = file_sink(path)
    with monkeypatch.context() as broken:
        broken.setattr(sink, "_encode", fail)
        broken.setattr(sinks, "stub_line", fail)
        record(sink, deny())
        wait_for(lambda: sink.dropped == 1)
    assert record(sink, allow())
    sink.close()
    assert [item["verdict"] for item in decisions(path)] == ["allow"]
    assert (sink.written, sink.queued, sink.dropped) == (1, 0, 1)


def test_an_operator_may_choose_to_drop_and_count(stuck_pipe: tuple[int, int]) -> None:
    reader, writer = stuck_pipe
    sink = LineSink(PlainOutput(writer), capacity=4, on_full=OnFull.DROP_AND_COUNT)
    wait_until_stuck(sink)
    assert all(record(sink, allow()) for _ in range(10))
    assert sink.dropped == 6
    drain(reader, sink)


def test_a_failing_write_is_retried_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real, failures = os.write, iter([OSError(28, "No space left on device")] * 2)

    def write(descriptor: int, data: bytes) -> int:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return real(descriptor, data[:100])  # and then piece by piece

    monkeypatch.setattr("zta_authz.audit.outputs.os.write", write)
    path = tmp_path / "decisions.jsonl"
    with caplog.at_level(logging.ERROR):
        sink = file_sink(path)
        assert record(sink, allow())
        sink.close()
    assert [item["verdict"] for item in decisions(path)] == ["allow"]
    assert [entry.getMessage() for entry in caplog.records] == [
        "the log decisions.jsonl can't be written: No space left on device"
    ]


def test_a_closed_sink_refuses(tmp_path: Path) -> None:
    sink = file_sink(tmp_path / "decisions.jsonl")
    sink.close()
    assert record(sink, allow()) is False


def test_closing_gives_up_on_a_stuck_reader_and_reports_the_loss(
    stuck_pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = stuck_pipe
    monkeypatch.setattr("zta_authz.audit.sinks._CLOSE_SECONDS", 0.05)
    sink = LineSink(PlainOutput(writer))
    wait_until_stuck(sink)
    record(sink, allow())
    with caplog.at_level(logging.ERROR):
        sink.close()
    assert "1 are lost" in caplog.text
    drain(reader, sink)


def test_the_null_sink_refuses_nothing() -> None:
    sink = NullSink()
    assert record(sink, allow()) is True
    sink.close()
    assert (sink.queued, sink.dropped) == (0, 0)


def drain(reader: int, sink: LineSink) -> None:
    """Let the writer finish, so that no thread outlives the test."""
    stop = threading.Event()
    os.set_blocking(reader, False)

    def read() -> None:
        while not stop.wait(0.001):
            try:
                os.read(reader, 1 << 16)
            except BlockingIOError:
                continue

    thread = threading.Thread(target=read)
    thread.start()
    sink.close()
    sink._thread.join(5)
    stop.set()
    thread.join()
    assert not sink._thread.is_alive()


def test_a_share_of_allows_is_kept_by_id_and_all_denials(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = LineSink(SegmentedLog(str(path)), sample_allows=0.25)
    watched = replace(allow(), shadows=(Shadow("AUDIT", "default/watch", 0, dry_run=False),))
    ids = [f"{number:02x}" + "0" * 30 for number in range(256)]
    for decision_id in ids:
        assert sink.record(REQUEST, allow(), decision_id, 0.0)
    for decision in (deny(), watched):
        assert sink.record(REQUEST, decision, "ff" * 16, 0.0)
    sink.close()
    kept = [item["decision_id"] for item in decisions(path)]
    assert kept == [*ids[:64], "ff" * 16, "ff" * 16]
    assert (sink.unsampled, sink.dropped) == (192, 0)


@pytest.mark.parametrize(("share", "kept"), [(1.0, True), (0.0, False)])
def test_all_or_no_allows_can_be_kept(tmp_path: Path, share: float, kept: bool) -> None:
    sink = LineSink(SegmentedLog(str(tmp_path / "decisions.jsonl")), sample_allows=share)
    sink.record(REQUEST, allow(), "f" * 32, 0.0)
    sink.record(REQUEST, allow(), "0" * 32, 0.0)
    sink.close()
    assert sink.written == (2 if kept else 0)


def test_the_share_of_allows_can_change_at_run_time() -> None:
    reader, writer = os.pipe()
    sink = LineSink(PlainOutput(writer), sample_allows=0.0)
    for share in (0.0, 1.0, 0.5):
        sink.sample(share)
        sink.record(REQUEST, allow(), "c" + "0" * 31, 0.0)
    sink.close()
    os.close(reader)
    assert (sink.written, sink.unsampled) == (1, 2)


def test_the_record_names_the_rules_in_force_when_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = file_sink(path)
    for digest in ("a" * 64, "b" * 64):
        sink.record(REQUEST, deny(), DECISION_ID, 0.0, (), digest)
    sink.close()
    assert [item["table_digest"] for item in decisions(path)] == ["a" * 64, "b" * 64]
    assert all(item["latency_us"] > 0 for item in decisions(path))


def test_masked_fields_never_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    masker = Masker([MaskRule(Maskable.PATH, MaskAction.DROP)])
    sink = LineSink(SegmentedLog(str(path)), masker=masker)
    record(sink, allow(), replace(REQUEST, path="/patients/7"))
    sink.close()
    assert b"patients" not in path.read_bytes()

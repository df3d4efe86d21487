"""The decision log to a collector: records arrive once and in order; records that are not accepted wait or are counted."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest

from tests.support.check_requests import DECISION_ID, allow, attributes, deny
from zta_authz.audit import collector
from zta_authz.audit.collector import CollectorOutput, log_entry
from zta_authz.audit.masking import Maskable, MaskAction, Masker, MaskRule
from zta_authz.audit.record import encode_line, make_record, stub_line
from zta_authz.audit.sinks import LineSink, OnFull, capture
from zta_authz.otlp.messages import ExportResult, ExportStatus, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.otlp.messages import LogEntry

ACCEPTED = ExportResult(ExportStatus.ACCEPTED)
RETRYABLE = ExportResult(ExportStatus.RETRYABLE, detail="UNAVAILABLE")
TRACE = "c" * 32


class FakeExport:
    """Returns `answers` in turn, then repeats the last; keeps accepted entries. Blocks while `open` is unset."""

    def __init__(self, *answers: ExportResult) -> None:
        self.answers = deque(answers or (ACCEPTED,))
        self.encoded: dict[bytes, LogEntry] = {}
        self.tries: list[tuple[int, float]] = []
        self.taken: list[LogEntry] = []
        self.asked = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.closed = False

    def encode(self, entry: LogEntry) -> bytes:
        if "odd" in entry.body:
            raise ValueError
        self.encoded[encoded := entry.body.encode()] = entry
        return encoded

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        self.asked.set()
        self.open.wait(20)
        self.tries.append((len(entries), seconds))
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if answer.status is ExportStatus.ACCEPTED:
            self.taken.extend(self.encoded[entry] for entry in entries)
        return answer

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(collector, "MAX_PAUSE_SECONDS", 0.02)


def line(decision_id: str = DECISION_ID, **headers: str) -> bytes:
    return encode_line(make_record(capture(attributes(**headers), allow(), decision_id, 1_700_000_000.25)))


def wait_for(reached: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_entry_has_the_line_and_attributes_for_queries() -> None:
    written = line(traceparent=f"00-{TRACE}-{'d' * 16}-01")
    entry = log_entry(written, traced=True)
    assert entry.body == written.decode().rstrip("\n")
    assert entry.time_ns == 1_700_000_000_250_000_000
    assert (entry.severity, entry.event) == (Severity.INFO, "zta.decision")
    assert (entry.trace_id, entry.span_id) == (TRACE, DECISION_ID[16:])
    assert dict(entry.attributes) == {
        "zta.decision_id": DECISION_ID,
        "zta.verdict": "allow",
        "zta.reason": "allow_policy",
        "zta.policy": "default/hatshop-policy",
        "zta.rule": 0,
        "zta.principal": "spiffe://cluster.local/ns/default/sa/frontend",
        "http.request.method": "GET",
        "url.path": "/orders/7",
    }


@pytest.mark.parametrize(("traced", "ids"), [(True, (DECISION_ID, DECISION_ID[16:])), (False, ("", ""))])
def test_without_a_trace_of_the_request_the_ids_are_those_of_the_checks_span(
    traced: bool, ids: tuple[str, str]
) -> None:
    entry = log_entry(line(), traced=traced)
    assert (entry.trace_id, entry.span_id) == ids


def test_a_denial_is_a_warning_and_so_is_a_record_that_could_not_be_made() -> None:
    note = capture(attributes(), deny(), DECISION_ID, 5.0)
    assert log_entry(encode_line(make_record(note))).severity is Severity.WARN
    stub = log_entry(stub_line(note), now=7.0)
    assert (stub.severity, stub.time_ns) == (Severity.WARN, 7_000_000_000)
    assert dict(stub.attributes)["zta.reason"] == "deny_policy"


def test_masked_fields_are_masked_in_attributes_too_and_neither_has_the_query() -> None:
    export = FakeExport()
    masker = Masker([MaskRule(Maskable.PATH, MaskAction.DROP), MaskRule(Maskable.PRINCIPAL, MaskAction.TRUNCATE)])
    sink = LineSink(CollectorOutput(export), masker=masker)
    assert sink.record(attributes(authorization="Bearer secret"), allow(), DECISION_ID, 0.0)
    sink.close()
    [entry] = export.taken
    assert "url.path" not in dict(entry.attributes)
    assert dict(entry.attributes)["zta.principal"] == json.loads(entry.body)["principal"] == "spiffe:/..."
    assert "secret" not in str(entry)


def test_batches_are_limited_in_records_bytes_and_age() -> None:
    export = FakeExport()
    output = CollectorOutput(export)
    output.write([line()] * (collector.BATCH_RECORDS + 3))
    assert export.tries == [(collector.BATCH_RECORDS, collector.TRY_SECONDS)]
    assert 0 < (output.seconds_until_due() or 0) <= collector.BATCH_SECONDS
    output.run_due_work()
    assert len(export.tries) == 1
    time.sleep(collector.BATCH_SECONDS)
    output.run_due_work()
    assert export.tries[1][0] == 3
    assert output.seconds_until_due() is None
    long = line()[:-2] + b',"more":"' + b"x" * (collector.BATCH_BYTES // 2) + b'"}\n'
    output.write([long] * 3)
    assert [records for records, _ in export.tries] == [collector.BATCH_RECORDS, 3, 2]
    output.close()
    assert export.tries[-1][0] == 1
    assert export.closed


def test_a_batch_is_sent_again_until_it_is_accepted_and_the_outage_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    export = FakeExport(RETRYABLE, RETRYABLE, ExportResult(ExportStatus.RETRYABLE, after=0.3), ACCEPTED)
    output = CollectorOutput(export)
    began = time.monotonic()
    output.write([line()])
    assert output.held_since is not None
    closing = threading.Thread(target=output.close)
    closing.start()
    while not output.failing:
        time.sleep(0.001)
    assert output.held_since is not None
    closing.join()
    assert (output.failing, output.held_since) == ("", None)
    assert time.monotonic() - began >= 0.3
    assert (len(export.tries), len(export.taken), output.lost) == (4, 1, 0)
    assert [record.getMessage() for record in caplog.records] == [
        "the collector takes no decision records, they wait: UNAVAILABLE",
        "the collector takes decision records again",
    ]


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        (ExportResult(ExportStatus.INVALID, detail="HTTP 400"), 3),
        (ExportResult(ExportStatus.ACCEPTED, 2, "too old"), 2),
    ],
)
def test_records_that_the_collector_calls_invalid_count_as_dropped(
    answer: ExportResult, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    sink = LineSink(CollectorOutput(FakeExport(answer)))
    for _ in range(3):
        sink.record(attributes(), allow(), DECISION_ID, 0.0)
    sink.close()
    assert sink.dropped == lost
    assert answer.detail in caplog.text


def test_a_bug_in_sending_loses_only_its_batch() -> None:
    class Broken(FakeExport):
        def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
            if not self.tries:
                self.tries.append((0, 0))
                raise ValueError
            return super().export(entries, seconds)

    export = Broken()
    output = CollectorOutput(export)
    output.write([line()] * collector.BATCH_RECORDS * 2)
    output.write([b"{\n", line(odd="x").replace(b"GET", b"odd")])
    output.close()
    assert (output.lost, len(export.taken)) == (collector.BATCH_RECORDS + 2, collector.BATCH_RECORDS)


@pytest.mark.parametrize("on_full", OnFull)
def test_during_an_outage_the_queue_fills_up_and_on_full_applies(on_full: OnFull) -> None:
    export = FakeExport(*[RETRYABLE] * 5, ACCEPTED)
    export.open.clear()
    sink = LineSink(CollectorOutput(export), capacity=8, on_full=on_full)
    assert sink.record(attributes(), allow(), f"{0:032x}", 0.0)
    wait_for(export.asked.is_set)
    answers = [sink.record(attributes(), allow(), f"{number:032x}", 0.0) for number in range(1, 11)]
    assert answers == [True] * 8 + [on_full is OnFull.DROP_AND_COUNT] * 2
    assert sink.dropped == 2
    assert sink.record(attributes(), deny(), f"{11:032x}", 0.0) is (on_full is OnFull.DROP_AND_COUNT)
    export.open.set()
    wait_for(lambda: not sink.queued)
    assert sink.record(attributes(), allow(), f"{12:032x}", 0.0)
    sink.close()
    ids = [int(str(dict(entry.attributes)["zta.decision_id"]), 16) for entry in export.taken]
    assert ids == [*range(9), 12]
    assert sink.dropped == 3


def test_hurry_ends_the_wait_for_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.audit.sinks._HURRY_SECONDS", 0.2)
    output = CollectorOutput(FakeExport(RETRYABLE))
    sink = LineSink(output)
    assert sink.record(attributes(), allow(), DECISION_ID, 0.0)
    threading.Timer(0.3, sink.hurry).start()
    began = time.monotonic()
    sink.close(20)
    assert time.monotonic() - began < 3
    assert sink.dropped == 1


def test_closing_waits_for_a_collector_only_until_its_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zta_authz.audit.sinks._CLOSE_SECONDS", 0.3)
    back, gone = FakeExport(RETRYABLE, RETRYABLE, RETRYABLE, ACCEPTED), FakeExport(RETRYABLE)
    for export, lost in ((back, 0), (gone, 1)):
        output = CollectorOutput(export)
        sink = LineSink(output)
        assert sink.record(attributes(), allow(), DECISION_ID, 0.0)
        time.sleep(0.1)
        began = time.monotonic()
        sink.close(1.0)
        assert time.monotonic() - began < 2
        assert (output.lost, sink.dropped, export.closed) == (lost, lost, True)
        assert not sink.record(attributes(), allow(), DECISION_ID, 0.0)
    assert len(back.taken) == 1

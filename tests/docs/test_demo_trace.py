"""The demo stores its spans and prints them as a tree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from envoy.demo import trace
from envoy.demo.spans import SpanFile

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def written(root: Path, decision: str, spans: list[dict[str, Any]]) -> None:
    """A demo's directory after one decision."""
    (root / trace.DECISIONS).write_text(json.dumps({"decision_id": decision}) + "\n")
    (root / trace.SPANS).write_text("".join(json.dumps(span) + "\n" for span in spans))


def span(name: str, parent: str, start: int, decision: str = "") -> dict[str, Any]:
    own = {"zta.decision_id": decision, "zta.verdict": "deny"} if decision else {}
    events = [{"name": "zta.match", "zta.duration_ns": 61_000}] if decision else []
    return {
        "trace": "t1",
        "span": name,
        "parent": parent,
        "service": "s",
        "name": name,
        "start": start,
        "ms": 1.5,
        "attributes": own,
        "events": events,
    }


def test_a_span_that_is_exported_is_kept_with_its_attributes_and_events(tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    with SpanFile(file) as collector:
        provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(collector.endpoint, insecure=True)))
        with (
            provider.get_tracer("t").start_as_current_span("outer"),
            provider.get_tracer("t").start_span("inner") as it,
        ):
            it.set_attributes({"zta.rule": 3, "zta.verdict": "allow"})
            it.add_event("zta.parse", {"zta.duration_ns": 5})
        provider.shutdown()
    inner, outer = (json.loads(line) for line in file.read_text().splitlines())
    assert (inner["service"], inner["name"], outer["name"]) == ("shop", "inner", "outer")
    assert inner["attributes"] == {"zta.rule": 3, "zta.verdict": "allow"}
    assert inner["events"] == [{"name": "zta.parse", "zta.duration_ns": 5}]
    assert (inner["trace"], inner["parent"], outer["parent"]) == (outer["trace"], outer["span"], "")


def test_children_stand_below_their_parents_in_the_order_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(
        tmp_path, "d1", [span("check", "ask", 3, "d1"), span("late", "in", 9), span("ask", "in", 2), span("in", "", 1)]
    )
    monkeypatch.setenv("DEMO_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["trace"])
    assert trace.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "trace t1",
        "  s: in  1.50 ms",
        "    s: ask  1.50 ms",
        "      s: check  1.50 ms  verdict=deny",
        "        - zta.match  0.061 ms",
        "    s: late  1.50 ms",
    ]


def test_a_trace_whose_parents_have_not_come_yet_is_waited_for(tmp_path: Path) -> None:
    spans = [span("check", "ask", 3, "d1"), span("ask", "in", 2), span("in", "", 1)]
    written(tmp_path, "d1", spans[:1])
    assert trace.spans_of(tmp_path, "d1") == []
    written(tmp_path, "d1", spans)
    assert len(trace.spans_of(tmp_path, "d1")) == 3


def test_a_decision_that_nobody_traced_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEMO_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["trace", "d2"])
    monkeypatch.setattr(trace, "_WAIT_SECONDS", 0.0)
    assert trace.main() == 1
    assert "d2" in capsys.readouterr().err

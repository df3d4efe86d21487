"""The observer with a collector: spans are sent if an endpoint is configured, and an outage has no effect on checks."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.support.check_requests import DECISION_ID, allow, attributes
from tests.support.spans import RESOURCE
from zta_authz.otlp.exporters import Exporter, open_exporter
from zta_authz.otlp.messages import Signal, Target
from zta_authz.ports import CheckEvent
from zta_authz.telemetry.observer import TIMED_CALLS, TelemetryObserver, build_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.otlp.messages import Protocol

EVENT = CheckEvent((), attributes(), allow(), DECISION_ID, 1_000_000, 2_000_000)


def exporter_to(endpoint: str, protocol: Protocol) -> Exporter:
    return open_exporter(Target(endpoint, protocol, seconds=1.0), Signal.TRACES)


def check(observer: TelemetryObserver) -> None:
    observer.observe(msgspec.structs.replace(EVENT, stages=observer.begin(EVENT.metadata)))


class Collector(HTTPServer):
    """Accepts OTLP over HTTP and keeps the bodies."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append((self.path, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_closing_sends_the_spans_that_are_queued(collector: Collector) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    observer = build_observer(resource=RESOURCE, exporter=exporter_to(endpoint, "http"))
    assert observer.traces
    check(observer)
    observer.close()
    [(path, body)] = collector.bodies
    assert path == "/v1/traces"
    assert DECISION_ID.encode() in body
    assert b"secret" not in body


def test_a_sample_ratio_of_zero_sends_nothing(collector: Collector) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    observer = build_observer(resource=RESOURCE, exporter=exporter_to(endpoint, "http"), sample_ratio=0.0)
    check(observer)
    observer.close()
    assert collector.bodies == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_collector_that_is_down_has_no_effect_on_checks(protocol: Protocol) -> None:
    observer = build_observer(resource=RESOURCE, exporter=exporter_to("http://127.0.0.1:1", protocol))
    check(observer)
    observer.close()
    assert b'zta_decisions_total{reason="allow_policy",verdict="allow"} 1.0' in observer.metrics.render()


def test_without_tracing_one_of_many_calls_is_timed() -> None:
    observer = build_observer()
    timed = [observer.begin(()) is not None for _ in range(3 * TIMED_CALLS)]
    assert [number for number, stages in enumerate(timed) if stages] == [0, TIMED_CALLS, 2 * TIMED_CALLS]


def test_the_share_of_traced_calls_can_change_at_run_time(collector: Collector) -> None:
    exporter = exporter_to(f"http://127.0.0.1:{collector.server_port}", "http")
    observer = build_observer(resource=RESOURCE, exporter=exporter, sample_ratio=0.0)
    check(observer)
    observer.sample(1.0)
    check(observer)
    observer.close()
    assert sum(body.count(DECISION_ID.encode()) for _, body in collector.bodies) == 1
    assert b"zta_spans_exported_total 1.0" in observer.metrics.render()


def test_a_failure_of_telemetry_is_counted_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    observer = build_observer()
    observer.observe(msgspec.structs.replace(EVENT, decision=None))
    check(observer)
    assert observer.errors == 1
    assert b"zta_observer_errors_total 1.0" in observer.metrics.render()
    assert "AttributeError" in caplog.text


def test_a_call_whose_sampling_fails_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise RuntimeError

    monkeypatch.setattr("zta_authz.telemetry.sampling.Sampling.samples", fail)
    observer = build_observer(resource=RESOURCE, exporter=exporter_to("http://127.0.0.1:9/", "http"))
    try:
        assert observer.begin(()) is None
        assert observer.errors == 1
    finally:
        observer.hurry()
        observer.close()

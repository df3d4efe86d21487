"""The observer with a collector: spans leave when an endpoint is configured, and a collector that is gone harms nothing."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.support.check_requests import DECISION_ID, allow, attributes
from zta_authz.ports import CheckEvent
from zta_authz.telemetry import spans
from zta_authz.telemetry.observer import build_observer

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT = CheckEvent((), attributes(), allow(), DECISION_ID, 1_000_000, 2_000_000)


class Collector(HTTPServer):
    """Takes OTLP over HTTP and keeps the bodies."""

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
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    observer = build_observer(otlp_endpoint=endpoint, otlp_protocol="http")
    assert observer.traces
    observer.observe(EVENT)
    observer.close()
    [(path, body)] = collector.bodies
    assert path == "/v1/traces"
    assert DECISION_ID.encode() in body
    assert b"secret" not in body


def test_a_sample_ratio_of_nothing_sends_nothing(collector: Collector) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
    observer = build_observer(otlp_endpoint=endpoint, otlp_protocol="http", sample_ratio=0.0)
    observer.observe(EVENT)
    observer.close()
    assert collector.bodies == []


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_collector_that_is_gone_harms_nothing(protocol: spans.Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "EXPORT_SECONDS", 1)
    observer = build_observer(otlp_endpoint="http://127.0.0.1:1", otlp_protocol=protocol)
    observer.observe(EVENT)
    observer.close()
    assert b'zta_decisions_total{reason="allow_policy",verdict="allow"} 1.0' in observer.metrics.render()

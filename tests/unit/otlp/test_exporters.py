"""The SDK's exporters with real collectors, over gRPC and HTTP: retries, time limits and recorded replies."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from tests.support.collector import Collector, HttpCollector, Refusal
from zta_authz.otlp.exporters import Exporter, open_exporter
from zta_authz.otlp.messages import ExportResult, ExportStatus, Signal, Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zta_authz.otlp.messages import Compression, Protocol

HEADERS = (("authorization", "Bearer secret"),)
SPANS = [
    ReadableSpan(
        "s",
        SpanContext(1, number, is_remote=False),
        resource=Resource({"service.name": "zta-authz"}),
        start_time=1,
        end_time=2,
    )
    for number in (1, 2)
]
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    name: Protocol = request.param
    return name


@pytest.fixture
def collector(protocol: Protocol) -> Iterator[Collector | HttpCollector]:
    with Collector() if protocol == "grpc" else HttpCollector() as started:
        yield started


@pytest.fixture
def exporter(collector: Collector, protocol: Protocol) -> Iterator[Exporter]:
    opened = open_exporter(Target(collector.endpoint, protocol, HEADERS), Signal.TRACES)
    yield opened
    opened.shutdown()


def test_spans_arrive_with_the_configured_credentials(collector: Collector, exporter: Exporter) -> None:
    assert exporter.export(SPANS, 2) == ExportResult(ExportStatus.ACCEPTED)
    assert [(name, span.name) for name, span in collector.spans] == [("zta-authz", "s")] * 2
    assert collector.headers[0]["authorization"] == "Bearer secret"


def test_a_retryable_request_is_sent_again_after_a_pause(collector: Collector, exporter: Exporter) -> None:
    collector.refusals.append(Refusal())
    began = time.monotonic()
    assert exporter.export(SPANS, 2).status is ExportStatus.ACCEPTED
    assert 0.7 < time.monotonic() - began < 4
    assert len(collector.headers) == 2


def test_a_pause_longer_than_the_remaining_time_is_not_started(collector: Collector, protocol: Protocol) -> None:
    for _ in range(2):
        collector.refusals.append(Refusal(grpc.StatusCode.UNAVAILABLE, 503, 3600))
    exporter = open_exporter(Target(collector.endpoint, protocol, seconds=0.5), Signal.TRACES)
    began = time.monotonic()
    assert exporter.export(SPANS, 2) == ExportResult(
        ExportStatus.RETRYABLE, detail="UNAVAILABLE" if protocol == "grpc" else "HTTP 503"
    )
    assert time.monotonic() - began < 3
    assert len(collector.headers) == 1
    exporter.shutdown()


def test_an_invalid_request_is_not_sent_again(collector: Collector, exporter: Exporter) -> None:
    collector.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400))
    assert exporter.export(SPANS, 2).status is ExportStatus.RETRYABLE
    assert len(collector.headers) == 1


def test_rejected_spans_of_an_accepted_request_are_counted(collector: Collector, exporter: Exporter) -> None:
    collector.rejected, collector.message = 1, "too old"
    assert exporter.export(SPANS, 2) == ExportResult(ExportStatus.ACCEPTED, 1, "too old")


def test_without_a_collector_the_time_limit_is_not_exceeded(protocol: Protocol) -> None:
    exporter = open_exporter(Target(NOBODY, protocol, seconds=1.5), Signal.TRACES)
    began = time.monotonic()
    assert exporter.export(SPANS, 2).status is ExportStatus.RETRYABLE
    assert time.monotonic() - began < 4
    exporter.shutdown()


def test_shutting_down_ends_a_pause(protocol: Protocol) -> None:
    exporter = open_exporter(Target(NOBODY, protocol, seconds=60.0), Signal.TRACES)
    threading.Timer(0.3, exporter.shutdown).start()
    began = time.monotonic()
    assert exporter.export(SPANS, 2).status is ExportStatus.RETRYABLE
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_requests_use_the_configured_compression(protocol: Protocol, compression: Compression) -> None:
    with Collector() if protocol == "grpc" else HttpCollector() as collector:
        exporter = open_exporter(Target(collector.endpoint, protocol, compression=compression), Signal.TRACES)
        assert exporter.export(SPANS, 2).status is ExportStatus.ACCEPTED
        exporter.shutdown()
    assert len(collector.spans) == 2
    if protocol == "http":
        assert collector.headers[0].get("content-encoding", "none") == compression


def test_headers_and_netrc_of_the_environment_are_not_sent(
    collector: Collector, protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password stolen\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=stolen")
    exporter = open_exporter(Target(collector.endpoint, protocol), Signal.TRACES)
    assert exporter.export(SPANS, 2).status is ExportStatus.ACCEPTED
    exporter.shutdown()
    assert "stolen" not in str(collector.headers)
    assert "authorization" not in collector.headers[0]


def test_no_secret_is_logged(collector: Collector, exporter: Exporter, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    collector.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400))
    exporter.export(SPANS, 2)
    assert "secret" not in caplog.text
    assert [record for record in caplog.records if record.name.startswith(("opentelemetry", "urllib3"))] == []


@pytest.mark.parametrize("status", [301, 307])
def test_no_redirect_is_followed_or_counted_as_success(status: int) -> None:
    with HttpCollector() as collector:
        collector.refusals.append(Refusal(status=status))
        exporter = open_exporter(Target(collector.endpoint, "http", HEADERS), Signal.TRACES)
        assert exporter.export(SPANS, 2) == ExportResult(ExportStatus.RETRYABLE, detail=f"HTTP {status}")
        exporter.shutdown()
    assert len(collector.headers) == 1


def test_a_reply_that_arrives_byte_by_byte_is_cut_off_at_the_time_limit() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(60):
                    try:
                        connection.sendall(b"\0")
                    except OSError:
                        return
                    time.sleep(0.1)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}", "http", seconds=0.5)
        began = time.monotonic()
        exporter = open_exporter(target, Signal.TRACES)
        exporter.export(SPANS, 2)
        assert time.monotonic() - began < 3
        exporter.shutdown()
        thread.join(10)


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with HttpCollector() as proxy:
        monkeypatch.setenv("http_proxy", proxy.endpoint)
        exporter = open_exporter(Target("http://collector.example:4318", "http"), Signal.TRACES)
        assert exporter.export(SPANS, 2).status is ExportStatus.ACCEPTED
        exporter.shutdown()
    assert proxy.paths == ["http://collector.example:4318/v1/traces"]

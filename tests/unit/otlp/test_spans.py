"""Requests of spans to a real collector, over gRPC and HTTP: tried again, for a time, and never for ever."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.support.collector import Collector, HttpCollector, Refusal
from zta_authz.otlp.messages import Answer, Fate, Signal, Target
from zta_authz.otlp.spans import SpanExporter
from zta_authz.otlp.transports import open_transport
from zta_authz.telemetry.span_bytes import encode_request, request_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zta_authz.otlp.messages import Protocol

SPAN = b"\x12\x03\x2a\x01s"  # of a name only, as it stands in ScopeSpans
REQUEST = encode_request(request_parts({"service.name": "zta-authz"}, ("zta_authz", "1")), [SPAN, SPAN])
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    found: Protocol = request.param
    return found


@pytest.fixture
def collector(protocol: Protocol) -> Iterator[Collector | HttpCollector]:
    with Collector() if protocol == "grpc" else HttpCollector() as started:
        yield started


@pytest.fixture
def exporter(collector: Collector, protocol: Protocol) -> Iterator[SpanExporter]:
    headers = (("authorization", "Bearer secret"),)
    found = SpanExporter(open_transport(Target(collector.endpoint, protocol, headers), Signal.TRACES))
    yield found
    found.close()


def test_spans_arrive_with_what_lets_us_in(collector: Collector, exporter: SpanExporter) -> None:
    assert exporter.export(REQUEST, 2, 5) == Answer(Fate.TAKEN)
    assert [(name, span.name) for name, span in collector.spans] == [("zta-authz", "s")] * 2
    assert collector.headers[0]["authorization"] == "Bearer secret"


def test_a_request_that_is_for_later_is_sent_again_after_a_pause(collector: Collector, exporter: SpanExporter) -> None:
    collector.refusals.append(Refusal())
    began = time.monotonic()
    assert exporter.export(REQUEST, 2, 5).fate is Fate.TAKEN
    assert 0.7 < time.monotonic() - began < 4
    assert len(collector.headers) == 2


def test_a_collector_that_asks_for_a_pause_gets_it(collector: Collector, exporter: SpanExporter) -> None:
    collector.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 2))
    began = time.monotonic()
    assert exporter.export(REQUEST, 2, 8).fate is Fate.TAKEN
    assert time.monotonic() - began >= 2


def test_a_pause_that_is_longer_than_there_is_time_is_not_begun(collector: Collector, exporter: SpanExporter) -> None:
    collector.refusals.append(Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 3600))
    began = time.monotonic()
    assert exporter.export(REQUEST, 2, 5).fate is Fate.LATER
    assert time.monotonic() - began < 3
    assert len(collector.headers) == 1


def test_what_the_collector_calls_wrong_is_not_sent_again(collector: Collector, exporter: SpanExporter) -> None:
    collector.refusals.append(Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400))
    assert exporter.export(REQUEST, 2, 5).fate is Fate.NEVER
    assert len(collector.headers) == 1


def test_spans_that_are_rejected_of_a_request_are_counted(collector: Collector, exporter: SpanExporter) -> None:
    collector.rejected, collector.message = 1, "too old"
    assert exporter.export(REQUEST, 2, 5) == Answer(Fate.TAKEN, 1, "too old")


def test_where_nobody_listens_the_time_that_was_given_is_not_exceeded(protocol: Protocol) -> None:
    exporter = SpanExporter(open_transport(Target(NOBODY, protocol), Signal.TRACES))
    began = time.monotonic()
    assert exporter.export(REQUEST, 2, 1.5).fate is Fate.LATER
    assert time.monotonic() - began < 3
    exporter.close()


def test_stopping_ends_a_pause(protocol: Protocol) -> None:
    exporter = SpanExporter(open_transport(Target(NOBODY, protocol), Signal.TRACES))
    threading.Timer(0.3, exporter.stop).start()
    began = time.monotonic()
    assert exporter.export(REQUEST, 2, 60).fate is Fate.LATER
    assert time.monotonic() - began < 10
    exporter.close()

"""One trace from the client through the real Envoy to the check, exported to one real collector."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from envoy.demo.client import Request
from envoy.demo.stack import StackOptions, running
from tests.support.collector import Collector, attributes_of
from zta_authz.cli.envoy_config.envoy_options import ENVOY_SERVICE_NAME as ENVOY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from envoy.demo.stack import Stack

ZTA = "zta-authz"
CLIENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


@pytest.fixture(scope="module", params=["grpcio", "fast"])
def stack(
    request: pytest.FixtureRequest,
    collector: Collector,
    envoy_binary: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """The demo's stack where both trace: Envoy what it is asked to, zta-authz as Envoy does, and denials."""
    tracing = {"otlp": {"endpoint": collector.endpoint}, "sample_ratio": 0.0, "keep": ["denials"]}
    settings = {"server": request.param, "tracing": tracing}
    options = StackOptions(envoy=envoy_binary, collector_port=collector.port, settings=settings)
    with running(tmp_path_factory.mktemp("stack"), options) as started:
        yield started


def spans_of(collector: Collector, trace: str, service: str) -> list[Span]:
    return [span for name, span in collector.spans if name == service and span.trace_id.hex() == trace]


def sent(stack: Stack, trace: str, path: str, flags: str = "01") -> int:
    traceparent = f"00-{trace}-{CLIENT}-{flags}"
    return stack.send("frontend", Request(path=path, headers=(("traceparent", traceparent),))).status


@pytest.mark.parametrize(("path", "status", "verdict"), [("/orders", 200, "allow"), ("/admin/users", 403, "deny")])
def test_a_check_is_the_child_of_envoys_span_of_the_clients_trace(
    stack: Stack, collector: Collector, path: str, status: int, verdict: str
) -> None:
    trace = uuid4().hex
    assert sent(stack, trace, path) == status
    collector.wait_for(lambda _: bool(spans_of(collector, trace, ZTA)) and len(spans_of(collector, trace, ENVOY)) > 1)
    [check] = spans_of(collector, trace, ZTA)
    by_id = {span.span_id: span for span in spans_of(collector, trace, ENVOY)}
    asking = by_id[check.parent_span_id]
    ingress = by_id[asking.parent_span_id]
    assert ingress.parent_span_id.hex() == CLIENT
    assert "Check" in asking.name
    assert asking.start_time_unix_nano <= check.start_time_unix_nano
    assert check.end_time_unix_nano <= asking.end_time_unix_nano
    attributes = attributes_of(check)
    assert (attributes["zta.verdict"], attributes["url.path"]) == (verdict, path)


def test_unsampled_requests_are_traced_only_if_denied(stack: Stack, collector: Collector) -> None:
    allowed, denied, last = (uuid4().hex for _ in range(3))
    assert sent(stack, allowed, "/orders", flags="00") == 200
    assert sent(stack, denied, "/admin/users", flags="00") == 403
    assert sent(stack, last, "/orders") == 200
    collector.wait_for(lambda _: bool(spans_of(collector, last, ZTA)) and bool(spans_of(collector, denied, ZTA)))
    assert spans_of(collector, allowed, ZTA) == []
    [check] = spans_of(collector, denied, ZTA)
    assert attributes_of(check)["zta.verdict"] == "deny"


@pytest.mark.parametrize("own", [True, False])
def test_the_record_of_a_decision_is_in_envoys_trace_too(
    collector: Collector, envoy_binary: Path, tmp_path: Path, own: bool
) -> None:
    """Whether the client sends a `traceparent` (`own` is false) or Envoy begins the trace."""
    settings = {
        "tracing": {"otlp": {"endpoint": collector.endpoint}},
        "audit": {"sink": "otlp", "otlp": {"endpoint": collector.endpoint}},
    }
    trace = uuid4().hex
    headers = () if own else (("traceparent", f"00-{trace}-{CLIENT}-01"),)
    options = StackOptions(envoy=envoy_binary, collector_port=collector.port, settings=settings)
    path = f"/orders/{uuid4().hex}"
    with running(tmp_path, options) as stack:
        stack.send("frontend", Request(path=path, headers=headers))

        def records() -> list[LogRecord]:
            return [record for record in collector.logs if attributes_of(record).get("url.path") == path]

        collector.wait_until(lambda: bool(records()))
        [record] = records()
        collector.wait_for(lambda spans: any(span.span_id == record.span_id for _, span in spans))
        collector.wait_for(lambda _: bool(spans_of(collector, record.trace_id.hex(), ENVOY)))
    [check] = [span for name, span in collector.spans if name == ZTA and span.span_id == record.span_id]
    assert check.trace_id == record.trace_id
    assert own or record.trace_id.hex() == trace

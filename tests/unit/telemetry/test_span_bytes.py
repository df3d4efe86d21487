"""The bytes of a span are those that the SDK makes of what they say."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.check_requests import DECISION_ID, allow, attributes, deny, identity
from tests.support.spans import MemoryExporter
from zta_authz.errors import Reason
from zta_authz.model.decision import Decision, Verdict
from zta_authz.model.request import RequestAttributes
from zta_authz.model.stages import Stages
from zta_authz.ports import CheckEvent
from zta_authz.telemetry.span_bytes import encode_span
from zta_authz.telemetry.spans import Spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAILED = Decision(Verdict.DENY, Reason.INTERNAL_ERROR)
NOW = 1_790_000_000_000_000_000


def staged() -> Stages:
    stages = Stages(lambda: 0, sampled=True)
    stages.parsed, stages.identified, stages.decided = NOW + 127, NOW + 255, NOW + 16_384
    stages.conditions, stages.conditions_ns = 3, 128
    return stages


EVENTS = (
    CheckEvent((), attributes(), allow(), DECISION_ID, NOW, NOW + 50_000, staged()),
    CheckEvent((("traceparent", PARENT),), attributes(), deny(), DECISION_ID, NOW, NOW - 1, staged()),
    CheckEvent((("traceparent", PARENT), ("tracestate", "a=b,c=d")), None, FAILED, DECISION_ID, NOW, NOW, staged()),
    CheckEvent((), attributes(traceparent=PARENT, tracestate="a=b"), FAILED, "0" * 31 + "1", NOW, NOW, staged()),
    CheckEvent(
        (),
        RequestAttributes(method="BREW", host="h:65535", path="/" + "ä" * 500),
        Decision(Verdict.DENY, Reason.DENY_POLICY, policy="a/b", rule=300, identity=identity("spiffe://é/\udcff")),
        "f" * 32,
        1,
        2**63,
        Stages(lambda: 0, sampled=True),
    ),
)


@pytest.mark.parametrize("instance", ["", "i" * 200])
def test_a_request_has_the_very_bytes_that_the_sdk_makes_of_its_spans(instance: str) -> None:
    exporter = MemoryExporter()
    spans = Spans(exporter, 1.0, "1", instance=instance)
    for event in EVENTS:
        spans.record(event)
    spans.close()
    [request] = exporter.requests
    read = exporter.get_finished_spans()
    assert len(read) == len(EVENTS)
    assert encode_spans(read) == ExportTraceServiceRequest.FromString(request)
    assert encode_spans(read).SerializeToString() == request


@pytest.mark.parametrize(
    "state", ["s3cret", "a=s3cret\x7f,b=1", "s3cret" * 5000, ",".join(f"k{i}=s3cret" for i in range(40))]
)
@pytest.mark.parametrize("clients", [False, True])
def test_a_trace_state_that_is_none_is_not_logged(
    caplog: pytest.LogCaptureFixture, state: str, *, clients: bool
) -> None:
    """The SDK quotes it, with each call: whoever sends requests could fill our log, and write what it likes there."""
    if clients:
        event = CheckEvent(
            (), attributes(traceparent=PARENT, tracestate=state), allow(), DECISION_ID, NOW, NOW, staged()
        )
    else:
        told = (("traceparent", PARENT), ("tracestate", state))
        event = CheckEvent(told, attributes(), allow(), DECISION_ID, NOW, NOW, staged())
    assert encode_span(event)
    assert caplog.messages == []

"""protobuf's own code reads the hand-written encoding."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from zta_authz.otlp.wire import field, field_tag, varint


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_152])
def test_lengths_of_every_size_are_encoded(size: int) -> None:
    resource = field(field_tag(ResourceSpans.SCHEMA_URL_FIELD_NUMBER), b"u" * size)
    request = field(field_tag(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER), resource)
    assert len(ExportTraceServiceRequest.FromString(request).resource_spans[0].schema_url) == size


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1])
def test_a_number_survives_encoding(number: int) -> None:
    assert AnyValue.FromString(b"\x18" + varint(number)).int_value == number

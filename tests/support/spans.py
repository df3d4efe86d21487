"""Spans as the SDK shows them, read back from the bytes that would be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from tests.support.collector import values_of
from zta_authz.otlp.messages import Answer, Fate

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

REMOTE = 0x200
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class MemoryExporter:
    """Takes every request and keeps it."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def export(self, request: bytes, spans: int, seconds: float) -> Answer:
        self.requests.append(request)
        return Answer(Fate.TAKEN)

    def stop(self) -> None:
        """Nothing is tried again."""

    def close(self) -> None:
        """Nothing to close."""

    def get_finished_spans(self) -> tuple[ReadableSpan, ...]:
        return tuple(
            read_span(span, scoped, resource)
            for request in self.requests
            for resource in ExportTraceServiceRequest.FromString(request).resource_spans
            for scoped in resource.scope_spans
            for span in scoped.spans
        )


def context(trace: bytes, span: bytes, *, remote: bool, state: str = "") -> SpanContext:
    numbers = int.from_bytes(trace, "big"), int.from_bytes(span, "big")
    return SpanContext(
        *numbers, is_remote=remote, trace_flags=SAMPLED, trace_state=TraceState.from_header([state] if state else [])
    )


def read_span(span: Span, scoped: ScopeSpans, resource: ResourceSpans) -> ReadableSpan:
    remote = bool(span.flags & REMOTE)
    return ReadableSpan(
        span.name,
        context(span.trace_id, span.span_id, remote=False, state=span.trace_state),
        context(span.trace_id, span.parent_span_id, remote=remote) if span.parent_span_id else None,
        Resource(values_of(resource.resource.attributes)),
        values_of(span.attributes),
        [Event(each.name, values_of(each.attributes), each.time_unix_nano) for each in span.events],
        tuple(Link(context(e.trace_id, e.span_id, remote=bool(e.flags & REMOTE))) for e in span.links),
        SpanKind(span.kind - 1),
        status=Status(StatusCode(span.status.code)),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=InstrumentationScope(scoped.scope.name, scoped.scope.version),
    )

"""One OpenTelemetry span for each Check call, child of the span in the call's gRPC metadata.

Envoy puts the `traceparent` of its own egress span into the metadata (measured with Envoy 1.40), so that is the parent.
The `traceparent` header inside the CheckRequest is the client's word: where the metadata has none it is linked, and it
neither becomes the parent nor makes us sample. Source: W3C Trace Context; OpenTelemetry trace specification.

Without a configured endpoint no span is made. `OTEL_*` variables change neither which spans are made, nor what is in
them, nor where they go; the exporter does take credentials for its endpoint from `OTEL_EXPORTER_OTLP_HEADERS` and
`OTEL_EXPORTER_OTLP_CERTIFICATE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zta_authz.errors import Reason
from zta_authz.telemetry import names
from zta_authz.telemetry.export_queue import ExportQueue
from zta_authz.telemetry.sampling import Keep, Sampling

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.ports import CheckEvent

Protocol = Literal["grpc", "http"]

QUEUE_SPANS = 4096
BATCH_SPANS = 512
BATCH_SECONDS = 2.0
EXPORT_SECONDS = 5
ATTRIBUTE_CHARACTERS = 1024
HTTP_PATH = "/v1/traces"

_LIMITS = SpanLimits(  # each is named, or the SDK takes it from an environment variable
    max_attributes=32,
    max_events=4,
    max_links=1,
    max_event_attributes=2,
    max_link_attributes=1,
    max_attribute_length=ATTRIBUTE_CHARACTERS,
    max_span_attributes=32,
    max_span_attribute_length=ATTRIBUTE_CHARACTERS,
)
_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_SERVICE, _, _METHOD = names.CHECK_SPAN.partition("/")
_RPC = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: _SERVICE, names.RPC_METHOD: _METHOD}
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_FAILED = Status(StatusCode.ERROR)


def otlp_exporter(endpoint: str, protocol: Protocol, headers: Mapping[str, str] | None = None) -> SpanExporter:
    """An OTLP exporter to `endpoint`: `http(s)://host:4317` for gRPC, `http(s)://host:4318` for HTTP.

    A URL for HTTP that has no path gets OTLP's own, `/v1/traces`.

    Importing an exporter takes a fifth of a second and megabytes, so only the one that is configured is imported.
    """
    sent = dict(headers) if headers else None
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter  # noqa: PLC0415

        insecure = not endpoint.startswith("https://")
        return GrpcExporter(endpoint=endpoint, insecure=insecure, headers=sent, timeout=EXPORT_SECONDS)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter  # noqa: PLC0415

    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + HTTP_PATH
    return HttpExporter(endpoint=url, headers=sent, timeout=EXPORT_SECONDS)


class Spans:
    """Makes spans and hands them to `exporter` in batches, on a thread of its own; a full queue drops spans."""

    def __init__(self, exporter: SpanExporter, sample_ratio: float, version: str, keep: Collection[Keep] = ()) -> None:
        """`sample_ratio` and `keep` as in `Sampling`."""
        self.sampling = Sampling(sample_ratio, keep)
        self.queue = ExportQueue(exporter, QUEUE_SPANS, BATCH_SPANS, BATCH_SECONDS)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not to be traced never gets here
            resource=Resource({names.RESOURCE_NAME: names.SERVICE_NAME, names.RESOURCE_VERSION: version}),
            shutdown_on_exit=False,
            span_limits=_LIMITS,
        )
        self._provider.add_span_processor(self.queue)
        self._tracer = self._provider.get_tracer(names.INSTRUMENTATION, version)

    def record(self, event: CheckEvent) -> None:
        """Make the span of one answered call, if it was sampled or is kept."""
        stages = event.stages
        sampled = stages is not None and stages.sampled
        if not sampled and not self.sampling.keeps(event):
            return
        parent = _parent(event.metadata)
        links = _client_link(event.request) if parent is None else ()
        span = self._tracer.start_span(
            names.CHECK_SPAN,
            context=parent or _NO_CONTEXT,
            kind=SpanKind.SERVER,
            links=links,
            start_time=event.started_ns,
        )
        _describe(span, event)
        if stages is not None:
            _tell_stages(span, stages, event.started_ns)
        span.end(end_time=max(event.started_ns, event.ended_ns))

    def close(self) -> None:
        """Send what is queued, within the export timeout, and stop the thread."""
        self.queue.close(EXPORT_SECONDS)
        self._provider.shutdown()


def _parent(metadata: Sequence[tuple[str, str | bytes]]) -> Context | None:
    """The parent's context, None where the metadata has no valid `traceparent`."""
    carrier = {name: value for name, value in metadata if name in ("traceparent", "tracestate")}
    return _extract(carrier) if "traceparent" in carrier else None


def _client_link(request: RequestAttributes | None) -> tuple[Link, ...]:
    if request is None or "traceparent" not in request.headers:
        return ()
    carrier: dict[str, str | bytes] = {
        name: request.headers.joined(name) or "" for name in ("traceparent", "tracestate") if name in request.headers
    }
    context = _extract(carrier)
    return (Link(get_current_span(context).get_span_context()),) if context is not None else ()


def _extract(carrier: Mapping[str, str | bytes]) -> Context | None:
    text = {name: value for name, value in carrier.items() if isinstance(value, str) and value.isascii()}
    context = _PROPAGATOR.extract(text, context=_NO_CONTEXT)
    return context if get_current_span(context).get_span_context().is_valid else None


def _tell_stages(span: Span, stages: Stages, started: int) -> None:
    """An event at the end of each stage that was reached, with the time it took."""
    identified = stages.identified or stages.decided  # where identity is refused, that is the decision
    ends = (
        (names.PARSE_EVENT, started, stages.parsed),
        (names.IDENTITY_EVENT, stages.parsed, identified),
        (names.MATCH_EVENT, stages.identified, stages.decided),
    )
    for name, begun, ended in ends:
        if begun and ended:
            span.add_event(name, {names.DURATION: max(0, ended - begun)}, timestamp=ended)
    if stages.conditions:
        told = {names.DURATION: max(0, stages.conditions_ns), names.CONDITIONS: stages.conditions}
        span.add_event(names.CONDITIONS_EVENT, told, timestamp=stages.decided or None)


def _describe(span: Span, event: CheckEvent) -> None:
    decision = event.decision
    attributes: dict[str, str | int] = dict(_RPC)
    attributes[names.VERDICT] = decision.verdict.value
    attributes[names.REASON] = decision.reason.value
    attributes[names.DECISION_ID] = event.decision_id
    if decision.policy:
        attributes[names.POLICY] = decision.policy
    if decision.rule is not None:
        attributes[names.RULE] = decision.rule
    if decision.identity.principal:
        attributes[names.PRINCIPAL] = _encodable(decision.identity.principal)
    if event.request is not None:
        _describe_request(attributes, event.request)
    if decision.reason is Reason.INTERNAL_ERROR:
        attributes[names.ERROR_TYPE] = decision.reason.value
        span.set_status(_FAILED)
    span.set_attributes(attributes)


def _describe_request(attributes: dict[str, str | int], request: RequestAttributes) -> None:
    """Method, path and host; never the query, which may hold tokens."""
    if request.method in _METHODS:
        attributes[names.HTTP_REQUEST_METHOD] = request.method
    else:
        attributes[names.HTTP_REQUEST_METHOD] = "_OTHER"
        attributes[names.HTTP_REQUEST_METHOD_ORIGINAL] = _encodable(request.method)
    attributes[names.URL_PATH] = _encodable(request.path.partition("?")[0].partition("#")[0])
    name, colon, port = request.host.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5):  # no port: a name or `[::1]`
        attributes[names.SERVER_ADDRESS] = _encodable(request.host)
        return
    attributes[names.SERVER_ADDRESS] = _encodable(name)
    attributes[names.SERVER_PORT] = int(port)


def _encodable(text: str) -> str:
    """`text` with surrogates escaped: one that reached the exporter would cost its whole batch."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

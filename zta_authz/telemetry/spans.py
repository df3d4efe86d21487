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
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zta_authz.errors import Reason
from zta_authz.telemetry import names
from zta_authz.telemetry.export_queue import ExportQueue
from zta_authz.telemetry.sampling import Keep, Sampling

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter

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

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_SERVICE, _, _METHOD = names.CHECK_SPAN.partition("/")
_RPC = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: _SERVICE, names.RPC_METHOD: _METHOD}
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_FAILED = Status(StatusCode.ERROR)
_ANSWERED = Status(StatusCode.UNSET)
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SPAN_DIGITS = 16


def otlp_exporter(endpoint: str, protocol: Protocol, headers: Mapping[str, str] | None = None) -> SpanExporter:
    """An OTLP exporter to `endpoint`: `http(s)://host:4317` for gRPC, `http(s)://host:4318` for HTTP.

    A URL for HTTP that has no path gets OTLP's own, `/v1/traces`.

    Importing an exporter takes a fifth of a second and megabytes, so only the one that is configured is imported.
    """
    sent = dict(headers) if headers else None
    if protocol == "grpc":
        from zta_authz.telemetry.grpc_exporter import Exporter  # noqa: PLC0415

        insecure = not endpoint.startswith("https://")
        return Exporter(endpoint=endpoint, insecure=insecure, headers=sent, timeout=EXPORT_SECONDS)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter  # noqa: PLC0415

    from zta_authz.telemetry.http_session import Session  # noqa: PLC0415

    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + HTTP_PATH
    return HttpExporter(endpoint=url, headers=sent, timeout=EXPORT_SECONDS, session=Session())


class Spans:
    """Makes spans and hands them to `exporter` in batches, on a thread of its own; a full queue drops spans.

    A span is made whole, after the call: the SDK's tracer takes several times as long, for locks and limits that are
    for spans that grow in many places.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        sample_ratio: float,
        version: str,
        keep: Collection[Keep] = (),
        instance: str = "",
    ) -> None:
        """`sample_ratio` and `keep` as in `Sampling`; `instance` names this process, if it is to be named."""
        self.sampling = Sampling(sample_ratio, keep)
        self.queue = ExportQueue(exporter, QUEUE_SPANS, BATCH_SPANS, BATCH_SECONDS)
        told = {names.RESOURCE_NAME: names.SERVICE_NAME, names.RESOURCE_VERSION: version}
        self._resource = Resource(told | ({names.RESOURCE_INSTANCE: instance} if instance else {}))
        self._scope = InstrumentationScope(names.INSTRUMENTATION, version)

    def record(self, event: CheckEvent) -> None:
        """Make the span of one answered call, if it was sampled or is kept."""
        stages = event.stages
        sampled = stages is not None and stages.sampled
        if not sampled and not self.sampling.keeps(event):
            return
        parent = _parent(event.metadata)
        context = SpanContext(
            int(event.decision_id, 16) if parent is None else parent.trace_id,
            int(event.decision_id[-_SPAN_DIGITS:], 16),  # random too, and known to the decision's record
            is_remote=False,
            trace_flags=_SAMPLED,
            trace_state=None if parent is None else parent.trace_state,
        )
        span = ReadableSpan(
            names.CHECK_SPAN,
            context,
            parent,
            self._resource,
            _attributes(event),
            () if stages is None else tuple(_stage_events(stages, event.started_ns)),
            _client_link(event.request) if parent is None else (),
            SpanKind.SERVER,
            status=_FAILED if event.decision.reason is Reason.INTERNAL_ERROR else _ANSWERED,
            start_time=event.started_ns,
            end_time=max(event.started_ns, event.ended_ns),
            instrumentation_scope=self._scope,
        )
        self.queue.put(span)

    def close(self) -> None:
        """Send what is queued, within the export timeout, and stop the thread."""
        self.queue.close(EXPORT_SECONDS)


def _parent(metadata: Sequence[tuple[str, str | bytes]]) -> SpanContext | None:
    """The parent, None where the metadata has no valid `traceparent`."""
    carrier = {name: value for name, value in metadata if name in ("traceparent", "tracestate")}
    return _extract(carrier) if "traceparent" in carrier else None


def _client_link(request: RequestAttributes | None) -> tuple[Link, ...]:
    if request is None or "traceparent" not in request.headers:
        return ()
    carrier: dict[str, str | bytes] = {
        name: request.headers.joined(name) or "" for name in ("traceparent", "tracestate") if name in request.headers
    }
    context = _extract(carrier)
    return (Link(context),) if context is not None else ()


def _extract(carrier: Mapping[str, str | bytes]) -> SpanContext | None:
    text = {name: value for name, value in carrier.items() if isinstance(value, str) and value.isascii()}
    context = get_current_span(_PROPAGATOR.extract(text, context=_NO_CONTEXT)).get_span_context()
    return context if context.is_valid else None


def _stage_events(stages: Stages, started: int) -> Iterator[Event]:
    """An event at the end of each stage that was reached, with the time it took."""
    identified = stages.identified or stages.decided  # where identity is refused, that is the decision
    ends = (
        (names.PARSE_EVENT, started, stages.parsed),
        (names.IDENTITY_EVENT, stages.parsed, identified),
        (names.MATCH_EVENT, stages.identified, stages.decided),
    )
    for name, begun, ended in ends:
        if begun and ended:
            yield Event(name, {names.DURATION: max(0, ended - begun)}, ended)
    if stages.conditions:
        told = {names.DURATION: max(0, stages.conditions_ns), names.CONDITIONS: stages.conditions}
        yield Event(names.CONDITIONS_EVENT, told, stages.decided or None)


def _attributes(event: CheckEvent) -> dict[str, str | int]:
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
    return attributes


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
    """`text`, cut, with surrogates escaped: one that reached the exporter would cost its whole batch."""
    sound = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    return sound[:ATTRIBUTE_CHARACTERS]

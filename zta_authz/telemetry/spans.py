"""Creates one OpenTelemetry span for each Check call, a child of the span in the call's gRPC metadata.

Envoy puts the `traceparent` of its own egress span into the metadata (measured with Envoy 1.40); that is the parent.
The client controls the `traceparent` header inside the CheckRequest. It is linked if the metadata has no parent, and
never becomes the parent nor causes sampling. Source: W3C Trace Context; OpenTelemetry trace specification.

Each span is built in one step after the call, and only if the call is sampled or kept. The SDK's tracer takes several
times as long, because it locks and checks limits for spans that grow step by step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from zta_authz.errors import Reason
from zta_authz.model.trace_context import call_parent, call_state, parse_trace_parent
from zta_authz.model.trust import HUNDREDTHS
from zta_authz.telemetry import names
from zta_authz.telemetry.export_queue import ExportQueue
from zta_authz.telemetry.sampling import Keep, Sampling

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from opentelemetry.sdk.resources import Resource

    from zta_authz.model.decision import DecisionFacts
    from zta_authz.model.request import RequestAttributes
    from zta_authz.model.stages import Stages
    from zta_authz.model.trace_context import TraceParent
    from zta_authz.ports import CheckEvent
    from zta_authz.telemetry.export_queue import BatchExporter

QUEUE_SPANS: Final = 4096
BATCH_SPANS: Final = 512
BATCH_SECONDS: Final = 2.0
CLOSE_SECONDS: Final = 5.0
"""Limit for sending the queued spans at close."""
ATTRIBUTE_CHARACTERS: Final = 1024

_SPAN_DIGITS: Final = 16
_FIXED_BYTES: Final = 600  # the encoded names, numbers and IDs of a span
_SERVICE, _, _METHOD = names.CHECK_SPAN.partition("/")
_RPC: Final = {names.RPC_SYSTEM: "grpc", names.RPC_SERVICE: _SERVICE, names.RPC_METHOD: _METHOD}
_METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_FAILED: Final = Status(StatusCode.ERROR)
_ANSWERED: Final = Status(StatusCode.UNSET)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_NO_STATE: Final = TraceState()

Attributes = dict[str, str | int | float]


class Spans:
    """Creates spans and passes them to `exporter` in batches on a background thread. A full queue drops spans."""

    def __init__(
        self,
        exporter: BatchExporter,
        resource: Resource,
        sample_ratio: float,
        version: str,
        keep: Collection[Keep] = (),
    ) -> None:
        """Start the export thread. `sample_ratio` and `keep` are as in `Sampling`; `resource` describes the process."""
        self.sampling = Sampling(sample_ratio, keep)
        self.queue = ExportQueue(exporter, QUEUE_SPANS, BATCH_SPANS, BATCH_SECONDS)
        self._resource = resource
        self._scope = InstrumentationScope(names.INSTRUMENTATION, version)

    def record(self, event: CheckEvent) -> None:
        """Create and queue the span of an answered call if it is sampled or kept."""
        stages = event.stages
        sampled = stages is not None and stages.sampled
        if not sampled and not self.sampling.keeps(event):
            return
        parent = call_parent(event.metadata)
        state = "" if parent is None else call_state(event.metadata)
        attributes = _attributes(event)
        span = ReadableSpan(
            names.CHECK_SPAN,
            _context(event.decision_id, parent, state),
            None if parent is None else _remote(parent),
            self._resource,
            attributes,
            () if stages is None else tuple(_stage_events(stages, event)),
            _client_link(event.request) if parent is None else (),
            SpanKind.SERVER,
            status=_FAILED if event.decision.reason is Reason.INTERNAL_ERROR else _ANSWERED,
            start_time=event.started_ns,
            end_time=max(event.started_ns, event.ended_ns),
            instrumentation_scope=self._scope,
        )
        self.queue.put(span, _FIXED_BYTES + len(state) + _text_bytes(attributes))

    def hurry(self) -> None:
        """Make `close` return at once."""
        self.queue.hurry()

    def close(self) -> None:
        """Send queued spans for at most `CLOSE_SECONDS`, and stop the thread."""
        self.queue.close(CLOSE_SECONDS)


def _context(decision_id: str, parent: TraceParent | None, state: str) -> SpanContext:
    """Return the new span's context. The span ID is the end of the random decision ID, so its record can be found."""
    trace_id = decision_id if parent is None else parent.trace_id
    return SpanContext(
        int(trace_id, 16),
        int(decision_id[-_SPAN_DIGITS:], 16),
        is_remote=False,
        trace_flags=_SAMPLED,
        trace_state=_trace_state(state) if state else _NO_STATE,
    )


def _trace_state(text: str) -> TraceState:
    """Convert checked members. The SDK would log malformed ones."""
    pairs = [member.partition("=") for member in text.split(",")]
    return TraceState([(key, value) for key, _, value in pairs])


def _remote(parent: TraceParent) -> SpanContext:
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=_SAMPLED)


def _client_link(request: RequestAttributes | None) -> tuple[Link, ...]:
    if request is None or "traceparent" not in request.headers:
        return ()
    parent = parse_trace_parent(request.headers.joined("traceparent") or "")
    return () if parent is None else (Link(_remote(parent)),)


def _stage_events(stages: Stages, event: CheckEvent) -> Iterator[Event]:
    """Yield an event at the end of each stage that was reached, with its duration."""
    identified = stages.identified or stages.decided  # an identity that is refused is the decision
    ends = (
        (names.PARSE_EVENT, event.started_ns, stages.parsed),
        (names.IDENTITY_EVENT, stages.parsed, identified),
        (names.MATCH_EVENT, stages.identified, stages.decided),
    )
    for name, begun, ended in ends:
        if begun and ended:
            yield Event(name, {names.DURATION: max(0, ended - begun)}, ended)
    if stages.conditions:
        details = {names.DURATION: max(0, stages.conditions_ns), names.CONDITIONS: stages.conditions}
        yield Event(names.CONDITIONS_EVENT, details, stages.decided or event.ended_ns)


def _attributes(event: CheckEvent) -> Attributes:
    decision = event.decision
    attributes: Attributes = {
        **_RPC,
        names.VERDICT: decision.verdict.value,
        names.REASON: decision.reason.value,
        names.DECISION_ID: event.decision_id,
    }
    if decision.policy:
        attributes[names.POLICY] = decision.policy
    if decision.rule is not None:
        attributes[names.RULE] = decision.rule
    if decision.rule_name:
        attributes[names.RULE_NAME] = decision.rule_name
    if decision.identity.principal:
        attributes[names.PRINCIPAL] = _encodable(decision.identity.principal)
    if decision.facts is not None:
        _describe_facts(attributes, decision.facts)
    if event.request is not None:
        _describe_request(attributes, event.request)
    if decision.reason is Reason.INTERNAL_ERROR:
        attributes[names.ERROR_TYPE] = decision.reason.value
    return attributes


def _describe_facts(attributes: Attributes, facts: DecisionFacts) -> None:
    """Add the facts that rules read: trust level and score, device, country, class of the resource."""
    if facts.trust is not None:
        attributes[names.TRUST_LEVEL] = facts.trust.level.name
        attributes[names.TRUST_SCORE] = facts.trust.score / HUNDREDTHS
    if facts.device is not None and facts.device.device_id:
        attributes[names.DEVICE_ID] = _encodable(facts.device.device_id)
    if facts.network is not None and isinstance(facts.network.country.value, str):
        attributes[names.REMOTE_COUNTRY] = facts.network.country.value
    if facts.resource is not None:
        attributes[names.RESOURCE_CLASS] = _encodable(facts.resource.name)


def _describe_request(attributes: Attributes, request: RequestAttributes) -> None:
    """Add method, path and host. The query may contain tokens and is left out."""
    if request.method in _METHODS:
        attributes[names.HTTP_REQUEST_METHOD] = request.method
    else:
        attributes[names.HTTP_REQUEST_METHOD] = "_OTHER"
        attributes[names.HTTP_REQUEST_METHOD_ORIGINAL] = _encodable(request.method)
    attributes[names.URL_PATH] = _encodable(request.path.partition("?")[0].partition("#")[0])
    name, colon, port = request.host.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and len(port) <= 5):  # without a port: a name or `[::1]`
        attributes[names.SERVER_ADDRESS] = _encodable(request.host)
        return
    attributes[names.SERVER_ADDRESS] = _encodable(name)
    attributes[names.SERVER_PORT] = int(port)


def _encodable(text: str) -> str:
    """Cut `text` and escape surrogates, because one surrogate would make the export of its whole batch fail."""
    cut = text[:ATTRIBUTE_CHARACTERS]
    return cut if cut.isascii() else cut.encode("utf-8", "backslashreplace").decode()[:ATTRIBUTE_CHARACTERS]


def _text_bytes(attributes: Attributes) -> int:
    """Return an upper bound of the attributes' size in UTF-8 bytes."""
    return sum(
        len(value) if value.isascii() else 4 * len(value) for value in attributes.values() if isinstance(value, str)
    )

"""One OpenTelemetry span for each Check call, child of the span in the call's gRPC metadata.

Envoy puts the `traceparent` of its own egress span into the metadata (measured with Envoy 1.40), so that is the parent.
The `traceparent` header inside the CheckRequest is the client's word: where the metadata has none it is linked, and it
neither becomes the parent nor makes us sample. Source: W3C Trace Context; OpenTelemetry trace specification.

Without a configured endpoint no span is made. `OTEL_*` variables change neither which spans are made, nor what is in
them, nor where they go; the exporter does take credentials for its endpoint from `OTEL_EXPORTER_OTLP_HEADERS` and
`OTEL_EXPORTER_OTLP_CERTIFICATE`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import urlsplit

from zta_authz.telemetry import names
from zta_authz.telemetry.export_queue import ExportQueue
from zta_authz.telemetry.sampling import Keep, Sampling
from zta_authz.telemetry.span_bytes import encode_request, encode_span, request_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExportResult

    from zta_authz.ports import CheckEvent
    from zta_authz.telemetry.export_queue import RequestExporter

Protocol = Literal["grpc", "http"]

QUEUE_SPANS = 4096
BATCH_SPANS = 512
BATCH_SECONDS = 2.0
EXPORT_SECONDS = 5
HTTP_PATH = "/v1/traces"


def otlp_exporter(endpoint: str, protocol: Protocol, headers: Mapping[str, str] | None = None) -> RequestExporter:
    """An OTLP exporter to `endpoint`: `http(s)://host:4317` for gRPC, `http(s)://host:4318` for HTTP.

    A URL for HTTP that has no path gets OTLP's own, `/v1/traces`.

    Importing an exporter takes a fifth of a second and megabytes, so only the one that is configured is imported.
    """
    sent = dict(headers) if headers else None
    if protocol == "grpc":
        from zta_authz.telemetry.grpc_exporter import Exporter  # noqa: PLC0415

        insecure = not endpoint.startswith("https://")
        told = Exporter(endpoint=endpoint, insecure=insecure, headers=sent, timeout=EXPORT_SECONDS)
        return cast("RequestExporter", told)
    from zta_authz.telemetry.http_exporter import HttpExporter  # noqa: PLC0415
    from zta_authz.telemetry.http_session import Session  # noqa: PLC0415

    url = endpoint if urlsplit(endpoint).path.strip("/") else endpoint.rstrip("/") + HTTP_PATH
    return cast("RequestExporter", HttpExporter(endpoint=url, headers=sent, timeout=EXPORT_SECONDS, session=Session()))


class _Requests:
    """Makes one request of each batch."""

    def __init__(self, exporter: RequestExporter, parts: tuple[bytes, bytes]) -> None:
        self._exporter = exporter
        self._parts = parts

    def export(self, parts: Sequence[bytes]) -> SpanExportResult:
        """What became of the request of these spans."""
        return self._exporter.export((encode_request(self._parts, parts),))

    def shutdown(self) -> None:
        """Nothing more is sent."""
        self._exporter.shutdown()


class Spans:
    """Makes spans and hands them to `exporter` in batches, on a thread of its own; a full queue drops spans.

    A span is made whole, after the call, as the bytes that are sent: so it takes no more memory while it waits than on
    its way, whatever its request held.
    """

    def __init__(
        self,
        exporter: RequestExporter,
        sample_ratio: float,
        version: str,
        keep: Collection[Keep] = (),
        instance: str = "",
    ) -> None:
        """`sample_ratio` and `keep` as in `Sampling`; `instance` names this process, if it is to be named."""
        self.sampling = Sampling(sample_ratio, keep)
        told = {names.RESOURCE_NAME: names.SERVICE_NAME, names.RESOURCE_VERSION: version}
        parts = request_parts(
            told | ({names.RESOURCE_INSTANCE: instance} if instance else {}), (names.INSTRUMENTATION, version)
        )
        self.queue = ExportQueue(_Requests(exporter, parts), QUEUE_SPANS, BATCH_SPANS, BATCH_SECONDS)

    def record(self, event: CheckEvent) -> None:
        """Make the span of one answered call, if it was sampled or is kept."""
        stages = event.stages
        sampled = stages is not None and stages.sampled
        if not sampled and not self.sampling.keeps(event):
            return
        self.queue.put(encode_span(event))

    def close(self) -> None:
        """Send what is queued, within the export timeout, and stop the thread."""
        self.queue.close(EXPORT_SECONDS)

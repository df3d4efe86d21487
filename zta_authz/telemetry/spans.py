"""One OpenTelemetry span for each Check call, child of the span in the call's gRPC metadata.

Envoy puts the `traceparent` of its own egress span into the metadata (measured with Envoy 1.40), so that is the parent.
The `traceparent` header inside the CheckRequest is the client's word: where the metadata has none it is linked, and it
neither becomes the parent nor makes us sample. Source: W3C Trace Context; OpenTelemetry trace specification.

Without a configured endpoint no span is made. `OTEL_*` variables change neither which spans are made, nor what is in
them, nor where they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from zta_authz.telemetry import names
from zta_authz.telemetry.export_queue import ExportQueue
from zta_authz.telemetry.sampling import Keep, Sampling
from zta_authz.telemetry.span_bytes import encode_request, encode_span, request_parts

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from zta_authz.otlp.messages import Answer
    from zta_authz.ports import CheckEvent

QUEUE_SPANS = 4096
BATCH_SPANS = 512
BATCH_SECONDS = 2.0
EXPORT_SECONDS = 5.0
"""For one batch, with all tries; and for all that are queued when we close."""


class RequestExporter(Protocol):
    """What sends requests of spans to the collector."""

    def export(self, request: bytes, spans: int, seconds: float) -> Answer:
        """What the collector made of a request of so many `spans`, within about `seconds`."""
        ...

    def stop(self) -> None:
        """Try nothing again. Called by another thread."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class SpanRequests:
    """Makes one request of each batch, and sends it with `exporter`."""

    def __init__(self, exporter: RequestExporter, parts: tuple[bytes, bytes]) -> None:
        """`parts` are what `request_parts` makes."""
        self._exporter = exporter
        self._parts = parts

    def export(self, spans: Sequence[bytes], seconds: float) -> Answer:
        """What became of the request of these spans."""
        return self._exporter.export(encode_request(self._parts, spans), len(spans), seconds)

    def stop(self) -> None:
        """Try nothing again."""
        self._exporter.stop()

    def close(self) -> None:
        """Nothing more is sent."""
        self._exporter.close()


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
        requests = SpanRequests(exporter, parts)
        self.queue = ExportQueue(requests, QUEUE_SPANS, BATCH_SPANS, BATCH_SECONDS, EXPORT_SECONDS)

    def record(self, event: CheckEvent) -> None:
        """Make the span of one answered call, if it was sampled or is kept."""
        stages = event.stages
        sampled = stages is not None and stages.sampled
        if not sampled and not self.sampling.keeps(event):
            return
        self.queue.put(encode_span(event))

    def hurry(self) -> None:
        """The end is wanted at once."""
        self.queue.hurry()

    def close(self) -> None:
        """Send what is queued, within the export timeout, and stop the thread."""
        self.queue.close(EXPORT_SECONDS)

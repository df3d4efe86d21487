"""An exporter that keeps the SDK's spans as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import Resource

from zta_authz.otlp.messages import ExportResult, ExportStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

RESOURCE = Resource({"service.name": "zta-authz", "service.version": "1.2.3"})


class MemoryExporter:
    """Takes every batch and keeps it."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, batch: Sequence[ReadableSpan], size: int, /) -> ExportResult:
        assert len(batch) == size
        self.spans.extend(batch)
        return ExportResult(ExportStatus.ACCEPTED)

    def shutdown(self) -> None:
        """Nothing to end."""

    def get_finished_spans(self) -> tuple[ReadableSpan, ...]:
        return tuple(self.spans)

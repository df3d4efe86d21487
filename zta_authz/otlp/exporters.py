"""The OpenTelemetry SDK's exporters of spans and metrics, with the result of each batch.

The SDK's exporters return only success or failure, and log the collector's own text. `ReplyRecorder` records the
collector's reply, so that partial rejections are counted and an outage is logged once, with its status only.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from zta_authz.otlp.messages import ExportResult, ExportStatus
from zta_authz.otlp.reply_recorder import ReplyRecorder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from zta_authz.otlp.messages import Signal, Target

_SILENT: Final = logging.CRITICAL + 1


class _SdkExporter(Protocol):
    def export(self, batch: Any, /) -> Any:
        """Return an enumeration member named SUCCESS or FAILURE."""
        ...

    def shutdown(self) -> None:
        """End retries and connections."""
        ...


class Exporter:
    """One of the SDK's exporters. Calls block. Only one thread may use it, but any thread may call `shutdown`."""

    def __init__(self, exporter: _SdkExporter, recorder: ReplyRecorder) -> None:
        self._exporter = exporter
        self._recorder = recorder

    def export(self, batch: Sequence[ReadableSpan] | MetricsData, size: int) -> ExportResult:
        """Send a batch of `size` spans or data points and return the result after all retries."""
        self._recorder.reset()
        result = self._exporter.export(batch)
        if result.name == "SUCCESS":
            return ExportResult(ExportStatus.ACCEPTED, min(size, self._recorder.rejected), self._recorder.detail)
        return ExportResult(ExportStatus.RETRYABLE, detail=self._recorder.detail)

    def shutdown(self) -> None:
        """Cancel the current pause or call."""
        self._exporter.shutdown()


def open_exporter(target: Target, signal: Signal) -> Exporter:
    """Create the SDK's exporter of `signal` (TRACES or METRICS) to `target`, without connecting yet.

    Imports the SDK and one exporter here, because that takes 0.2 s and megabytes that only exporting services need.
    """
    for name in ("opentelemetry", "urllib3"):  # their logs quote headers, trace states and collectors' texts
        logging.getLogger(name).setLevel(_SILENT)
    recorder = ReplyRecorder()
    exporter: _SdkExporter
    if target.protocol == "grpc":
        from zta_authz.otlp import grpc_exporters  # noqa: PLC0415

        exporter = grpc_exporters.build(target, signal, recorder)
    else:
        from zta_authz.otlp import http_exporters  # noqa: PLC0415

        exporter = http_exporters.build(target, signal, recorder)
    return Exporter(exporter, recorder)

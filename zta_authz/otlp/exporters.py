"""The OpenTelemetry SDK's exporters of spans and metrics, and what became of each batch.

The SDK's exporters report only success or failure, and log the collector's own words. `Heard` notes beside them what
the collector said, so that partial rejections are counted and an outage is logged once, by its status alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from zta_authz.otlp.heard import Heard
from zta_authz.otlp.messages import Answer, Fate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

    from zta_authz.otlp.messages import Signal, Target

_SILENT: Final = logging.CRITICAL + 1


class _SdkExporter(Protocol):
    def export(self, batch: Any, /) -> Any:
        """An enumeration's member: SUCCESS or FAILURE."""
        ...

    def shutdown(self) -> None:
        """End retries and connections."""
        ...


class Exporter:
    """One of the SDK's exporters. Blocks; one thread uses it, but for `shutdown`, which any may call."""

    def __init__(self, exporter: _SdkExporter, heard: Heard) -> None:
        self._exporter = exporter
        self._heard = heard

    def export(self, batch: Sequence[ReadableSpan] | MetricsData, size: int) -> Answer:
        """What the collector made of a batch of `size` spans or data points, after all retries."""
        self._heard.forget()
        result = self._exporter.export(batch)
        if result.name == "SUCCESS":
            return Answer(Fate.TAKEN, min(size, self._heard.rejected), self._heard.said)
        return Answer(Fate.LATER, said=self._heard.said)

    def shutdown(self) -> None:
        """Give up: a pause or a call that is under way ends."""
        self._exporter.shutdown()


def open_exporter(target: Target, signal: Signal) -> Exporter:
    """The SDK's exporter of `signal`, TRACES or METRICS, to `target`. Connects nowhere yet.

    Imports the SDK and one exporter: a fifth of a second, and megabytes that only those who export need.
    """
    for name in ("opentelemetry", "urllib3"):  # they quote headers, trace states and collectors' words
        logging.getLogger(name).setLevel(_SILENT)
    heard = Heard()
    exporter: _SdkExporter
    if target.protocol == "grpc":
        from zta_authz.otlp import grpc_exporters  # noqa: PLC0415

        exporter = grpc_exporters.build(target, signal, heard)
    else:
        from zta_authz.otlp import http_exporters  # noqa: PLC0415

        exporter = http_exporters.build(target, signal, heard)
    return Exporter(exporter, heard)

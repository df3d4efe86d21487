"""The observer that the servicer calls. It always counts metrics, and creates spans if they are exported."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from zta_authz import __version__
from zta_authz.failure_log import FailureLog
from zta_authz.model.decision import Verdict
from zta_authz.model.stages import Stages
from zta_authz.telemetry.metrics import BATCH_CALLS, Metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opentelemetry.sdk.resources import Resource

    from zta_authz.ports import CheckEvent
    from zta_authz.telemetry.export_queue import BatchExporter
    from zta_authz.telemetry.sampling import Keep
    from zta_authz.telemetry.spans import Spans

_LOG = logging.getLogger(__name__)
TIMED_CALLS: Final = 64
"""One call in this many has its stages timed, besides traced calls. That is enough for a histogram."""


class TelemetryObserver:
    """Counts each answered call in `metrics` and, with `spans`, creates its span. `errors` counts failures of both."""

    __slots__ = (
        "_calls", "_failures", "_record", "_samples", "_spans", "_staged_calls", "_until_timed", "errors", "metrics",
        "traces",
    )  # fmt: skip

    def __init__(self, metrics: Metrics, spans: Spans | None = None) -> None:
        self.metrics = metrics
        self.errors = 0
        metrics.watch_observer(lambda: self.errors)
        self._failures = FailureLog(_LOG)
        self._spans = spans
        self._until_timed = 1
        self.traces = spans is not None
        """Whether spans are created."""
        self._calls = metrics.calls
        self._staged_calls = metrics.staged_calls
        self._record = None if spans is None else spans.record
        self._samples = None if spans is None else spans.sampling.samples
        if spans is not None:
            queue, sampling = spans.queue, spans.sampling
            metrics.watch_spans(
                lambda: queue.exported,
                lambda: {"queue_full": queue.dropped, "export_failed": queue.failed, "rate": sampling.skipped},
                lambda: queue.queued,
            )

    def sample(self, ratio: float) -> None:
        """Trace this share (0 to 1) of the calls without a parent span from now on, if spans are exported."""
        if self._spans is not None:
            self._spans.sampling.ratio = ratio

    def begin(self, metadata: Sequence[tuple[str, str | bytes]]) -> Stages | None:
        """Return where to record the stages of a call, None if they are not timed.

        Sampled calls are timed, and so is one of `TIMED_CALLS` others.
        """
        try:
            sampled = self._samples is not None and self._samples(metadata)
        except Exception as error:  # noqa: BLE001  the decision goes on without a span
            self._failed(error, "")
            return None
        self._until_timed -= 1
        if sampled or self._until_timed <= 0:
            self._until_timed = TIMED_CALLS
            return Stages(time.time_ns, sampled=sampled)
        return None

    def observe(self, event: CheckEvent) -> None:
        """Record one answered call."""
        try:
            decision, calls, stages = event.decision, self._calls, event.stages
            took = event.ended_ns - event.started_ns
            calls.append((decision.verdict, decision.reason, decision.policy, decision.rule_name, took))
            if stages is not None:  # not the event itself: it would keep the request in memory
                self._staged_calls.append((stages, event.started_ns, event.ended_ns))
            if len(calls) >= BATCH_CALLS:
                self.metrics.count_batch()
            if self._record is not None and (stages is not None or decision.verdict is not Verdict.ALLOW):
                self._record(event)  # other calls are neither sampled nor kept
        except Exception as error:  # noqa: BLE001  telemetry must not affect the answer
            self._failed(error, event.decision_id)

    def _failed(self, error: Exception, decision_id: str) -> None:
        self.errors += 1
        self._failures.error("telemetry failed, the answer stands", error, decision_id)

    def hurry(self) -> None:
        """Make `close` return at once and drop the spans that are not yet sent."""
        if self._spans is not None:
            self._spans.hurry()

    def close(self) -> None:
        """Send queued spans. Blocks for at most `CLOSE_SECONDS`."""
        if self._spans is not None:
            self._spans.close()


def build_observer(
    *,
    exporter: BatchExporter | None = None,
    resource: Resource | None = None,
    sample_ratio: float = 1.0,
    keep: Collection[Keep] = (),
) -> TelemetryObserver:
    """Create the observer. Without `exporter` it creates and sends no spans.

    `sample_ratio` (0 to 1) is the share of calls without a parent span that are traced; `keep` names the kinds that are
    always traced. `resource` describes the exporting process.
    """
    metrics = Metrics(__version__)
    if exporter is None or resource is None:
        return TelemetryObserver(metrics)
    from zta_authz.telemetry.spans import Spans  # noqa: PLC0415  the SDK costs megabytes that only tracing needs

    return TelemetryObserver(metrics, Spans(exporter, resource, sample_ratio, __version__, keep))

"""Metrics of signals: events by source, type and outcome, their lag, and the state of each source."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from zta_authz.administrator.signals.intake import Result
    from zta_authz.administrator.signals.service import SourceState

EVENTS: Final = "zta_signal_events"
LAG: Final = "zta_signal_lag_seconds"
HEARD: Final = "zta_signal_source_heard_age_seconds"
VERIFIED: Final = "zta_signal_source_verified_age_seconds"
FAILING: Final = "zta_signal_source_failing"
STALE: Final = "zta_signal_source_stale"
HELD: Final = "zta_signal_events_held"
LAG_BUCKETS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)


class SignalMetrics(Collector):
    """Implements `SignalsObserver`. At collection, `states` returns the state of each source.

    `held` returns the number of held events by source.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self.states: Callable[[], Iterable[SourceState]] = tuple
        self.held: Callable[[], Mapping[str, int]] = dict
        self._clock = clock
        self._events = Counter(EVENTS, "Security events received.", ("source", "type", "outcome"), registry=registry)
        self._lag = Histogram(
            LAG, "Time from an event to its commit.", ("source",), buckets=LAG_BUCKETS, registry=registry
        )
        registry.register(self)

    def received(self, source: str, event_type: str, result: Result, lag_seconds: float | None) -> None:
        """Count one security event."""
        self._events.labels(source, event_type, result).inc()
        if lag_seconds is not None:
            self._lag.labels(source).observe(max(0.0, lag_seconds))

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of each source."""
        now = self._clock()
        heard = GaugeMetricFamily(HEARD, "Time since a source's last security event.", labels=("source",))
        verified = GaugeMetricFamily(VERIFIED, "Time since a source's stream was verified.", labels=("source",))
        failing = GaugeMetricFamily(FAILING, "1 while a source's events can't be received.", labels=("source",))
        stale = GaugeMetricFamily(STALE, "1 while a source was not heard for its maxSilence.", labels=("source",))
        held = GaugeMetricFamily(HELD, "Events that wait for an operator.", labels=("source",))
        for source, count in sorted(self.held().items()):
            held.add_metric((source,), count)
        for state in self.states():
            silent = state.heard_at is None or now - state.heard_at > state.max_silence
            stale.add_metric((state.name,), float(silent))
            failing.add_metric((state.name,), float(bool(state.failure)))
            if state.heard_at is not None:
                heard.add_metric((state.name,), now - state.heard_at)
            if state.verified_at is not None:
                verified.add_metric((state.name,), now - state.verified_at)
        yield from (heard, verified, failing, stale, held)

"""Metrics of the administrator: followers, the published view, failures of the store and of the access log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from zta_authz.administrator.access_events import EventKind
from zta_authz.administrator.signals.metrics import SignalMetrics
from zta_authz.administrator.webhooks.metrics import WebhookMetrics
from zta_authz.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

FOLLOWERS: Final = "zta_administrator_followers"
REVISION: Final = "zta_administrator_revision"
ITEMS: Final = "zta_administrator_items"
FAILING: Final = "zta_administrator_failing"
EVENTS: Final = "zta_access_events"
CALLS: Final = "zta_administrator_calls"
PARTS: Final = ("store", "access_log")


class AdministratorMetrics(Collector):
    """Collects the state of the administrator at each reading. The composition root sets what it reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.signals = SignalMetrics(self.registry)
        self.webhooks = WebhookMetrics(self.registry)
        self.followers: Callable[[], int] = int
        self.revision: Callable[[], int] = int
        self.keys: Callable[[], list[str]] = list
        self.failures: Callable[[], dict[str, str]] = dict
        self.calls: Callable[[], Mapping[tuple[str, str], int]] = dict
        self.events: Callable[[], Mapping[str, int]] = dict
        self.registry.register(self)

    def page(self) -> tuple[bytes, str]:
        """Return all metrics as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield GaugeMetricFamily(FOLLOWERS, "Decision points that follow now.", self.followers())
        yield GaugeMetricFamily(REVISION, "The revision of the published view.", self.revision())
        items = GaugeMetricFamily(ITEMS, "Items of the published view.", labels=("kind",))
        for kind, count in sorted(Counter(key.partition("/")[0] for key in self.keys()).items()):
            items.add_metric((kind,), count)
        yield items
        failing = GaugeMetricFamily(FAILING, "1 while this part fails.", labels=("part",))
        failures = self.failures()
        for part in PARTS:
            failing.add_metric((part,), float(bool(failures.get(part))))
        yield failing
        written, events = self.events(), CounterMetricFamily(EVENTS, "Events in the access log.", labels=("kind",))
        for event_kind in EventKind:
            events.add_metric((event_kind,), written.get(event_kind, 0))
        yield events
        calls = CounterMetricFamily(CALLS, "Calls of the operations.", labels=("api", "result"))
        for (api, result), count in sorted(self.calls().items()):
            calls.add_metric((api, result), count)
        yield calls

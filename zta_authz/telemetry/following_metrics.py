"""Metrics of following the administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from zta_authz.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from zta_authz.ports import FollowingStatus

STREAMS_HELP: Final = "Streams from the administrator that were begun."
REFUSED_UPDATES_HELP: Final = "Updates of the administrator that could not be applied."


class FollowingMetrics(Collector):
    """Reads the status at each collection."""

    def __init__(self, status: Callable[[], FollowingStatus], uptime: Callable[[], float]) -> None:
        """`uptime` stands for the age of a view that was never received."""
        self._status = status
        self._uptime = uptime

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        status = self._status()
        age = self._uptime() if status.age is None else status.age
        yield GaugeMetricFamily(
            names.FOLLOWING_AGE, "Time since the administrator was last heard, or since the start.", age
        )
        yield GaugeMetricFamily(
            names.FOLLOWING_CONNECTED, "1 while the administrator is reachable.", float(status.connected)
        )
        yield GaugeMetricFamily(
            names.FOLLOWING_STALE, "1 while the view is too old for grants and signals to count.", float(status.stale)
        )
        yield GaugeMetricFamily(names.FOLLOWING_REVISION, "The revision of the view.", status.revision)
        items = GaugeMetricFamily(names.FOLLOWING_ITEMS, "Items of the view.", labels=("kind",))
        for kind, count in status.items.items():
            items.add_metric((kind,), count)
        yield items
        yield CounterMetricFamily(names.FOLLOWING_STREAMS, STREAMS_HELP, status.streams)
        yield CounterMetricFamily(
            names.FOLLOWING_REFUSED_ITEMS, "Items of the administrator that could not be read.", status.refused_items
        )
        yield CounterMetricFamily(names.FOLLOWING_REFUSED_UPDATES, REFUSED_UPDATES_HELP, status.refused_updates)

"""Metrics that prometheus_client would count one by one or not see: tallies of many calls, and numbers of others."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

_NANOSECONDS = 1_000_000_000


class Durations(Collector):
    """A histogram of times. They are added in nanoseconds, many at once, and shown in seconds."""

    def __init__(self, name: str, help_text: str, buckets: Sequence[float]) -> None:
        """`buckets` are upper bounds in seconds, in order, without infinity."""
        self._name = name
        self._help = help_text
        self._bounds = tuple(round(bound * _NANOSECONDS) for bound in buckets)
        self._labels = (*(str(float(bound)) for bound in buckets), "+Inf")
        self._counts = [0] * len(self._labels)
        self._sum = 0

    def add(self, nanoseconds: Iterable[int]) -> None:
        """Count these times; one below 0, of a clock set back, counts as no time."""
        for each in nanoseconds:
            time = max(0, each)
            self._counts[bisect_left(self._bounds, time)] += 1
            self._sum += time

    def collect(self) -> Iterator[Metric]:
        """The histogram as it is now."""
        cumulative = accumulate(self._counts)
        family = HistogramMetricFamily(self._name, self._help)
        buckets = [(label, float(count)) for label, count in zip(self._labels, cumulative, strict=True)]
        family.add_metric([], buckets, self._sum / _NANOSECONDS)
        yield family


class Readings(Collector):
    """Numbers that are kept elsewhere, read when they are asked for."""

    def __init__(self) -> None:
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []

    def counter(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives, a number that only grows."""
        self._counters.append((name, help_text, read))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives."""
        self._gauges.append((name, help_text, read))

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        for name, help_text, read in self._counters:
            yield CounterMetricFamily(name, help_text, value=read())
        for name, help_text, read in self._gauges:
            yield GaugeMetricFamily(name, help_text, value=read())

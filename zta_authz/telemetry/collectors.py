"""Collectors beside prometheus_client's: histograms that count many values at once, and metrics read by callbacks."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

_NANOSECONDS = 1_000_000_000


class DurationHistogram(Collector):
    """A histogram of durations, one for each value of an optional label.

    Durations are added in nanoseconds, many at once, and exposed in seconds.
    """

    def __init__(
        self, name: str, help_text: str, buckets: Sequence[float], label: str = "", values: Sequence[str] = ("",)
    ) -> None:
        """Create it with ascending upper bounds in seconds (without infinity) and all `values` of `label`."""
        self._name = name
        self._help = help_text
        self._label = label
        self._series = {value: _Series(buckets) for value in values}

    def add(self, nanoseconds: Iterable[int], value: str = "") -> None:
        """Count durations under a label value. A negative one (the clock was set back) counts as 0."""
        self._series[value].add(nanoseconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the current histograms."""
        family = HistogramMetricFamily(self._name, self._help, labels=(self._label,) if self._label else ())
        for value, series in self._series.items():
            family.add_metric((value,) if self._label else (), series.buckets(), series.seconds)
        yield family


class _Series:
    """The histogram of one label value."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self._bounds = tuple(round(bound * _NANOSECONDS) for bound in buckets)
        self._labels = (*(str(float(bound)) for bound in buckets), "+Inf")
        self._counts = [0] * len(self._labels)
        self._sum = 0

    def add(self, nanoseconds: Iterable[int]) -> None:
        """Count durations. A negative one (the clock was set back) counts as 0."""
        times = sorted(nanoseconds)  # so that there is one search per bound and not one per value
        if times and times[0] < 0:
            times = [max(0, time) for time in times]
        counts, before = self._counts, 0
        for number, bound in enumerate(self._bounds):
            until = bisect_right(times, bound, before)
            counts[number] += until - before
            before = until
        counts[-1] += len(times) - before
        self._sum += sum(times)

    def buckets(self) -> list[tuple[str, float]]:
        """Return the cumulative count of each bound."""
        return [(label, float(count)) for label, count in zip(self._labels, accumulate(self._counts), strict=True)]

    @property
    def seconds(self) -> float:
        """The sum of all durations."""
        return self._sum / _NANOSECONDS


class CallbackMetrics(Collector):
    """Counters and gauges whose values are read from callbacks at collection."""

    def __init__(self) -> None:
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._labeled: list[tuple[str, str, str, Callable[[], Mapping[str, float]]]] = []

    def counter(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Expose the result of `read`, a number that only grows."""
        self._counters.append((name, help_text, read))

    def counters(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Expose the result of `read`, numbers that only grow, by values of `label`."""
        self._labeled.append((name, help_text, label, read))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Expose the result of `read`."""
        self._gauges.append((name, help_text, read))

    def collect(self) -> Iterator[Metric]:
        """Yield the current values."""
        for name, help_text, read in self._counters:
            yield CounterMetricFamily(name, help_text, value=read())
        for name, help_text, label, read_all in self._labeled:
            family = CounterMetricFamily(name, help_text, labels=(label,))
            for value, number in read_all().items():
                family.add_metric((value,), number)
            yield family
        for name, help_text, read in self._gauges:
            yield GaugeMetricFamily(name, help_text, value=read())

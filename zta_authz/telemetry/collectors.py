"""Metrics that prometheus_client would count one by one or not see: tallies of many calls, and numbers of others."""

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


class Durations(Collector):
    """A histogram of times, one for each value of a label if there is one.

    They are added in nanoseconds, many at once, and shown in seconds.
    """

    def __init__(
        self, name: str, help_text: str, buckets: Sequence[float], label: str = "", values: Sequence[str] = ("",)
    ) -> None:
        """`buckets` are upper bounds in seconds, in order, without infinity; `values` all that `label` may be."""
        self._name = name
        self._help = help_text
        self._label = label
        self._series = {value: _Series(buckets) for value in values}

    def add(self, nanoseconds: Iterable[int], value: str = "") -> None:
        """Count these times under a value of the label; one below 0, of a clock set back, counts as no time."""
        self._series[value].add(nanoseconds)

    def collect(self) -> Iterator[Metric]:
        """The histograms as they are now."""
        family = HistogramMetricFamily(self._name, self._help, labels=(self._label,) if self._label else ())
        for value, series in self._series.items():
            family.add_metric((value,) if self._label else (), series.buckets(), series.seconds)
        yield family


class _Series:
    """One histogram."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self._bounds = tuple(round(bound * _NANOSECONDS) for bound in buckets)
        self._labels = (*(str(float(bound)) for bound in buckets), "+Inf")
        self._counts = [0] * len(self._labels)
        self._sum = 0

    def add(self, nanoseconds: Iterable[int]) -> None:
        """Count these times; one below 0, of a clock set back, counts as no time."""
        times = sorted(nanoseconds)  # so that each bound is looked for once, and not each time
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
        """How many times were at most as long as each bound."""
        return [(label, float(count)) for label, count in zip(self._labels, accumulate(self._counts), strict=True)]

    @property
    def seconds(self) -> float:
        """All times together."""
        return self._sum / _NANOSECONDS


class Readings(Collector):
    """Numbers that are kept elsewhere, read when they are asked for."""

    def __init__(self) -> None:
        self._counters: list[tuple[str, str, Callable[[], float]]] = []
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._labeled: list[tuple[str, str, str, Callable[[], Mapping[str, float]]]] = []

    def counter(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives, a number that only grows."""
        self._counters.append((name, help_text, read))

    def counters(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Show what `read` gives, by values of `label`: numbers that only grow."""
        self._labeled.append((name, help_text, label, read))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives."""
        self._gauges.append((name, help_text, read))

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        for name, help_text, read in self._counters:
            yield CounterMetricFamily(name, help_text, value=read())
        for name, help_text, label, read_all in self._labeled:
            family = CounterMetricFamily(name, help_text, labels=(label,))
            for value, number in read_all().items():
                family.add_metric((value,), number)
            yield family
        for name, help_text, read in self._gauges:
            yield GaugeMetricFamily(name, help_text, value=read())

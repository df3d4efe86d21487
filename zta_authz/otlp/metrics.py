"""Prometheus' metric families as the SDK's metrics: the same names, labels and numbers as on `/metrics`.

    counter             Sum, monotonic and cumulative, since its `_created` or since we began
    histogram           Histogram with explicit bounds, cumulative; counts of each bucket alone
    gauge, info, other  Gauge, one for each name of their samples

`_created` series become start times and are not sent. The SDK's own instruments would count everything a second time,
on the path of each check. Source: OpenTelemetry metrics data model; its compatibility with Prometheus and OpenMetrics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from zta_authz.otlp.values import SCOPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from opentelemetry.sdk.resources import Resource
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.samples import Sample

    from zta_authz.otlp.exporters import Exporter
    from zta_authz.otlp.messages import Answer

Labels = tuple[tuple[str, str], ...]
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_CREATED: Final = "_created"
_NANOSECONDS: Final = 1_000_000_000
_ACCUMULATED: Final = frozenset(("counter", "histogram"))
_HAVE_START: Final = _ACCUMULATED | {"summary"}  # which the SDK's data model does not have: its samples become gauges


class StartTimes:
    """Since when each series adds up: since it was created, or since `began`; since the last time if it went back.

    A series that goes back without a new start would be read as a mistake (data model: "resets and gaps").
    """

    def __init__(self, began_ns: int) -> None:
        self._began = self._last = began_ns
        self._known: dict[tuple[str, Labels], tuple[float, int]] = {}
        self._seen: dict[tuple[str, Labels], tuple[float, int]] = {}

    def start(self, name: str, labels: Labels, value: float, created_ns: int | None) -> int:
        """When the series that has `value` now began, in nanoseconds since the epoch."""
        known = self._known.get((name, labels))
        if known is None:
            start = self._began if created_ns is None else created_ns
        else:
            start = self._last if value < known[0] else known[1]
        self._seen[name, labels] = (value, start)
        return start

    def next(self, now_ns: int) -> None:
        """All series have been asked about at `now_ns`; those that are gone are forgotten."""
        self._known, self._seen, self._last = self._seen, {}, now_ns


class _Point:
    """The samples of one series of a family."""

    def __init__(self) -> None:
        self.value = self.count = self.sum = 0.0
        self.bounds: list[tuple[float, float]] = []  # a bound, and its number


def metrics_data(
    families: Iterable[Family], resource: Resource, scope: InstrumentationScope, starts: StartTimes, now_ns: int
) -> tuple[MetricsData, int]:
    """The families as they are at `now_ns`, for the SDK's exporters, and how many data points they have."""
    families = list(families)
    created = dict(_created(families))
    accumulated = {family.name for family in families if family.type in _HAVE_START}
    metrics: list[Metric] = []
    for family in families:
        base = family.name.removesuffix(_CREATED)
        if base == family.name or base not in accumulated:
            metrics.extend(_convert(family, created, starts, now_ns))
    starts.next(now_ns)
    data = MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])
    return data, sum(len(metric.data.data_points) for metric in metrics)


def _created(families: Iterable[Family]) -> Iterator[tuple[tuple[str, Labels], int]]:
    """When series began: from a registry as samples of their families, from a text as families of their own."""
    for family in families:
        for sample in family.samples:
            if sample.name.endswith(_CREATED) and math.isfinite(sample.value):
                yield (sample.name.removesuffix(_CREATED), _labels(sample)), round(sample.value * _NANOSECONDS)


def _convert(
    family: Family, created: dict[tuple[str, Labels], int], starts: StartTimes, now_ns: int
) -> Iterator[Metric]:
    unit = "s" if family.name.endswith("_seconds") else ""
    if family.type not in _ACCUMULATED:
        yield from _gauges(family, unit, now_ns)
        return
    series = _series(family)
    if not series:
        return  # a metric without data points says nothing
    since = {
        labels: starts.start(
            family.name,
            labels,
            point.value if family.type == "counter" else point.count,
            created.get((family.name, labels)),
        )
        for labels, point in series.items()
    }
    if family.type == "counter":
        sums = [_number(labels, point.value, now_ns, since[labels]) for labels, point in series.items()]
        yield Metric(f"{family.name}_total", family.documentation, unit, Sum(sums, _CUMULATIVE, is_monotonic=True))
    else:
        histograms = [_histogram(labels, point, now_ns, since[labels]) for labels, point in series.items()]
        yield Metric(family.name, family.documentation, unit, Histogram(histograms, _CUMULATIVE))


def _gauges(family: Family, unit: str, now_ns: int) -> Iterator[Metric]:
    by_name: dict[str, list[NumberDataPoint]] = {}
    for sample in family.samples:
        if family.type in _HAVE_START and sample.name.endswith(_CREATED):
            continue
        by_name.setdefault(sample.name, []).append(_number(_labels(sample), sample.value, now_ns))
    for name, points in by_name.items():
        yield Metric(name, family.documentation, unit, Gauge(points))


def _series(family: Family) -> dict[Labels, _Point]:
    """The series of a family that adds up, by their labels without that of buckets."""
    series: dict[Labels, _Point] = {}
    special = "le" if family.type == "histogram" else None
    for sample in family.samples:
        if sample.name.endswith(_CREATED):
            continue
        point = series.setdefault(_labels(sample, special), _Point())
        if special is not None and special in sample.labels:
            point.bounds.append((float(sample.labels[special]), sample.value))
        elif special is None:
            point.value = sample.value
        elif sample.name.endswith("_count"):
            point.count = sample.value
        elif sample.name.endswith("_sum"):
            point.sum = sample.value
    return series


def _labels(sample: Sample, without: str | None = None) -> Labels:
    return tuple(sorted((name, text) for name, text in sample.labels.items() if name != without))


def _number(labels: Labels, value: float, now_ns: int, since_ns: int = 0) -> NumberDataPoint:
    return NumberDataPoint(dict(labels), since_ns, now_ns, float(value))


def _histogram(labels: Labels, point: _Point, now_ns: int, since_ns: int) -> HistogramDataPoint:
    """Prometheus counts what is at most each bound; OTLP what is between it and the one before."""
    upto = sorted(point.bounds)
    counts = [number - before for (_, number), before in zip(upto, [0.0, *(each for _, each in upto)], strict=False)]
    unknown: Any = None  # the least and the greatest, which Prometheus does not keep and OTLP may leave out
    return HistogramDataPoint(
        dict(labels),
        since_ns,
        now_ns,
        count=int(point.count),
        sum=point.sum,
        bucket_counts=[int(number) for number in counts],
        explicit_bounds=[bound for bound, _ in upto if math.isfinite(bound)],
        min=unknown,
        max=unknown,
    )


class MetricsExporter:
    """Sends families as one request. Blocks; one thread uses it. `began_ns` is when their process did."""

    def __init__(self, exporter: Exporter, resource: Resource, version: str, began_ns: int) -> None:
        self._exporter = exporter
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, version)
        self._starts = StartTimes(began_ns)

    def export(self, families: Sequence[Family], now_ns: int) -> Answer:
        """What the collector made of the families as they were at `now_ns`."""
        data, points = metrics_data(families, self._resource, self._scope, self._starts, now_ns)
        return self._exporter.export(data, points)

    def close(self) -> None:
        """End retries and connections."""
        self._exporter.shutdown()

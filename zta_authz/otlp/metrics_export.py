"""Converts Prometheus metric families to the SDK's metrics, with the same names, labels and numbers as `/metrics`.

    counter             Sum, monotonic and cumulative, since its `_created` time or the start of the process
    histogram           Histogram with explicit bounds, cumulative, with separate counts for each bucket
    gauge, info, other  Gauge, one for each sample name

`_created` series become start times and are not sent. The SDK's own instruments would count everything a second time,
on the request path. Source: OpenTelemetry metrics data model; its compatibility with Prometheus and OpenMetrics.
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
    from zta_authz.otlp.messages import ExportResult

Labels = tuple[tuple[str, str], ...]
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
_CREATED: Final = "_created"
_NANOSECONDS: Final = 1_000_000_000
_ACCUMULATED: Final = frozenset(("counter", "histogram"))
_HAVE_START: Final = _ACCUMULATED | {"summary"}  # the SDK's data model has no summary: its samples become gauges


class StartTimes:
    """The start time of each series: its creation, or `began_ns`, or the last push if its value went down.

    A value that goes down without a new start time would be an error (data model: "resets and gaps").
    """

    def __init__(self, began_ns: int) -> None:
        self._began = self._last = began_ns
        self._known: dict[tuple[str, Labels], tuple[float, int]] = {}
        self._seen: dict[tuple[str, Labels], tuple[float, int]] = {}

    def start(self, name: str, labels: Labels, value: float, created_ns: int | None) -> int:
        """Return the start of the series that now has `value`, in nanoseconds since the epoch."""
        known = self._known.get((name, labels))
        if known is None:
            start = self._began if created_ns is None else created_ns
        else:
            start = self._last if value < known[0] else known[1]
        self._seen[name, labels] = (value, start)
        return start

    def next(self, now_ns: int) -> None:
        """End the pass at `now_ns`: forget series that were not asked about."""
        self._known, self._seen, self._last = self._seen, {}, now_ns


class _Point:
    """The samples of one series of a family."""

    def __init__(self) -> None:
        self.value = self.count = self.sum = 0.0
        self.bounds: list[tuple[float, float]] = []  # upper bound, cumulative count


def metrics_data(
    families: Iterable[Family], resource: Resource, scope: InstrumentationScope, starts: StartTimes, now_ns: int
) -> tuple[MetricsData, int]:
    """Convert the families at `now_ns` for the SDK's exporters. Return them and their number of data points."""
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
    """Yield when series began. A registry has `_created` samples in their families, a parsed text separate families."""
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
        return  # a metric without data points is not sent
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
    """Group the samples of a counter or histogram by their labels without `le`."""
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
    """Convert a histogram. Prometheus counts values up to each bound, OTLP values between two bounds."""
    cumulative = sorted(point.bounds)
    previous = [0.0, *(count for _, count in cumulative)]
    counts = [count - before for (_, count), before in zip(cumulative, previous, strict=False)]
    unknown: Any = None  # minimum and maximum: Prometheus does not keep them, and they are optional in OTLP
    return HistogramDataPoint(
        dict(labels),
        since_ns,
        now_ns,
        count=int(point.count),
        sum=point.sum,
        bucket_counts=[int(number) for number in counts],
        explicit_bounds=[bound for bound, _ in cumulative if math.isfinite(bound)],
        min=unknown,
        max=unknown,
    )


class MetricsExporter:
    """Sends families in one blocking request. Only one thread may use it. `began_ns` is the process's start time."""

    def __init__(self, exporter: Exporter, resource: Resource, version: str, began_ns: int) -> None:
        self._exporter = exporter
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, version)
        self._starts = StartTimes(began_ns)

    def export(self, families: Sequence[Family], now_ns: int) -> ExportResult:
        """Send the families as of `now_ns` and return the result."""
        data, points = metrics_data(families, self._resource, self._scope, self._starts, now_ns)
        return self._exporter.export(data, points)

    def close(self) -> None:
        """Stop retries and close connections."""
        self._exporter.shutdown()

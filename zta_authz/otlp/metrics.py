"""Prometheus' metric families to a collector: the same names, labels and numbers as on `/metrics`.

    counter             Sum, monotonic and cumulative, since its `_created` or since we began
    histogram           Histogram with explicit bounds, cumulative; counts of each bucket alone
    summary             Summary
    gauge, info, other  Gauge, one for each name of their samples

`_created` series become start times and are not sent. Source: OpenTelemetry metrics data model; its compatibility with
Prometheus and OpenMetrics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)

from zta_authz.otlp.replies import answer
from zta_authz.otlp.values import pairs, resource, scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.samples import Sample

    from zta_authz.otlp.messages import Answer, Origin
    from zta_authz.otlp.transports import Transport

Labels = tuple[tuple[str, str], ...]
_CUMULATIVE: Final = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
_CREATED: Final = "_created"
_NANOSECONDS: Final = 1_000_000_000
_ACCUMULATED: Final = frozenset(("counter", "histogram", "summary"))


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
        self.bounds: list[tuple[float, float]] = []  # bound or quantile, and its number


def encode_metrics(families: Iterable[Family], origin: Origin, starts: StartTimes, now_ns: int) -> tuple[bytes, int]:
    """An ExportMetricsServiceRequest of the families as they are at `now_ns`, and how many data points it has."""
    families = list(families)
    created = dict(_created(families))
    accumulated = {family.name for family in families if family.type in _ACCUMULATED}
    metrics: list[Metric] = []
    for family in families:
        base = family.name.removesuffix(_CREATED)
        if base == family.name or base not in accumulated:
            metrics.extend(_encode(family, created, starts, now_ns))
    starts.next(now_ns)
    told = ScopeMetrics(scope=scope(origin), metrics=metrics)
    request = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=resource(origin), scope_metrics=[told])]
    )
    return request.SerializeToString(), sum(_points(metric) for metric in metrics)


def _created(families: Iterable[Family]) -> Iterator[tuple[tuple[str, Labels], int]]:
    """When series began: from a registry as samples of their families, from a text as families of their own."""
    for family in families:
        for sample in family.samples:
            if sample.name.endswith(_CREATED) and math.isfinite(sample.value):
                yield (sample.name.removesuffix(_CREATED), _labels(sample)), round(sample.value * _NANOSECONDS)


def _encode(
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
    name = f"{family.name}_total" if family.type == "counter" else family.name
    metric = Metric(name=name, description=family.documentation, unit=unit)
    if family.type == "counter":
        sums = [_number(labels, point.value, now_ns, since[labels]) for labels, point in series.items()]
        metric.sum.CopyFrom(Sum(data_points=sums, aggregation_temporality=_CUMULATIVE, is_monotonic=True))
    elif family.type == "histogram":
        histograms = [_histogram(labels, point, now_ns, since[labels]) for labels, point in series.items()]
        metric.histogram.CopyFrom(Histogram(data_points=histograms, aggregation_temporality=_CUMULATIVE))
    else:
        summaries = [_summary(labels, point, now_ns, since[labels]) for labels, point in series.items()]
        metric.summary.CopyFrom(Summary(data_points=summaries))
    yield metric


def _gauges(family: Family, unit: str, now_ns: int) -> Iterator[Metric]:
    by_name: dict[str, list[NumberDataPoint]] = {}
    for sample in family.samples:
        by_name.setdefault(sample.name, []).append(_number(_labels(sample), sample.value, now_ns))
    for name, points in by_name.items():
        yield Metric(name=name, description=family.documentation, unit=unit, gauge=Gauge(data_points=points))


def _series(family: Family) -> dict[Labels, _Point]:
    """The series of a family that adds up, by their labels without those of buckets and quantiles."""
    series: dict[Labels, _Point] = {}
    special = {"histogram": "le", "summary": "quantile"}.get(family.type)
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
    return NumberDataPoint(
        attributes=pairs(labels), start_time_unix_nano=since_ns, time_unix_nano=now_ns, as_double=value
    )


def _histogram(labels: Labels, point: _Point, now_ns: int, since_ns: int) -> HistogramDataPoint:
    """Prometheus counts what is at most each bound; OTLP what is between it and the one before."""
    upto = sorted(point.bounds)
    counts = [number - before for (_, number), before in zip(upto, [0.0, *(each for _, each in upto)], strict=False)]
    return HistogramDataPoint(
        attributes=pairs(labels),
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=int(point.count),
        sum=point.sum,
        bucket_counts=[int(count) for count in counts],
        explicit_bounds=[bound for bound, _ in upto if not math.isinf(bound)],
    )


def _summary(labels: Labels, point: _Point, now_ns: int, since_ns: int) -> SummaryDataPoint:
    return SummaryDataPoint(
        attributes=pairs(labels),
        start_time_unix_nano=since_ns,
        time_unix_nano=now_ns,
        count=int(point.count),
        sum=point.sum,
        quantile_values=[
            SummaryDataPoint.ValueAtQuantile(quantile=quantile, value=value) for quantile, value in sorted(point.bounds)
        ],
    )


def _points(metric: Metric) -> int:
    data = getattr(metric, metric.WhichOneof("data") or "gauge")
    return len(data.data_points)


class MetricsExporter:
    """Sends families as one request. Blocks; one thread uses it. `began_ns` is when their process did."""

    def __init__(self, transport: Transport, origin: Origin, began_ns: int) -> None:
        self._transport = transport
        self._origin = origin
        self._starts = StartTimes(began_ns)

    def export(self, families: Sequence[Family], now_ns: int, seconds: float) -> Answer:
        """What the collector made of the families as they were at `now_ns`."""
        payload, points = encode_metrics(families, self._origin, self._starts, now_ns)
        reply = self._transport.send(payload, seconds)
        return answer(reply, ExportMetricsServiceResponse, "rejected_data_points", points)

    def close(self) -> None:
        """Give connections back."""
        self._transport.close()

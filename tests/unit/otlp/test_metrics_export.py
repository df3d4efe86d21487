"""Families as OTLP metrics: every type has the same numbers in both formats, and counters that go down restart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family, UnknownMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tests.support.collector import Collector, HttpCollector, values_of
from zta_authz.otlp.exporters import open_exporter
from zta_authz.otlp.messages import ExportResult, ExportStatus, Signal, Target
from zta_authz.otlp.metrics_export import MetricsExporter, StartTimes, metrics_data

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

RESOURCE = Resource({"service.name": "zta-authz"})
SCOPE = InstrumentationScope("zta_authz", "1.2.3")
BEGAN, NOW = 10, 20

Shown = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def encoded(families: Iterable[Family], starts: StartTimes | None = None, now: int = NOW) -> dict[str, Metric]:
    data, points = metrics_data(families, RESOURCE, SCOPE, starts or StartTimes(BEGAN), now)
    [resource] = encode_metrics(data).resource_metrics
    [scope] = resource.scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    assert len(metrics) == len(scope.metrics)
    assert points == sum(len(data_of(metric).data_points) for metric in metrics.values())
    return metrics


def data_of(metric: Metric) -> Any:
    return getattr(metric, str(metric.WhichOneof("data")))


def shown_by(families: Iterable[Family]) -> Shown:
    """Return the series of a `/metrics` page without `_created`."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def read_back(metrics: dict[str, Metric]) -> Shown:
    """Return the same series, read from the OTLP metrics."""
    shown: Shown = {}
    for name, metric in metrics.items():
        for point in data_of(metric).data_points:
            labels = {key: str(value) for key, value in values_of(point.attributes).items()}

            def put(suffix: str, value: float, labels: dict[str, str] = labels, name: str = name, **more: str) -> None:
                shown[name + suffix, tuple(sorted((labels | more).items()))] = value

            kind = metric.WhichOneof("data")
            if kind in ("sum", "gauge"):
                put("", point.as_double)
                continue
            put("_count", point.count)
            put("_sum", point.sum)
            upto = 0
            for bound, count in zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=True):
                upto += count
                put("_bucket", upto, le="+Inf" if math.isinf(bound) else str(bound))
    return shown


TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r"), max_size=8)
NUMBERS = st.floats(0, 1e9)


@st.composite
def registries(draw: st.DrawFn) -> CollectorRegistry:
    """Draw one metric of every type, each with a few series."""
    registry = CollectorRegistry(auto_describe=False)
    labels = draw(st.lists(TEXTS, min_size=1, max_size=3, unique=True))
    counter = Counter("a_things", "Things.", ("l",), registry=registry)
    gauge = Gauge("b_seconds", "Seconds.", ("l",), registry=registry)
    histogram = Histogram("c_seconds", "Times.", ("l",), registry=registry, buckets=(0.5, 1.0, 2.5))
    summary = Summary("d_bytes", "Bytes.", ("l",), registry=registry)
    for label in labels:
        counter.labels(label).inc(draw(NUMBERS))
        gauge.labels(label).set(draw(st.floats(allow_nan=False)))
        for number in draw(st.lists(st.floats(0, 4), max_size=5)):
            histogram.labels(label).observe(number)
            summary.labels(label).observe(number)
    Info("e", "What it is.", registry=registry).info({"version": draw(TEXTS)})
    Enum("f", "State.", states=["on", "off"], registry=registry).state("off")
    return registry


@given(registries())
def test_every_type_of_family_has_the_same_numbers_in_both_formats(registry: CollectorRegistry) -> None:
    families = list(registry.collect())
    assert read_back(encoded(families)) == shown_by(families)


@given(registries())
def test_a_parsed_page_is_converted_like_its_registry(registry: CollectorRegistry) -> None:
    page = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert read_back(encoded(page)) == shown_by(registry.collect())


def registry_of_all() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("a_things", "Things.", registry=registry).inc(2)
    Gauge("b_seconds", "Seconds.", registry=registry)
    Histogram("c_seconds", "Times.", registry=registry, buckets=(0.5, 1.0)).observe(0.7)
    Info("e", "What it is.", registry=registry).info({"version": "1"})
    return registry


@pytest.mark.parametrize("from_text", [False, True])
def test_every_type_is_converted_as_documented(from_text: bool) -> None:
    registry = registry_of_all()
    families: Iterable[Family] = registry.collect()
    if from_text:
        families = text_string_to_metric_families(generate_latest(registry).decode())
    metrics = encoded(families)
    assert set(metrics) == {"a_things_total", "b_seconds", "c_seconds", "e_info"}
    total, times = metrics["a_things_total"].sum, metrics["c_seconds"].histogram
    assert (total.is_monotonic, total.aggregation_temporality, times.aggregation_temporality) == (True, 2, 2)
    [point] = times.data_points
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([0, 1, 0], [0.5, 1.0])
    created = registry.get_sample_value("a_things_created")
    assert created is not None
    assert total.data_points[0].start_time_unix_nano == pytest.approx(created * 1e9, abs=1e6)
    assert {metric.unit for name, metric in metrics.items() if name.endswith("_seconds")} == {"s"}
    assert metrics["e_info"].gauge.data_points[0].as_double == 1
    assert {point.time_unix_nano for metric in metrics.values() for point in data_of(metric).data_points} == {NOW}


def test_an_unknown_type_becomes_a_gauge() -> None:
    metrics = encoded([UnknownMetricFamily("g", "What?", value=3.5)])
    assert metrics["g"].gauge.data_points[0].as_double == 3.5


def test_a_metric_without_series_is_left_out() -> None:
    assert encoded([Family("a", "None.", "counter"), Family("b", "None.", "gauge")]) == {}


def counter_at(value: float, label: str = "x") -> Family:
    family = Family("a", "Things.", "counter")
    family.add_sample("a_total", {"l": label}, value)
    return family


def starts_of(metrics: dict[str, Metric]) -> list[int]:
    return [point.start_time_unix_nano for point in metrics["a_total"].sum.data_points]


def test_a_counter_that_goes_down_restarts_at_the_last_push() -> None:
    starts = StartTimes(BEGAN)
    seen = [
        starts_of(encoded([counter_at(value)], starts, now))[0] for value, now in ((5, 20), (7, 30), (2, 40), (3, 50))
    ]
    assert seen == [BEGAN, BEGAN, 30, 30]


def test_series_that_disappear_are_forgotten() -> None:
    starts = StartTimes(BEGAN)
    for number in range(5):
        encoded([counter_at(1, str(number))], starts)
    assert len(starts._known) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_families_arrive_and_rejected_points_are_reported(protocol: Any) -> None:
    with Collector() if protocol == "grpc" else HttpCollector() as collector:
        sdk = open_exporter(Target(collector.endpoint, protocol), Signal.METRICS)
        exporter = MetricsExporter(sdk, RESOURCE, "1.2.3", BEGAN)
        assert exporter.export([counter_at(5)], NOW) == ExportResult(ExportStatus.ACCEPTED)
        collector.rejected, collector.message = 3, "out of order"
        assert exporter.export([counter_at(6)], NOW) == ExportResult(ExportStatus.ACCEPTED, 1, "out of order")
        exporter.close()
    assert len(collector.pushes) == 2

"""The collectors expose the same samples as prometheus_client's."""

from __future__ import annotations

from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from zta_authz.telemetry.collectors import CallbackMetrics, DurationHistogram

BUCKETS = (0.00025, 0.001, 0.5, 1.0)
EDGES = st.sampled_from([int(bound * 1e9) + off for bound in BUCKETS for off in (-1, 0, 1)])


def shown(registry: CollectorRegistry) -> list[str]:
    """Return the samples without `_created` and the sum, which is rounded once instead of at each call."""
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line and "_sum" not in line]


@given(st.lists(EDGES | st.integers(0, 3_000_000_000)))
def test_a_batch_of_durations_gives_the_same_histogram_as_single_observations(times: list[int]) -> None:
    registry, reference = CollectorRegistry(), CollectorRegistry()
    durations = DurationHistogram("seconds", "Times.", BUCKETS)
    registry.register(durations)
    histogram = Histogram("seconds", "Times.", buckets=BUCKETS, registry=reference)
    durations.add(times)
    for time in times:
        histogram.observe(time / 1e9)
    assert shown(registry) == shown(reference)
    assert registry.get_sample_value("seconds_sum") == sum(times) / 1e9


def test_a_callback_metric_is_read_at_collection() -> None:
    registry, address_forms, number = CollectorRegistry(), CallbackMetrics(), 1
    registry.register(address_forms)
    address_forms.counter("lost", "Lost.", lambda: number)
    address_forms.gauge("waiting", "Waiting.", lambda: number * 10)
    number = 3
    assert registry.get_sample_value("lost_total") == 3
    assert registry.get_sample_value("waiting") == 30

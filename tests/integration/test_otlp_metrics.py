"""A real service whose metrics are pushed to a collector: the same numbers as on the page, from one place."""

from __future__ import annotations

import math
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.test_serve import Place, check, get
from tests.integration.test_workers import sample, wait_until
from tests.support.collector import Collector, HttpCollector, values_of
from tests.support.service import RunningService

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from tests.support.collector import Received

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]
MOVING = (
    *("zta_metrics_pushes_total", "zta_trust_bundle_age_seconds"),
    *("process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds"),
)
"""What is another number a moment later."""


def numbers_of(page: str) -> Numbers:
    """What the page shows."""
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(page)
        for each in family.samples
        if each.name not in MOVING
    }


def pushed(request: ExportMetricsServiceRequest) -> Numbers:
    """The same of a push."""
    [resource] = request.resource_metrics
    found: Numbers = {}
    for metric in resource.scope_metrics[0].metrics:
        data: Any = getattr(metric, str(metric.WhichOneof("data")))
        for point in data.data_points:
            labels = {name: str(value) for name, value in values_of(point.attributes).items()}
            shown = (
                {(metric.name, tuple(sorted(labels.items()))): point.as_double} if hasattr(point, "as_double") else {}
            )
            if not shown:
                counts = zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=True)
                upto = 0
                for bound, count in counts:
                    upto += count
                    le = "+Inf" if math.isinf(bound) else str(bound)
                    shown[f"{metric.name}_bucket", tuple(sorted((labels | {"le": le}).items()))] = upto
                key = tuple(sorted(labels.items()))
                shown |= {(f"{metric.name}_count", key): point.count, (f"{metric.name}_sum", key): point.sum}
            found |= {each: value for each, value in shown.items() if each[0] not in MOVING}
    return found


def instances(collector: Received) -> set[object]:
    return {
        values_of(resource.resource.attributes)["service.instance.id"]
        for push in collector.pushes
        for resource in push.resource_metrics
    }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def wanting(collector: Received | str, protocol: str = "grpc") -> str:
    endpoint = collector if isinstance(collector, str) else collector.endpoint  # type: ignore[attr-defined]
    return f"metrics: {{otlp: {{endpoint: '{endpoint}', protocol: {protocol}, interval_seconds: 1}}}}\n"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_push_says_what_the_page_says_at_the_same_moment(place: Place, protocol: str) -> None:
    with Collector() if protocol == "grpc" else HttpCollector() as collector:
        place.write_config(wanting(collector, protocol))
        with RunningService(place.config) as service:
            said = service.wait_for("serving")
            for method in ("GET", "GET", "DELETE"):
                check(f"unix:{place.socket}", method)
            time.sleep(0.2)
            page = numbers_of(get(said["health"], "/metrics")[1])
            seen = len(collector.pushes)
            collector.wait_until(lambda: len(collector.pushes) > seen)
            assert pushed(collector.pushes[-1]) == page
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
        assert len(instances(collector)) == 1
    key = (("reason", "allow_policy"), ("verdict", "allow"))
    assert page["zta_decisions_total", key] == pushed(collector.pushes[-1])["zta_decisions_total", key] == 2


def test_the_last_push_is_made_at_the_end(place: Place) -> None:
    with Collector() as collector:
        place.write_config(wanting(collector).replace("interval_seconds: 1", "interval_seconds: 3600"))
        with RunningService(place.config) as service:
            service.wait_for("serving")
            check(f"unix:{place.socket}")
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
    [push] = collector.pushes
    assert pushed(push)["zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow"))] == 1


@pytest.mark.parametrize("hangs", [False, True])
def test_a_dead_collector_is_counted_said_once_and_slows_nothing(place: Place, hangs: bool) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if hangs:
            nobody.listen(8)
        place.write_config(wanting(f"http://127.0.0.1:{nobody.getsockname()[1]}"))
        with RunningService(place.config) as service:
            health = service.wait_for("serving")["health"]
            took = []
            while not sample(get(health, "/metrics")[1], "zta_metrics_push_failures_total") > (0 if hangs else 1):
                began = time.monotonic()
                assert check(f"unix:{place.socket}").status.code == 0
                took.append(time.monotonic() - began)
                assert sum(took) < 30
            service.signal(signal.SIGTERM)
            status, _, said = service.wait()
    assert status == 0
    assert sorted(took)[len(took) // 2] < 0.5
    assert said.count("the collector does not take all metrics") == 1


def test_two_workers_push_one_set_of_all_together(place: Place) -> None:
    with Collector() as collector:
        place.write_config(f"workers: 2\nserver: fast\n{wanting(collector)}")
        with RunningService(place.config) as service:
            health = service.wait_for("all workers serve")["health"]
            for number in (1, 1, 2):
                check(f"unix:{place.socket}.{number}")
            key = ("zta_decisions_total", (("reason", "allow_policy"), ("verdict", "allow")))
            wait_until(lambda: bool(collector.pushes) and pushed(collector.pushes[-1]).get(key) == 3)
            page = numbers_of(get(health, "/metrics")[1])
            assert pushed(collector.pushes[-1]) == page
            assert page["zta_workers", ()] == 2
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
    assert len(instances(collector)) == 1
    assert pushed(collector.pushes[-1])[key] == 3


def test_two_workers_send_each_record_once(place: Place) -> None:
    with Collector() as collector:
        place.write_config(
            f"workers: 2\nserver: fast\naudit: {{sink: otlp, otlp: {{endpoint: '{collector.endpoint}'}}}}\n"
        )
        with RunningService(place.config) as service:
            service.wait_for("all workers serve")
            asked = [
                str(check(f"unix:{place.socket}.{number}").dynamic_metadata["decision_id"]) for number in (1, 2, 1, 2)
            ]
            service.signal(signal.SIGTERM)
            assert service.wait()[0] == 0
    assert sorted(record.body.string_value.split('"decision_id":"')[1][:32] for record in collector.logs) == sorted(
        asked
    )

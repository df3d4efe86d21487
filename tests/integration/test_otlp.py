"""A real service and its collector: spans arrive, and a collector that is gone, hangs or comes back harms no decision."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench import scenario
from bench.load import LoadClient, Outcome
from tests.support.collector import Collector, HttpCollector, Refusal, attributes_of
from tests.support.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.scenario import Scenario

SECONDS = 1.5


@contextlib.contextmanager
def service(
    directory: Path, endpoint: str, protocol: str = "grpc", **tracing: str
) -> Iterator[tuple[Scenario, RunningService, str]]:
    """A service on the fast server that traces every call; its health listener's address last."""
    what = scenario.build("svid", 3, directory, "fast")
    settings = json.loads(what.config.read_text())
    settings["tracing"] = {"otlp": {"endpoint": endpoint, "protocol": protocol} | tracing}
    settings["health"] = {"listen": "127.0.0.1:0"}
    settings["audit"] = {"sink": "none"}
    what.config.write_text(json.dumps(settings))
    with RunningService(what.config) as running:
        yield what, running, running.wait_for("serving")["health"]


async def drive(what: Scenario, seconds: float = SECONDS, concurrency: int = 8) -> Outcome:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(lambda: LoadClient(what.request, concurrency), str(what.socket))
    outcome = await client.run(seconds)
    client.close()
    return outcome


def metrics(health: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{health}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_every_span_arrives_with_its_stages_and_is_counted(tmp_path: Path) -> None:
    with Collector() as collector, service(tmp_path, collector.endpoint) as (what, running, _):
        outcome = await drive(what, 0.3, 2)
        running.signal(signal.SIGTERM)
        assert (await asyncio.to_thread(running.wait))[0] == 0
    assert outcome.failures == 0
    assert len(collector.spans) == outcome.calls
    name, span = collector.spans[0]
    assert name == "zta-authz"
    assert attributes_of(span)["zta.verdict"] == "allow"
    assert [event.name for event in span.events] == ["zta.parse", "zta.identity", "zta.match"]
    assert span.start_time_unix_nano <= span.events[0].time_unix_nano <= span.end_time_unix_nano


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("kind", ["gone", "hanging"])
async def test_a_collector_that_does_not_answer_slows_and_fails_no_decision(
    protocol: str, kind: str, tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "hanging":
            listener.listen(8)  # connections are made, and nobody ever reads from them
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with service(tmp_path, endpoint, protocol) as (what, running, health):
            outcome = await drive(what, 3.0)
            shown = await asyncio.to_thread(metrics, health)
            running.signal(signal.SIGTERM)
            begun = time.monotonic()
            status, _, _ = await asyncio.to_thread(running.wait)
    assert outcome.failures == 0
    assert outcome.calls > 300
    assert max(outcome.latencies) < 1.0
    assert sorted(outcome.latencies)[int(outcome.calls * 0.99)] < 0.1
    lost = sum(shown[f"zta_spans_dropped_total/{cause}"] for cause in ("queue_full", "export_failed"))
    assert shown["zta_spans_exported_total"] == 0
    assert shown["zta_spans_queue_records"] <= 4096
    assert lost + shown["zta_spans_queue_records"] >= outcome.calls - 512  # a batch may be on its way
    assert status == 0
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_batch_that_was_refused_once_arrives_with_our_credentials(protocol: str, tmp_path: Path) -> None:
    credentials = tmp_path / "headers"
    credentials.write_text("authorization: Bearer ours\n")
    kind = Collector if protocol == "grpc" else HttpCollector
    with kind() as collector:
        collector.refusals.append(Refusal())
        with service(tmp_path, collector.endpoint, protocol, headers_file=str(credentials)) as (what, running, _):
            outcome = await drive(what, 0.2, 1)
            running.signal(signal.SIGTERM)
            assert (await asyncio.to_thread(running.wait))[0] == 0
    assert len(collector.spans) == outcome.calls
    assert len(collector.headers) >= 2
    assert {each["authorization"] for each in collector.headers} == {"Bearer ours"}


async def test_spans_arrive_again_when_the_collector_is_back(tmp_path: Path) -> None:
    with Collector() as first:
        port = first.port
        with service(tmp_path, first.endpoint) as (what, _, _):
            await drive(what, 0.1, 1)
            await asyncio.to_thread(first.wait_for, bool)
            first.__exit__()
            assert (await drive(what, 0.5, 1)).failures == 0
            with Collector(port) as second:
                assert (await drive(what, 0.5, 1)).failures == 0
                await asyncio.to_thread(second.wait_for, bool, 40)

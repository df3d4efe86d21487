"""A real service whose decision log goes to a collector: each decision arrives once, whatever becomes of the collector."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from bench import scenario
from tests.integration.test_otlp import drive, metrics
from tests.integration.test_serve import CHECK, Place
from tests.support.check_requests import check_request
from tests.support.collector import Collector, HttpCollector, Refusal, attributes_of
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.collector import Received

SECRET = "5ecret"
PARENT = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)


class Service:
    """A service in a process of its own whose records go to `endpoint`."""

    def __init__(self, place: Place, endpoint: str, protocol: str = "grpc", more: str = "", audit: str = "") -> None:
        collector = f"{{endpoint: '{endpoint}', protocol: {protocol}}}"
        place.write_config(f"audit: {{sink: otlp, otlp: {collector}{audit}}}\n{more}")
        self.target = f"unix:{place.socket}"
        self.running = RunningService(place.config, OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20token")

    def __enter__(self) -> Service:
        self.running.__enter__()
        self.health = str(self.running.wait_for("serving")["health"])
        return self

    def __exit__(self, *_: object) -> None:
        self.running.__exit__()

    def ask(self, number: int, method: str = "GET", metadata: Any = ()) -> list[str]:
        """Ask so many times; the ids of the decisions, of those that were denied for want of a record "full"."""
        headers = [("authorization", f"Bearer {SECRET}".encode()), ("cookie", SECRET.encode())]
        payload = check_request(headers, method=method, path=f"/?q={SECRET}").SerializeToString()

        async def ask_all() -> list[bytes]:
            async with grpc.aio.insecure_channel(self.target) as channel:
                call = channel.unary_unary(CHECK)
                return [await call(payload, timeout=5, metadata=metadata) for _ in range(number)]

        return [told(CheckResponse.FromString(answer)) for answer in asyncio.run(ask_all())]

    def stop(self) -> tuple[int, bytes, str]:
        self.running.signal(signal.SIGTERM)
        return self.running.wait()


def told(answer: CheckResponse) -> str:
    if answer.status.message == "audit_unavailable":
        return "full"
    return str(answer.dynamic_metadata["decision_id"])


def ids(collector: Received) -> list[str]:
    return [str(attributes_of(record)["zta.decision_id"]) for record in collector.logs]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@contextlib.contextmanager
def collecting(protocol: str, port: int = 0) -> Iterator[Collector | HttpCollector]:
    with Collector(port) if protocol == "grpc" else HttpCollector(port) as collector:
        yield collector


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_each_decision_arrives_once_without_a_secret(place: Place, protocol: str) -> None:
    with collecting(protocol) as collector:
        with Service(place, collector.endpoint, protocol) as service:
            asked = [*service.ask(700), *service.ask(3, "DELETE")]
            assert service.stop()[0] == 0
        assert ids(collector) == asked
        records = [json.loads(record.body.string_value) for record in collector.logs]
        assert [record["decision_id"] for record in records] == asked
        assert {record["verdict"] for record in records[:700]} == {"allow"}
        assert {(record.severity_text, record.severity_number) for record in collector.logs} == {
            ("INFO", 9),
            ("WARN", 13),
        }
        assert all(SECRET.encode() not in request.SerializeToString() for request in collector.requests)
        assert all(headers["authorization"] == "Bearer token" for headers in collector.headers)
        assert max(len(list_of(request)) for request in collector.requests) <= 512


def list_of(request: Any) -> Any:
    return request.resource_logs[0].scope_logs[0].log_records


@pytest.mark.parametrize("server", ["grpcio", "fast"])
@pytest.mark.parametrize("parent", [PARENT, ()])
def test_a_record_and_its_span_have_the_same_ids(place: Place, server: str, parent: Any) -> None:
    with Collector() as collector:
        more = f"server: {server}\ntracing: {{otlp_endpoint: '{collector.endpoint}'}}\n"
        with Service(place, collector.endpoint, more=more) as service:
            [asked] = service.ask(1, metadata=parent)
            assert service.stop()[0] == 0
        [(_, span)], [record] = collector.spans, collector.logs
        assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
        assert record.trace_id.hex() == ("a" * 32 if parent else asked)
        [resource] = collector.requests[0].resource_logs
        assert {each.key for each in resource.resource.attributes} == {
            "service.name",
            "service.version",
            "service.instance.id",
        }


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_collector_that_is_down_at_first_dies_and_returns_gets_every_record(place: Place, protocol: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Service(place, f"http://127.0.0.1:{port}", protocol) as service:
        asked = service.ask(20)
        time.sleep(0.8)
        with collecting(protocol, port) as first:
            first.wait_until(lambda: len(first.logs) >= 20, 30)
            asked += service.ask(20)
            first.wait_until(lambda: len(first.logs) >= 40, 30)
        began = time.monotonic()
        asked += service.ask(20)
        assert time.monotonic() - began < 5
        time.sleep(0.8)
        with collecting(protocol, port) as second:
            second.refusals.extend([Refusal(), Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 1)])
            second.wait_until(lambda: len(second.logs) >= 20, 40)
            shown = metrics(service.health)
            status, _, said = service.stop()
    assert status == 0
    # A collector that ends before it has answered is taken for one that got nothing: the batch is sent again.
    assert list(dict.fromkeys(ids(first) + ids(second))) == asked
    assert shown["zta_audit_dropped_total"] == 0
    assert said.count("the collector takes no decision records") == 2
    assert said.count("the collector takes decision records again") == 2
    assert "token" not in said


@pytest.mark.parametrize(("on_full", "beyond"), [("deny", "full"), ("drop_and_count", "")])
def test_while_it_is_down_and_the_queue_is_full_on_full_holds(place: Place, on_full: str, beyond: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        service = Service(place, endpoint, audit=f", on_full: {on_full}", more="drain_seconds: 0\n")
        with service:
            asked = service.ask(8192 + 512 + 300)
            shown = metrics(service.health)
            service.stop()
    assert asked[:8192].count("full") == 0
    assert all(answer == beyond if beyond else answer != "full" for answer in asked[-100:])
    assert shown["zta_audit_dropped_total"] >= 100
    assert shown["zta_audit_queue_records"] == 8192


def test_records_that_the_collector_rejects_are_counted_as_dropped(place: Place) -> None:
    with Collector() as collector:
        collector.rejected, collector.message = 2, "too old"
        with Service(place, collector.endpoint) as service:
            service.ask(5)
            collector.wait_until(lambda: len(collector.logs) >= 5)
            deadline = time.monotonic() + 10
            while metrics(service.health)["zta_audit_dropped_total"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert "too old" in service.stop()[2]


def test_the_end_sends_what_is_queued_until_the_drain_is_over(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Service(place, f"http://127.0.0.1:{port}") as service:
        asked = service.ask(10)
        time.sleep(0.5)
        service.running.signal(signal.SIGTERM)
        time.sleep(1.0)
        with Collector(port) as collector:
            status, _, _ = service.running.wait()
    assert status == 0
    assert ids(collector) == asked


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_that_hangs_slows_and_fails_no_decision(tmp_path: Path, protocol: str) -> None:
    what = scenario.build("svid", 3, tmp_path, "fast")
    settings = json.loads(what.config.read_text())
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nobody.listen(8)  # connections are made, and nobody ever reads from them
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        otlp = {"endpoint": endpoint, "protocol": protocol}
        settings["audit"] = {"sink": "otlp", "otlp": otlp, "on_full": "drop_and_count"}
        settings["health"] = {"listen": None}
        what.config.write_text(json.dumps(settings))
        with RunningService(what.config) as running:
            running.wait_for("serving")
            outcome = await drive(what, 3.0)
            running.process.kill()
    assert outcome.failures == 0
    assert outcome.calls > 300
    assert max(outcome.latencies) < 1.0
    assert sorted(outcome.latencies)[int(outcome.calls * 0.99)] < 0.1

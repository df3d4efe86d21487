"""Failures of docs/failures.md that need a whole process: a decision log that blocks, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.integration.test_otlp import metrics
from tests.integration.test_serve import CHECK, Place
from tests.support.check_requests import check_request
from tests.support.collector import Collector, attributes_of
from tests.support.service import RunningService
from zta_authz._proto.ext_authz_pb2 import CheckResponse

if TYPE_CHECKING:
    from pathlib import Path

SERVERS = pytest.mark.parametrize("server", ["grpcio", "fast"])
QUEUE = 8192
"""Records that wait for the sink, as documented; those that it has in its hands come on top."""
AT_ONCE = 16


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def answers(socket: str, number: int) -> list[CheckResponse]:
    """What so many checks are answered, asked some at a time."""
    payload = check_request().SerializeToString()

    async def ask_all() -> list[bytes]:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call = channel.unary_unary(CHECK)
            found: list[bytes] = []
            while len(found) < number:
                found += await asyncio.gather(*(call(payload, timeout=20) for _ in range(AT_ONCE)))
            return found

    return [CheckResponse.FromString(answer) for answer in asyncio.run(ask_all())]


def reason(answer: CheckResponse) -> str:
    """Why it was denied, "" for an allow."""
    return json.loads(answer.denied_response.body)["reason"] if answer.HasField("denied_response") else ""


@SERVERS
@pytest.mark.parametrize("on_full", ["deny", "drop_and_count"])
def test_a_sink_that_blocks_denies_allows_or_drops_records_and_never_waits(
    place: Place, on_full: str, server: str
) -> None:
    more = f"server: {server}\naudit: {{sink: stdout, on_full: {on_full}}}\n"
    place.write_config(more)
    socket = str(place.socket)
    with RunningService(place.config) as service:  # whose standard output nobody reads
        health = str(service.wait_for("serving")["health"])
        while metrics(health)["zta_audit_dropped_total"] == 0:
            answers(socket, 1000)
        began = time.monotonic()
        last = answers(socket, 64)
        assert time.monotonic() - began < 10
        shown = metrics(health)
        if on_full == "deny":
            assert {(reason(each), each.denied_response.status.code) for each in last} == {("audit_unavailable", 503)}
        else:
            assert {reason(each) for each in last} == {""}
        assert shown["zta_audit_queue_records"] == QUEUE
        assert shown["zta_audit_dropped_total"] >= 64
        read_some(service)
        while any(map(reason, answers(socket, AT_ONCE))):
            read_some(service)
        service.signal(signal.SIGTERM)
        assert service.wait()[0] == 0


def read_some(service: RunningService) -> None:
    """Let the sink go on for a while."""
    assert service.process.stdout is not None
    os.read(service.process.stdout.fileno(), 1 << 20)


@SERVERS
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_flushes_the_decision_log_and_the_spans(place: Place, server: str, workers: int) -> None:
    sockets = [str(place.socket)] if workers == 1 else [f"{place.socket}.{number}" for number in (1, 2)]
    with Collector() as collector:
        tracing = f"tracing: {{otlp_endpoint: '{collector.endpoint}', sample_ratio: 1.0}}"
        place.write_config(f"server: {server}\naudit: {{sink: stdout}}\n{tracing}\nworkers: {workers}\n")
        with RunningService(place.config) as service:
            service.wait_for("serving" if workers == 1 else "all workers serve")
            asked = [answer for socket in sockets for answer in answers(socket, 3 * AT_ONCE)]
            service.signal(signal.SIGTERM)  # before the two seconds are over after which spans are sent
            status, out, _ = service.wait()
    assert status == 0
    recorded = sorted(json.loads(line)["decision_id"] for line in out.splitlines())
    assert recorded == sorted(str(each.dynamic_metadata["decision_id"]) for each in asked)
    assert sorted(str(attributes_of(span)["zta.decision_id"]) for _, span in collector.spans) == recorded
    assert len(recorded) == workers * 3 * AT_ONCE

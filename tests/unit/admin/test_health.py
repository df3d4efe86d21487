from __future__ import annotations

import asyncio
import json
import platform
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.snapshots import FixedSnapshot, hatshop
from tests.support.minting import KEY, ring
from tests.support.pki import NOW
from zta_authz import __version__
from zta_authz.admin import http_listener
from zta_authz.admin.health import HealthServer
from zta_authz.admin.state import AuditStatus, KeyKind, KeyStatus, Phase, ServiceState
from zta_authz.errors import Fault, SettingsErrors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METRICS = (b"zta_up 1\n", "text/plain; version=1.0.0")


def serving_state() -> ServiceState:
    state = ServiceState(FixedSnapshot(hatshop()), lambda: 7.0)
    state.phase = Phase.SERVING
    return state


@asynccontextmanager
async def running(state: ServiceState, metrics: Any = lambda: METRICS) -> AsyncIterator[int]:
    server = HealthServer("127.0.0.1", 0, state, metrics)
    address = await server.start()
    try:
        yield int(address.rpartition(":")[2])
    finally:
        await server.stop()


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def get(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    answer = await exchange(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


async def test_a_serving_process_is_alive_and_ready() -> None:
    state = serving_state()
    async with running(state) as port:
        assert (await get(port, "/healthz"))[0] == 200
        status, headers, body = await get(port, "/readyz")
    assert (status, headers["content-type"], headers["connection"]) == (200, "application/json", "close")
    assert state.snapshot is not None
    assert json.loads(body) == {
        "ready": True,
        "obstacles": [],
        "blanket_denials": [],
        "phase": "serving",
        "table_digest": state.snapshot.digest,
        "table_age_seconds": 7.0,
        "policy_reload_failed": False,
        "load_errors": 0,
        "warnings": 0,
        "issuers_without_keys": [],
        "audit": {"failing": "", "queued": 0, "oldest_unwritten_seconds": 0.0},
    }


async def test_a_failing_decision_log_is_reported_on_both_pages() -> None:
    state = serving_state()
    state.audit = lambda: AuditStatus("No space left on device", 12, 3.5)
    async with running(state) as port:
        pages = [await get(port, "/readyz"), await get(port, "/healthz")]
    for status, _, body in pages:
        assert status == 200
        assert json.loads(body)["audit"] == {
            "failing": "No space left on device",
            "queued": 12,
            "oldest_unwritten_seconds": 3.5,
        }


async def test_issuers_without_keys_are_named_and_do_not_affect_readiness() -> None:
    keys = [
        KeyStatus(KeyKind.JWKS, f"https://{name}.example", count, 0) for name, count in (("b", 0), ("a", 0), ("c", 2))
    ]
    state = ServiceState(FixedSnapshot(hatshop()), lambda: 7.0, lambda _: keys)
    state.phase = Phase.SERVING
    async with running(state) as port:
        status, _, body = await get(port, "/readyz")
    assert (status, json.loads(body)["issuers_without_keys"]) == (200, ["https://a.example", "https://b.example"])


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.DRAINING])
async def test_a_process_that_starts_or_drains_is_alive_but_not_ready(phase: Phase) -> None:
    state = serving_state()
    state.phase = phase
    async with running(state) as port:
        assert (await get(port, "/healthz"))[0] == 200
        status, _, body = await get(port, "/readyz")
    assert status == 503
    assert json.loads(body)["obstacles"] == [phase.value]


async def test_a_process_without_rules_is_not_ready() -> None:
    state = ServiceState(FixedSnapshot(None), lambda: 7.0)
    state.phase = Phase.SERVING
    async with running(state) as port:
        status, _, body = await get(port, "/readyz")
    assert (status, json.loads(body)["obstacles"]) == (503, ["no rules loaded"])


async def test_metrics_are_served_with_their_content_type() -> None:
    async with running(serving_state()) as port:
        status, headers, body = await get(port, "/metrics?name=x")
    assert (status, headers["content-type"], body) == (200, METRICS[1], METRICS[0])


async def test_the_version_is_served() -> None:
    async with running(serving_state()) as port:
        fields = json.loads((await get(port, "/version"))[2])
    assert fields == {"version": __version__, "python": platform.python_version(), "uptime_seconds": 0.0}


async def test_liveness_reports_the_obstacles_to_readiness() -> None:
    state = serving_state()
    state.phase = Phase.DRAINING
    async with running(state) as port:
        status, headers, body = await get(port, "/healthz")
        assert (await get(port, "/readyz"))[2] == body
    assert (status, headers["content-type"], json.loads(body)["obstacles"]) == (200, "application/json", ["draining"])


async def test_refused_policies_are_reported_and_do_not_affect_readiness() -> None:
    state = serving_state()
    state.load_errors = (Fault("policies/orders.yaml", 7, 1, "secret", ""),)
    async with running(state) as port:
        status, _, body = await get(port, "/readyz")
    fields = json.loads(body)
    assert (status, fields["policy_reload_failed"], fields["load_errors"]) == (200, True, 1)
    assert b"secret" not in body
    assert b"orders" not in body


async def test_a_process_that_can_not_determine_its_readiness_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(serving_state()) as port:
        monkeypatch.setattr(ServiceState, "obstacles", None)
        assert (await get(port, "/readyz"))[0] == 500
        assert [(await get(port, "/healthz"))[at] for at in (0, 2)] == [200, b"{}\n"]


def test_exactly_the_fields_of_the_pages_are_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "health.md").read_text(encoding="utf-8")
    state = serving_state()
    server = HealthServer("", 0, state, lambda: METRICS)
    fields = {*json.loads(server.page(b"/readyz").body), *json.loads(server.page(b"/version").body)}
    assert set(re.findall(r"(?m)^- \*\*`(\w+)`\*\*", text)) == fields


async def test_head_gets_the_head_only() -> None:
    async with running(serving_state()) as port:
        status, headers, body = await get(port, "/healthz", "HEAD")
    assert (status, int(headers["content-length"]) > 2, body) == (200, True, b"")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET  /healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_other_requests_get_an_error_status(request_bytes: bytes, status: int) -> None:
    async with running(serving_state()) as port:
        assert (await exchange(port, request_bytes)).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("bound", ["TIMEOUT_SECONDS", "HEAD_SECONDS"])
async def test_a_slow_client_is_disconnected(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, bound, 0.05)
    async with running(serving_state()) as port:
        assert await exchange(port, b"GET /healthz HTTP/1.1\r\n") == b""


async def test_silent_clients_are_replaced_the_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_listener, "HEAD_SECONDS", 60)
    monkeypatch.setattr(http_listener, "TIMEOUT_SECONDS", 60)
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 4)
    async with running(serving_state()) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        idle[3][1].write(b"GET /healthz HTTP/1.1\r\n")  # not a whole head either
        await asyncio.sleep(0.05)
        assert (await get(port, "/healthz"))[0] == 200
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(idle[0][0].read(), 5) == b""
        idle[3][1].write(b"\r\n")
        assert (await asyncio.wait_for(idle[3][0].read(), 5)).startswith(b"HTTP/1.1 200 ")
        assert not idle[1][0].at_eof()
        for _, writer in idle:
            writer.close()


LARGE = (bytes(20_000_000), "text/plain")


async def reading_nothing(port: int, path: str = "/metrics") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a client that sends a request and reads only the beginning of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=100)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    assert (await reader.readexactly(9)).startswith(b"HTTP/1.1 ")
    return reader, writer


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing alone would wait forever and keep its descriptor and its answer."""
    monkeypatch.setattr(http_listener, "TIMEOUT_SECONDS", 0.2)
    server = HealthServer("127.0.0.1", 0, serving_state(), lambda: LARGE)
    port = int((await server.start()).rpartition(":")[2])
    try:
        _, writer = await reading_nothing(port)
        assert len(server.listener.connections) == 1
        await asyncio.wait_for(server.listener.empty.wait(), 5)
        writer.close()
        assert (await get(port, "/version"))[0] == 200  # the control: one that reads gets its answer
    finally:
        await server.stop()


@pytest.mark.parametrize("kind", ["that read nothing", "that were refused", "that say nothing"])
async def test_clients_do_not_keep_a_probe_out(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http_listener, "LINGER_SECONDS", 60)
    monkeypatch.setattr(http_listener, "HEAD_SECONDS", 60)
    monkeypatch.setattr(http_listener, "TIMEOUT_SECONDS", 60)
    async with running(serving_state(), lambda: LARGE) as port:
        there = []
        for _ in range(6):
            if kind == "that say nothing":
                there.append(await asyncio.open_connection("127.0.0.1", port))
            else:
                there.append(await reading_nothing(port, "/metrics" if kind == "that read nothing" else "/nothing"))
        for _ in range(3):
            assert (await get(port, "/healthz"))[0] == 200
        for _, writer in there:
            writer.transport.abort()


async def test_connections_of_the_busiest_address_are_replaced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listener, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(http_listener, "HEAD_SECONDS", 60)
    async with running(serving_state()) as port:
        probe = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        await asyncio.sleep(0.05)
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        await asyncio.sleep(0.05)
        probe[1].write(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert (await asyncio.wait_for(probe[0].read(), 5)).startswith(b"HTTP/1.1 200 ")
        for _, writer in [probe, *crowd]:
            writer.transport.abort()


async def test_concurrent_requests_for_metrics_get_the_same_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zta_authz.admin.health.FRESH_SECONDS", 5.0)
    made = []

    def metrics() -> tuple[bytes, str]:
        made.append(1)
        return METRICS

    async with running(serving_state(), metrics) as port:
        bodies = [(await get(port, "/metrics"))[2] for _ in range(5)]
    assert (len(made), set(bodies)) == (1, {METRICS[0]})


async def test_a_page_that_fails_is_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> tuple[bytes, str]:
        raise RuntimeError

    async with running(serving_state(), broken) as port:
        assert (await get(port, "/metrics"))[0] == 500
    assert "a health page failed" in caplog.text


async def test_an_address_in_use_is_a_fault() -> None:
    async with running(serving_state()) as port:
        with pytest.raises(SettingsErrors, match="cannot listen"):
            await HealthServer("127.0.0.1", port, serving_state(), lambda: METRICS).start()


async def test_stopping_disconnects_waiting_clients() -> None:
    async with running(serving_state()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_the_keys_of_minted_tokens_are_public_and_cacheable() -> None:
    server = HealthServer("127.0.0.1", 0, serving_state(), lambda: METRICS, lambda: ring().published(NOW))
    port = int((await server.start()).rpartition(":")[2])
    try:
        status, headers, body = await get(port, "/.well-known/jwks.json")
        assert (status, headers["content-type"]) == (200, "application/jwk-set+json")
        assert headers["cache-control"] == "max-age=300"
        [key] = json.loads(body)["keys"]
        assert (key["kid"], "d" in key) == (KEY.key_id, False)
        assert (await get(port, "/healthz"))[1]["cache-control"] == "no-store"
    finally:
        await server.stop()


async def test_without_minting_there_are_no_keys() -> None:
    async with running(serving_state()) as port:
        assert (await get(port, "/.well-known/jwks.json"))[0] == 404

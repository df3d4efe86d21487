"""Requests to a real collector over gRPC and HTTP: its replies are understood, and no secret leaks."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tests.support.collector import Collector, HttpCollector, Refusal, attributes_of
from tests.support.pki import pem, private_key, root
from zta_authz.otlp.log_export import EntryEncoder, LogExporter, encode_logs
from zta_authz.otlp.messages import ExportResult, ExportStatus, LogEntry, Origin, Severity, Signal, Target
from zta_authz.otlp.transports import open_transport, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zta_authz.otlp.messages import Protocol

ORIGIN = Origin("zta-authz", "1.2.3", "instance")
ENTRY = LogEntry(1, Severity.INFO, "zta.decision", "{}", (("zta.rule", 0), ("zta.policy", "a/b")), "a" * 32, "b" * 16)
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    name: Protocol = request.param
    return name


@pytest.fixture
def collector(protocol: Protocol) -> Iterator[Collector | HttpCollector]:
    with Collector() if protocol == "grpc" else HttpCollector() as started:
        yield started


def send(target: Target, *entries: LogEntry, seconds: float = 5.0) -> ExportResult:
    exporter = LogExporter(open_transport(target, Signal.LOGS), ORIGIN)
    try:
        return exporter.export([exporter.encode(entry) for entry in entries or (ENTRY,)], seconds)
    finally:
        exporter.close()


def test_an_entry_arrives_unchanged_with_its_resource(collector: Collector, protocol: Protocol) -> None:
    assert send(Target(collector.endpoint, protocol, (("authorization", "Bearer secret"),))) == ExportResult(
        ExportStatus.ACCEPTED
    )
    [record] = collector.logs
    assert (record.time_unix_nano, record.severity_number, record.severity_text) == (1, 9, "INFO")
    assert record.observed_time_unix_nano == pytest.approx(time.time_ns(), abs=60e9)
    assert (record.event_name, record.body.string_value) == ("zta.decision", "{}")
    assert (record.trace_id.hex(), record.span_id.hex()) == ("a" * 32, "b" * 16)
    assert {attribute.key for attribute in record.attributes} == {"zta.rule", "zta.policy"}
    [resource] = collector.requests[0].resource_logs
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes} == {
        "service.name": "zta-authz",
        "service.version": "1.2.3",
        "service.instance.id": "instance",
    }
    assert collector.headers[0]["authorization"] == "Bearer secret"


@given(
    st.lists(
        st.builds(
            LogEntry,
            st.integers(0, 2**63),
            st.sampled_from(Severity),
            st.text(max_size=9),
            st.text(max_size=300),
            st.lists(st.tuples(st.text(max_size=9), st.text(max_size=200) | st.integers(-5, 5)), max_size=4).map(tuple),
            st.sampled_from(("", "a" * 32)),
            st.just(""),
        ),
        max_size=5,
    )
)
def test_entries_are_encoded_as_the_generated_messages_read_them(entries: list[LogEntry]) -> None:
    encode = EntryEncoder().encode
    request = ExportLogsServiceRequest.FromString(encode_logs([encode(entry, 7) for entry in entries], ORIGIN))
    [resource] = request.resource_logs
    assert len(resource.resource.attributes) == 3
    [scope] = resource.scope_logs
    assert scope.scope.name == "zta_authz"
    assert [
        LogEntry(
            record.time_unix_nano,
            Severity(record.severity_text),
            record.event_name,
            record.body.string_value,
            tuple((pair.key, attributes_of(LogRecord(attributes=[pair]))[pair.key]) for pair in record.attributes),
            record.trace_id.hex(),
        )
        for record in scope.log_records
    ] == entries


def test_a_targets_repr_never_contains_its_headers() -> None:
    assert "secret" not in repr(Target("http://a", "grpc", (("authorization", "secret"),)))


def test_invalid_unicode_does_not_make_a_request_fail(collector: Collector, protocol: Protocol) -> None:
    odd = LogEntry(1, Severity.WARN, "e", "\udc80é", (("a", "\udc80"),))
    assert send(Target(collector.endpoint, protocol), odd).status is ExportStatus.ACCEPTED
    assert collector.logs[0].body.string_value == "\\udc80é"


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal(), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 7), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, 502), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.ABORTED, 504, 0), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.UNAUTHENTICATED, 401), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.UNIMPLEMENTED, 404), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.INTERNAL, 500), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.UNKNOWN, 302), ExportStatus.RETRYABLE),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400), ExportStatus.INVALID),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, 413), ExportStatus.INVALID),
    ],
)
def test_only_an_invalid_request_is_given_up(
    collector: Collector, protocol: Protocol, refusal: Refusal, status: ExportStatus
) -> None:
    collector.refusals.append(refusal)
    answer = send(Target(collector.endpoint, protocol))
    assert answer.status is status
    assert answer.detail == (refusal.code.name if protocol == "grpc" else f"HTTP {refusal.status}")
    assert answer.after == refusal.after


def test_rejected_records_are_counted_up_to_the_number_sent(collector: Collector, protocol: Protocol) -> None:
    collector.rejected, collector.message = 1, "too old\x1b[31m"
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY) == ExportResult(
        ExportStatus.ACCEPTED, 1, "too old?[31m"
    )
    collector.rejected = 2**40
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY).rejected == 2
    collector.rejected = -5
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY).rejected == 0


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_is_down_or_hangs_is_retryable(protocol: Protocol, listens: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen(1)
        began = time.monotonic()
        answer = send(Target(f"http://127.0.0.1:{listener.getsockname()[1]}", protocol), seconds=0.5)
    assert answer.status is ExportStatus.RETRYABLE
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "target",
    [
        Target("http://a..b:1", "http"),
        Target("http://127.0.0.1:1", "grpc", (("x-token-bin", "5ecret"),)),
        Target("http://127.0.0.1:1", "grpc", (("x!", "5ecret"),)),
    ],
)
def test_a_request_that_can_not_be_sent_is_retryable_and_not_lost(target: Target) -> None:
    """An exception here would lose a batch of the decision log whose calls were allowed."""
    answer = send(target, seconds=0.5)
    assert answer.status is ExportStatus.RETRYABLE
    assert "5ecret" not in answer.detail


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_reply_that_arrives_byte_by_byte_does_not_exceed_the_time_limit(head: bytes) -> None:
    """Every byte arrives in time, but not the whole reply: in its head, and in its body."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(head)
                for _ in range(60):
                    connection.sendall(b"x")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        answer = send(Target(f"http://127.0.0.1:{server.getsockname()[1]}", "http"), seconds=0.5)
        took = time.monotonic() - begun
        thread.join()
    assert answer.status is ExportStatus.RETRYABLE
    assert took < 3


def test_a_host_named_like_a_grpc_scheme_is_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("4317")
        listener.listen()
        listener.setblocking(False)
        assert send(Target("http://unix:4317"), seconds=0.5).status is ExportStatus.RETRYABLE
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_connection_that_was_closed_in_between_does_not_make_a_request_fail() -> None:
    with HttpCollector() as first:
        transport = open_transport(Target(first.endpoint, "http"), Signal.LOGS)
        exporter = LogExporter(transport, ORIGIN)
        assert exporter.export([exporter.encode(ENTRY)], 5).status is ExportStatus.ACCEPTED
        transport._connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        assert exporter.export([exporter.encode(ENTRY)], 5).status is ExportStatus.ACCEPTED
        exporter.close()
    assert len(first.logs) == 2


@pytest.mark.parametrize(
    ("endpoint", "path"), [("", "/v1/logs"), ("/", "/v1/logs"), ("/mine/logs", "/mine/logs"), ("/l/logs?a=b", None)]
)
def test_an_endpoint_with_a_path_keeps_it(endpoint: str, path: str | None) -> None:
    with HttpCollector() as collector:
        send(Target(collector.endpoint + endpoint, "http"))
    assert collector.paths == [path or endpoint]


class Tls:
    """Files of an authority and of two certificates that it issued."""

    def __init__(self, directory: Path) -> None:
        now = time.time()
        times = {"not_before": now - 60, "not_after": now + 3600}
        authority = root("ca", **times)
        self.directory = directory
        (directory / "ca.pem").write_text(authority.pem)
        (directory / "other.pem").write_text(root("other", **times).pem)
        for number, name in enumerate(("server", "client"), 1):
            key = private_key("P-256", number)
            issued = authority.issue(dns=("localhost",), uris=(), key=key, usage=None, **times)
            (directory / f"{name}.pem").write_text(pem(issued))
            encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            (directory / f"{name}.key").write_bytes(encoded)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def collector(self, protocol: Protocol) -> Collector | HttpCollector:
        """Start a collector that requires a client certificate."""
        if protocol == "http":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
            context.load_verify_locations(self.path("ca.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
            return HttpCollector(context=context)
        read = [(self.directory / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")]
        return Collector(credentials=grpc.ssl_server_credentials([(read[0], read[1])], read[2], True))


def test_under_tls_both_ends_present_certificates(tmp_path: Path, protocol: Protocol) -> None:
    tls = Tls(tmp_path)
    with tls.collector(protocol) as collector:
        endpoint = collector.endpoint.replace("127.0.0.1", "localhost")
        identity = (tls.path("client.pem"), tls.path("client.key"))
        assert send(Target(endpoint, protocol, (), tls.path("ca.pem"), *identity)).status is ExportStatus.ACCEPTED
        assert send(Target(endpoint, protocol, (), tls.path("other.pem"), *identity)).status is ExportStatus.RETRYABLE
        assert send(Target(endpoint, protocol, (), tls.path("ca.pem"))).status is ExportStatus.RETRYABLE
    assert len(collector.logs) == 1


@pytest.mark.parametrize("text", ["", "soon", "-1", "\u0661", "1e3", "9" * 400])
def test_an_invalid_retry_after_is_ignored(text: str) -> None:
    assert retry_after(text) is None


def test_a_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    assert retry_after(" 120 ") == 120
    assert retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) == pytest.approx(
        30, abs=3
    )
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0

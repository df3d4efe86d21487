"""Requests to a real collector, over gRPC and HTTP: what it says is understood, and what it must not learn stays here."""

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
from zta_authz.otlp.logs import LogExporter, encode_entry, encode_logs
from zta_authz.otlp.messages import Answer, Fate, LogEntry, Origin, Severity, Signal, Target
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
    found: Protocol = request.param
    return found


@pytest.fixture
def collector(protocol: Protocol) -> Iterator[Collector | HttpCollector]:
    with Collector() if protocol == "grpc" else HttpCollector() as started:
        yield started


def send(target: Target, *entries: LogEntry, seconds: float = 5.0) -> Answer:
    exporter = LogExporter(open_transport(target, Signal.LOGS), ORIGIN)
    try:
        return exporter.export([exporter.encode(entry) for entry in entries or (ENTRY,)], seconds)
    finally:
        exporter.close()


def test_an_entry_arrives_as_it_is_with_who_says_it(collector: Collector, protocol: Protocol) -> None:
    assert send(Target(collector.endpoint, protocol, (("authorization", "Bearer secret"),))) == Answer(Fate.TAKEN)
    [record] = collector.logs
    assert (record.time_unix_nano, record.severity_number, record.severity_text) == (1, 9, "INFO")
    assert record.observed_time_unix_nano == pytest.approx(time.time_ns(), abs=60e9)
    assert (record.event_name, record.body.string_value) == ("zta.decision", "{}")
    assert (record.trace_id.hex(), record.span_id.hex()) == ("a" * 32, "b" * 16)
    assert {each.key for each in record.attributes} == {"zta.rule", "zta.policy"}
    [resource] = collector.requests[0].resource_logs
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == {
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
    request = ExportLogsServiceRequest.FromString(encode_logs([encode_entry(entry, 7) for entry in entries], ORIGIN))
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
            tuple((each.key, attributes_of(LogRecord(attributes=[each]))[each.key]) for each in record.attributes),
            record.trace_id.hex(),
        )
        for record in scope.log_records
    ] == entries


def test_a_target_never_shows_its_headers() -> None:
    assert "secret" not in repr(Target("http://a", "grpc", (("authorization", "secret"),)))


def test_what_is_no_unicode_costs_no_request(collector: Collector, protocol: Protocol) -> None:
    odd = LogEntry(1, Severity.WARN, "e", "\udc80é", (("a", "\udc80"),))
    assert send(Target(collector.endpoint, protocol), odd).fate is Fate.TAKEN
    assert collector.logs[0].body.string_value == "\\udc80é"


@pytest.mark.parametrize(
    ("refusal", "fate"),
    [
        (Refusal(), Fate.LATER),
        (Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, 7), Fate.LATER),
        (Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, 502), Fate.LATER),
        (Refusal(grpc.StatusCode.ABORTED, 504, 0), Fate.LATER),
        (Refusal(grpc.StatusCode.UNAUTHENTICATED, 401), Fate.LATER),
        (Refusal(grpc.StatusCode.UNIMPLEMENTED, 404), Fate.LATER),
        (Refusal(grpc.StatusCode.INTERNAL, 500), Fate.LATER),
        (Refusal(grpc.StatusCode.UNKNOWN, 302), Fate.LATER),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400), Fate.NEVER),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, 413), Fate.NEVER),
    ],
)
def test_only_what_the_collector_calls_wrong_is_given_up(
    collector: Collector, protocol: Protocol, refusal: Refusal, fate: Fate
) -> None:
    collector.refusals.append(refusal)
    answer = send(Target(collector.endpoint, protocol))
    assert answer.fate is fate
    assert answer.said == (refusal.code.name if protocol == "grpc" else f"HTTP {refusal.status}")
    assert answer.after == refusal.after


def test_what_it_rejects_of_a_request_is_counted_and_never_more_than_was_sent(
    collector: Collector, protocol: Protocol
) -> None:
    collector.rejected, collector.message = 1, "too old\x1b[31m"
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY) == Answer(Fate.TAKEN, 1, "too old?[31m")
    collector.rejected = 2**40
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY).rejected == 2
    collector.rejected = -5
    assert send(Target(collector.endpoint, protocol), ENTRY, ENTRY).rejected == 0


@pytest.mark.parametrize("listens", [False, True])
def test_a_collector_that_is_gone_or_hangs_is_one_for_later(protocol: Protocol, listens: bool) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if listens:
            listener.listen(1)
        began = time.monotonic()
        answer = send(Target(f"http://127.0.0.1:{listener.getsockname()[1]}", protocol), seconds=0.5)
    assert answer.fate is Fate.LATER
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    "target",
    [
        Target("http://a..b:1", "http"),
        Target("http://127.0.0.1:1", "grpc", (("x-token-bin", "5ecret"),)),
        Target("http://127.0.0.1:1", "grpc", (("x!", "5ecret"),)),
    ],
)
def test_what_can_never_be_sent_waits_and_is_not_lost(target: Target) -> None:
    """An exception here would cost the decision log a batch whose calls were allowed."""
    answer = send(target, seconds=0.5)
    assert answer.fate is Fate.LATER
    assert "5ecret" not in answer.said


@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_collector_that_answers_drop_by_drop_keeps_nobody_longer_than_was_said(said: bytes) -> None:
    """Each drop comes in time; all of them would not. In the head of the answer, and in its body."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(said)
                for _ in range(60):
                    connection.sendall(b"x")
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        begun = time.monotonic()
        answer = send(Target(f"http://127.0.0.1:{server.getsockname()[1]}", "http"), seconds=0.5)
        took = time.monotonic() - begun
        thread.join()
    assert answer.fate is Fate.LATER
    assert took < 3


def test_a_host_of_the_name_of_a_grpc_scheme_is_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("4317")
        listener.listen()
        listener.setblocking(False)
        assert send(Target("http://unix:4317"), seconds=0.5).fate is Fate.LATER
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_connection_that_was_closed_meanwhile_costs_no_request() -> None:
    with HttpCollector() as first:
        transport = open_transport(Target(first.endpoint, "http"), Signal.LOGS)
        exporter = LogExporter(transport, ORIGIN)
        assert exporter.export([exporter.encode(ENTRY)], 5).fate is Fate.TAKEN
        transport._connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
        assert exporter.export([exporter.encode(ENTRY)], 5).fate is Fate.TAKEN
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
    """Files of an authority and of two ends that it knows."""

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
        """One that asks for our certificate."""
        if protocol == "http":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
            context.load_verify_locations(self.path("ca.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
            return HttpCollector(context=context)
        read = [(self.directory / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")]
        return Collector(credentials=grpc.ssl_server_credentials([(read[0], read[1])], read[2], True))


def test_under_tls_both_ends_show_who_they_are(tmp_path: Path, protocol: Protocol) -> None:
    tls = Tls(tmp_path)
    with tls.collector(protocol) as collector:
        endpoint = collector.endpoint.replace("127.0.0.1", "localhost")
        ours = (tls.path("client.pem"), tls.path("client.key"))
        assert send(Target(endpoint, protocol, (), tls.path("ca.pem"), *ours)).fate is Fate.TAKEN
        assert send(Target(endpoint, protocol, (), tls.path("other.pem"), *ours)).fate is Fate.LATER
        assert send(Target(endpoint, protocol, (), tls.path("ca.pem"))).fate is Fate.LATER
    assert len(collector.logs) == 1


@pytest.mark.parametrize("text", ["", "soon", "-1", "\u0661", "1e3", "9" * 400])
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert retry_after(text) is None


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after(" 120 ") == 120
    assert retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)) == pytest.approx(
        30, abs=3
    )
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0

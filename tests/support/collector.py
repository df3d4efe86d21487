"""A real OTLP collector for tests: gRPC or HTTP on loopback, which stores spans, log records and metrics."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
}
EXPANDED: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}
REJECTED = {"traces": "rejected_spans", "logs": "rejected_log_records", "metrics": "rejected_data_points"}


@dataclass(frozen=True)
class Refusal:
    """How a request is refused: gRPC's code, HTTP's status, and the seconds after which it may come again."""

    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    status: int = 503
    after: int | None = None


class Received:
    """`spans` are (service's name, span) as they came, `logs` records, `pushes` requests with metrics.

    `refusals` are what becomes of the next requests, `rejected` how many records of each are, with `message`; `headers`
    are those of all requests; `seconds` is how long each takes.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        self.logs: list[LogRecord] = []
        self.requests: list[ExportLogsServiceRequest] = []
        self.pushes: list[ExportMetricsServiceRequest] = []
        self.refusals: deque[Refusal] = deque()
        self.rejected = 0
        self.message = ""
        self.headers: list[dict[str, str]] = []
        self.seconds = 0.0
        self._came = threading.Condition()

    def receive(self, signal: str, payload: bytes, headers: dict[str, str]) -> bytes | Refusal:
        """Store a request and return the response."""
        time.sleep(self.seconds)
        with self._came:
            self.headers.append(headers)
            if self.refusals:
                return self.refusals.popleft()
            answer = getattr(self, f"_{signal}")(payload)
            self._came.notify_all()
        if self.rejected:
            setattr(answer.partial_success, REJECTED[signal], self.rejected)
            answer.partial_success.error_message = self.message
        encoded: bytes = answer.SerializeToString()
        return encoded

    def _traces(self, payload: bytes) -> ExportTraceServiceResponse:
        for resource in ExportTraceServiceRequest.FromString(payload).resource_spans:
            name = str(values_of(resource.resource.attributes).get("service.name", ""))
            self.spans.extend((name, span) for scope in resource.scope_spans for span in scope.spans)
        return ExportTraceServiceResponse()

    def _logs(self, payload: bytes) -> ExportLogsServiceResponse:
        request = ExportLogsServiceRequest.FromString(payload)
        self.requests.append(request)
        for resource in request.resource_logs:
            self.logs.extend(record for scope in resource.scope_logs for record in scope.log_records)
        return ExportLogsServiceResponse()

    def _metrics(self, payload: bytes) -> ExportMetricsServiceResponse:
        self.pushes.append(ExportMetricsServiceRequest.FromString(payload))
        return ExportMetricsServiceResponse()

    def wait_for(self, enough: Callable[[list[tuple[str, Span]]], bool], seconds: float = 20.0) -> None:
        """Wait until the received spans are `enough`."""
        self.wait_until(lambda: enough(self.spans), seconds)

    def wait_until(self, reached: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until `reached` is true."""
        deadline = time.monotonic() + seconds
        with self._came:
            while not reached():
                left = deadline - time.monotonic()
                spans = [(name, span.name) for name, span in self.spans]
                assert left > 0, f"never enough: {spans}, {len(self.logs)} logs, {len(self.pushes)} pushes"
                self._came.wait(left)


class Collector(Received):
    """A gRPC collector, as a context manager that stops it."""

    def __init__(self, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        super().__init__()
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        for signal, service in SERVICES.items():
            export: Any = grpc.unary_unary_rpc_method_handler(partial(self._export, signal))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
        self._scheme = "http" if credentials is None else "https"
        where = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(where)
        else:
            self.port = self._server.add_secure_port(where, credentials)

    @property
    def endpoint(self) -> str:
        """What `tracing.otlp.endpoint` and others are set to."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _export(self, signal: str, payload: bytes, context: Any) -> bytes:
        headers = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        answer = self.receive(signal, payload, headers)
        if isinstance(answer, bytes):
            return answer
        if answer.after is not None:
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=answer.after)))
            status = Status(code=answer.code.value[0], details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(answer.code, "refused")
        raise AssertionError("abort raises")


class HttpCollector(Received):
    """Over HTTP, at any path that ends as OTLP's do."""

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.paths: list[str] = []
        self._connections: list[socket.socket] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                collector._connections.append(self.connection)

            def do_POST(self) -> None:
                collector.paths.append(self.path)
                payload = self.rfile.read(int(self.headers["Content-Length"]))
                payload = EXPANDED[self.headers.get("Content-Encoding", "none")](payload)
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = collector.receive(self.path.rpartition("/")[2], payload, headers)
                body = b"" if isinstance(answer, Refusal) else answer
                self.send_response(answer.status if isinstance(answer, Refusal) else 200)
                if isinstance(answer, Refusal) and answer.after is not None:
                    self.send_header("Retry-After", str(answer.after))
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if context is None else "https"
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """The endpoint, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> HttpCollector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:  # those that are kept would be answered for as long as they are
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def values_of(attributes: Any) -> dict[str, str | int]:
    """Attributes: texts and integers."""
    pairs: list[KeyValue] = list(attributes)
    return {
        pair.key: pair.value.int_value if pair.value.HasField("int_value") else pair.value.string_value
        for pair in pairs
    }


def attributes_of(record: Span | LogRecord) -> dict[str, str | int]:
    """A span's or a record's attributes: texts and integers."""
    return values_of(record.attributes)

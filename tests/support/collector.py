"""A real OTLP collector for tests: gRPC, on loopback, keeping every span that it takes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class Collector:
    """`spans` are (service's name, span) as they came. A context manager that leaves nothing running."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[tuple[str, Span]] = []
        self._came = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        export: Any = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": export}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    @property
    def endpoint(self) -> str:
        """What `tracing.otlp_endpoint` is set to."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Collector:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _export(self, request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        with self._came:
            for resource in request.resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans.extend((named.get("service.name", ""), span) for span in scope.spans)
            self._came.notify_all()
        return ExportTraceServiceResponse()

    def wait_for(self, enough: Callable[[list[tuple[str, Span]]], bool], seconds: float = 20.0) -> None:
        """Return once the spans that came are `enough`."""
        deadline = time.monotonic() + seconds
        with self._came:
            while not enough(self.spans):
                left = deadline - time.monotonic()
                assert left > 0, f"these never were enough: {[(name, span.name) for name, span in self.spans]}"
                self._came.wait(left)


def attributes_of(span: Span) -> dict[str, str | int]:
    """A span's attributes: texts and integers."""
    return {
        each.key: each.value.int_value if each.value.HasField("int_value") else each.value.string_value
        for each in span.attributes
    }

"""The demo's trace collector: receives OTLP over gRPC on loopback and appends spans to a file as JSON lines."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def _value(value: AnyValue) -> str | int | bool | float:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in {"string_value", "int_value", "bool_value", "double_value"} else ""


def span_fields(service: str, span: Span) -> dict[str, Any]:
    """Return the fields of a span that are stored. `start` is in ns since 1970; `parent` is "" for a root span."""
    return {
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "service": service,
        "name": span.name,
        "start": span.start_time_unix_nano,
        "ms": round((span.end_time_unix_nano - span.start_time_unix_nano) / 1e6, 3),
        "attributes": {attribute.key: _value(attribute.value) for attribute in span.attributes},
        "events": [
            {"name": event.name, **{attribute.key: _value(attribute.value) for attribute in event.attributes}}
            for event in span.events
        ],
    }


class SpanFile:
    """A collector on a free loopback port, as a context manager that stops it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._one_writer = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        export: Any = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),))
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")

    @property
    def endpoint(self) -> str:
        """The value for `tracing.otlp.endpoint`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> SpanFile:
        self._file.touch(mode=0o600)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def _export(self, request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        lines = []
        for resource in request.resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                lines += [json.dumps(span_fields(named.get("service.name", ""), span)) for span in scope.spans]
        with self._one_writer, self._file.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        return ExportTraceServiceResponse()

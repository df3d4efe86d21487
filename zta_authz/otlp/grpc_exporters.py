"""The SDK's exporters over gRPC, with our headers, and with the collector's reply noted.

Two of their attributes are private, and tests look at what they are changed for:

- `_client`: the base drops the reply, and with it what a collector rejected of a batch that it took.
- `_metrics`: the base notes the exception of a failed try there, though nothing reads it. The exception refers to the
  frame of the try and that to the note: a cycle that holds the batch. A policy reload may freeze the garbage collector
  at that moment (`policy_sources.pacing`), and then it would stay for ever.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from zta_authz.otlp.heard import MAX_REPLY_BYTES
from zta_authz.otlp.messages import Signal

if TYPE_CHECKING:
    from zta_authz.otlp.heard import Heard
    from zta_authz.otlp.messages import Target

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # the exporter retries by itself
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 5000),  # what one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
)
_COMPRESSION: Final = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


class _Client:
    """In place of the exporter's stub."""

    def __init__(self, stub: Any, headers: tuple[tuple[str, str], ...], signal: Signal, heard: Heard) -> None:
        self._stub = stub
        self._headers = headers
        self._signal = signal
        self._heard = heard

    def Export(self, request: Any, metadata: Any, timeout: float) -> Any:  # noqa: N802  the stub's own
        """One call. The exporter's `metadata` may be the environment's where the settings name no header."""
        try:
            reply = self._stub.Export(request=request, metadata=self._headers, timeout=timeout)
        except grpc.RpcError as error:
            self._heard.refused(error.code().name)
            raise
        self._heard.taken(reply, self._signal)
        return reply


class _NoResult:
    """Takes every attribute, and keeps none."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        """Nothing."""


class _NoMetrics:
    """In place of the exporter's own metrics."""

    def export_operation(self, _items: int) -> AbstractContextManager[Any]:
        """Around one batch."""
        return nullcontext(_NoResult())


class _SpanExporter(OTLPSpanExporter):
    def __init__(self, target: Target, heard: Heard) -> None:
        self._noted = (target.headers, Signal.TRACES, heard)
        super().__init__(**_options(target))
        self._metrics = _NoMetrics()

    def _initialize_channel_and_stub(self) -> None:
        """The base makes a new channel after a failure, and then a new stub."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # the SDK's
        self._client: Any = _Client(self._client, *self._noted)


class _MetricExporter(OTLPMetricExporter):
    def __init__(self, target: Target, heard: Heard) -> None:
        self._noted = (target.headers, Signal.METRICS, heard)
        super().__init__(**_options(target))
        self._metrics = _NoMetrics()

    def _initialize_channel_and_stub(self) -> None:
        """As for spans."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # the SDK's
        self._client: Any = _Client(self._client, *self._noted)


def _options(target: Target) -> dict[str, Any]:
    where = urlsplit(target.endpoint)
    host = where.hostname or ""
    address = f"[{host}]" if ":" in host else host
    credentials = None
    if target.secure:
        credentials = grpc.ssl_channel_credentials(
            _content(target.ca_file), _content(target.key_file), _content(target.cert_file)
        )
    return {
        # `dns`: else a host of the name of one of gRPC's schemes, `unix` say, would be one
        "endpoint": f"dns:///{address}:{where.port or (443 if target.secure else 80)}",
        "insecure": not target.secure,
        "credentials": credentials,
        "headers": target.headers,
        "timeout": target.seconds,
        "compression": _COMPRESSION[target.compression],
        "channel_options": _OPTIONS,
    }


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def build(target: Target, signal: Signal, heard: Heard) -> OTLPSpanExporter | OTLPMetricExporter:
    """The exporter of `signal`. Raises OSError for a file that can't be read."""
    return _SpanExporter(target, heard) if signal is Signal.TRACES else _MetricExporter(target, heard)

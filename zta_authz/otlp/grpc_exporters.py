"""The SDK's exporters over gRPC, with the configured headers and a record of the collector's reply.

They replace two private attributes of their base classes; tests check the effects:

- `_client`: the base drops the reply, and with it the number of spans that a collector rejected of a batch.
- `_metrics`: the base stores the exception of a failed attempt there, though nothing reads it. The exception refers to
  the attempt's frame and the frame to the stored result: a cycle that holds the batch. If a policy reload froze the
  garbage collector at that moment (`policy_sources.pacing`), the cycle would never be freed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

from zta_authz.otlp.messages import Signal
from zta_authz.otlp.reply_recorder import MAX_REPLY_BYTES

if TYPE_CHECKING:
    from zta_authz.otlp.messages import Target
    from zta_authz.otlp.reply_recorder import ReplyRecorder

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # the exporter retries
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.min_reconnect_backoff_ms", 5000),  # the timeout of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
)
_COMPRESSION: Final = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


class _Client:
    """Replaces the exporter's stub, to send the configured headers and record the reply."""

    def __init__(
        self, stub: Any, headers: tuple[tuple[str, str], ...], signal: Signal, recorder: ReplyRecorder
    ) -> None:
        self._stub = stub
        self._headers = headers
        self._signal = signal
        self._recorder = recorder

    def Export(self, request: Any, metadata: Any, timeout: float) -> Any:  # noqa: N802  the stub's name
        """Call the stub. Ignores the exporter's `metadata`, which may come from the environment."""
        try:
            reply = self._stub.Export(request=request, metadata=self._headers, timeout=timeout)
        except grpc.RpcError as error:
            self._recorder.refused(error.code().name)
            raise
        self._recorder.accepted(reply, self._signal)
        return reply


class _NoResult:
    """Accepts every attribute and stores none."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        """Discard the value."""


class _NoMetrics:
    """Replaces the exporter's own metrics with nothing."""

    def export_operation(self, _items: int) -> AbstractContextManager[Any]:
        """Return a context for one batch that records nothing."""
        return nullcontext(_NoResult())


class _SpanExporter(OTLPSpanExporter):
    def __init__(self, target: Target, recorder: ReplyRecorder) -> None:
        self._client_arguments = (target.headers, Signal.TRACES, recorder)
        super().__init__(**_options(target))
        self._metrics = _NoMetrics()

    def _initialize_channel_and_stub(self) -> None:
        """Wrap the new stub. The base calls this again after a failure."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # the SDK's
        self._client: Any = _Client(self._client, *self._client_arguments)


class _MetricExporter(OTLPMetricExporter):
    def __init__(self, target: Target, recorder: ReplyRecorder) -> None:
        self._client_arguments = (target.headers, Signal.METRICS, recorder)
        super().__init__(**_options(target))
        self._metrics = _NoMetrics()

    def _initialize_channel_and_stub(self) -> None:
        """Wrap the new stub. The base calls this again after a failure."""
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # the SDK's
        self._client: Any = _Client(self._client, *self._client_arguments)


def _options(target: Target) -> dict[str, Any]:
    url = urlsplit(target.endpoint)
    host = url.hostname or ""
    address = f"[{host}]" if ":" in host else host
    credentials = None
    if target.secure:
        credentials = grpc.ssl_channel_credentials(
            _content(target.ca_file), _content(target.key_file), _content(target.cert_file)
        )
    return {
        # `dns:` keeps gRPC from reading a host named like one of its schemes, such as `unix`, as a scheme
        "endpoint": f"dns:///{address}:{url.port or (443 if target.secure else 80)}",
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


def build(target: Target, signal: Signal, recorder: ReplyRecorder) -> OTLPSpanExporter | OTLPMetricExporter:
    """Create the exporter of `signal`. Raises OSError for a file that can't be read."""
    return _SpanExporter(target, recorder) if signal is Signal.TRACES else _MetricExporter(target, recorder)

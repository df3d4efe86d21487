"""Requests to a collector and their results, independent of the wire format."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, NamedTuple

Protocol = Literal["grpc", "http"]
Compression = Literal["none", "gzip", "deflate"]

MAX_DETAIL_CHARACTERS: Final = 200
"""Limit for a collector's own text, which goes to the service's log."""


class Signal(Enum):
    """A kind of telemetry: OTLP's gRPC service and its default HTTP path."""

    LOGS = ("opentelemetry.proto.collector.logs.v1.LogsService", "/v1/logs")
    METRICS = ("opentelemetry.proto.collector.metrics.v1.MetricsService", "/v1/metrics")
    TRACES = ("opentelemetry.proto.collector.trace.v1.TraceService", "/v1/traces")

    @property
    def method(self) -> str:
        """The path of the gRPC method."""
        return f"/{self.value[0]}/Export"

    @property
    def path(self) -> str:
        """The HTTP path for an endpoint without one."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Target:
    """A collector: its `http` or `https` URL and the credentials for it. Files are PEM.

    Without `ca_file` the system's authorities are trusted. `headers` may be secret and don't appear in `repr`.
    `seconds` limits one batch with all retries. `seconds` and `compression` apply to spans and metrics only.
    """

    endpoint: str
    protocol: Protocol = "grpc"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    compression: Compression = "none"
    seconds: float = 5.0

    @property
    def secure(self) -> bool:
        """Whether the connection uses TLS."""
        return self.endpoint.startswith("https://")


@dataclass(frozen=True, slots=True)
class Origin:
    """The exporting process: `service.name`, `service.version` and `service.instance.id` ("" for none)."""

    name: str
    version: str
    instance: str = ""


class Severity(Enum):
    """The severity of a log entry."""

    INFO = "INFO"
    WARN = "WARN"


class LogEntry(NamedTuple):
    """One log record. IDs are lower-case hexadecimal or ""; the time is in nanoseconds since the epoch."""

    time_ns: int
    severity: Severity
    event: str
    body: str
    attributes: tuple[tuple[str, str | int], ...] = ()
    trace_id: str = ""
    span_id: str = ""


class ExportStatus(Enum):
    """Whether the collector accepted a request."""

    ACCEPTED = "taken"
    RETRYABLE = "later"
    """Not accepted now, because the collector is down, busy or denies access. A later attempt may succeed."""
    INVALID = "never"
    """The collector says that the request itself is invalid."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result of an export. `rejected` counts items that the collector rejected of an accepted request.

    `detail` is the collector's status, or its own text for a partial success. `after` is how many seconds the collector
    asks to wait.
    """

    status: ExportStatus
    rejected: int = 0
    detail: str = ""
    after: float | None = None


def printable(text: str) -> str:
    """Cut and clean a collector's text so that it is safe in a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_DETAIL_CHARACTERS])

"""What is said to a collector and what it answers, without a wire's types."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, NamedTuple

Protocol = Literal["grpc", "http"]
Compression = Literal["none", "gzip", "deflate"]

MAX_SAID_CHARACTERS: Final = 200
"""Of a collector's own words: they end up in our log."""


class Signal(Enum):
    """What is exported: OTLP's gRPC service and the path that HTTP has by default."""

    LOGS = ("opentelemetry.proto.collector.logs.v1.LogsService", "/v1/logs")
    METRICS = ("opentelemetry.proto.collector.metrics.v1.MetricsService", "/v1/metrics")
    TRACES = ("opentelemetry.proto.collector.trace.v1.TraceService", "/v1/traces")

    @property
    def method(self) -> str:
        """The gRPC method, as a path."""
        return f"/{self.value[0]}/Export"

    @property
    def path(self) -> str:
        """The path of HTTP where the endpoint has none."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send: an `http` or `https` URL, and what it takes to be let in. Files are PEM.

    Without `ca_file` the usual authorities are trusted. `headers` may be secret: they are in no `repr`. `seconds` is
    for one batch with all retries, and it and `compression` are for spans and metrics.
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
        """Whether it is spoken to under TLS."""
        return self.endpoint.startswith("https://")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who says it: `service.name`, `service.version`, and the `service.instance.id` of this process, "" for none."""

    name: str
    version: str
    instance: str = ""


class Severity(Enum):
    """Of a log entry."""

    INFO = "INFO"
    WARN = "WARN"


class LogEntry(NamedTuple):
    """One log record. Ids are lower-case hexadecimal, "" where there is none; time is nanoseconds since the epoch."""

    time_ns: int
    severity: Severity
    event: str
    body: str
    attributes: tuple[tuple[str, str | int], ...] = ()
    trace_id: str = ""
    span_id: str = ""


class Fate(Enum):
    """What became of a request."""

    TAKEN = "taken"
    LATER = "later"
    """Not taken now: nobody is there, has time, or lets us in. The same may be taken later."""
    NEVER = "never"
    """The collector says that the request itself is wrong."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a collector made of a request; `rejected` records or points of one that it took.

    `said` is its status (of a partial success its own words); `after` the seconds that it asks us to wait.
    """

    fate: Fate
    rejected: int = 0
    said: str = ""
    after: float | None = None


def printable(text: str) -> str:
    """A collector's words as they may stand in a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_SAID_CHARACTERS])

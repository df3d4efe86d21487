"""Exports log entries to a collector.

Entries are encoded one by one as they arrive, and a request joins the encoded entries. Building the request as one
message would cost several times as much, and would block the rest of the process meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber

from zta_authz.bounded_cache import BoundedCache
from zta_authz.otlp.messages import Severity
from zta_authz.otlp.replies import read_result
from zta_authz.otlp.values import any_value, pairs, resource, scope
from zta_authz.otlp.wire import field, field_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zta_authz.otlp.messages import ExportResult, LogEntry, Origin
    from zta_authz.otlp.transports import Transport

_NUMBERS: Final = {
    Severity.INFO: SeverityNumber.SEVERITY_NUMBER_INFO,
    Severity.WARN: SeverityNumber.SEVERITY_NUMBER_WARN,
}
MAX_CACHED_ATTRIBUTES: Final = 1024
_RECORD: Final = field_tag(ScopeLogs.LOG_RECORDS_FIELD_NUMBER)
_SCOPE: Final = field_tag(ResourceLogs.SCOPE_LOGS_FIELD_NUMBER)
_RESOURCE: Final = field_tag(ExportLogsServiceRequest.RESOURCE_LOGS_FIELD_NUMBER)


class EntryEncoder:
    """Encodes entries. Caches encoded attributes, because most of them repeat from entry to entry."""

    __slots__ = ("_attributes",)

    def __init__(self) -> None:
        self._attributes: BoundedCache[tuple[str, str | int], bytes] = BoundedCache(MAX_CACHED_ATTRIBUTES)

    def encode(self, entry: LogEntry, observed_ns: int) -> bytes:
        """Encode an entry as a LogRecord; `observed_ns` is now, in nanoseconds since the epoch."""
        return b"".join((_encode_rest(entry, observed_ns), *map(self._attribute, entry.attributes)))

    def _attribute(self, attribute: tuple[str, str | int]) -> bytes:
        """Encode a LogRecord with one attribute. Joined encodings are one record with all attributes."""
        encoded = self._attributes[attribute]
        if encoded is None:
            encoded = LogRecord(attributes=pairs((attribute,))).SerializeToString()
            self._attributes.put(attribute, encoded)
        return encoded


def _encode_rest(entry: LogEntry, observed_ns: int) -> bytes:
    """Encode the entry without its attributes."""
    record = LogRecord(
        time_unix_nano=entry.time_ns,
        observed_time_unix_nano=observed_ns,
        severity_number=_NUMBERS[entry.severity],
        severity_text=entry.severity.value,
        event_name=entry.event,
        body=any_value(entry.body),
        trace_id=bytes.fromhex(entry.trace_id),
        span_id=bytes.fromhex(entry.span_id),
    )
    return record.SerializeToString()


def encode_logs(entries: Iterable[bytes], origin: Origin) -> bytes:
    """Join encoded entries to an ExportLogsServiceRequest."""
    logs = ScopeLogs(scope=scope(origin)).SerializeToString() + b"".join([field(_RECORD, entry) for entry in entries])
    resource_logs = ResourceLogs(resource=resource(origin)).SerializeToString() + field(_SCOPE, logs)
    return field(_RESOURCE, resource_logs)


class LogExporter:
    """Sends entries in one blocking request. Only one thread may use it."""

    def __init__(self, transport: Transport, origin: Origin) -> None:
        self._transport = transport
        self._origin = origin
        self._entries = EntryEncoder()

    def encode(self, entry: LogEntry) -> bytes:
        """Encode an entry for `export`."""
        return self._entries.encode(entry, time.time_ns())

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        """Send encoded entries and return the result. A missing reply within `seconds` is retryable."""
        reply = self._transport.send(encode_logs(entries, self._origin), seconds)
        return read_result(reply, ExportLogsServiceResponse, "rejected_log_records", len(entries))

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

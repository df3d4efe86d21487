"""Log entries to a collector.

Entries are encoded one by one as they come, and a request is made of them by writing their lengths: building it as one
message costs several times as much, at one moment, in which nothing else of the process runs.
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
    """Encodes entries. Most attributes repeat from entry to entry, and are kept encoded."""

    __slots__ = ("_attributes",)

    def __init__(self) -> None:
        self._attributes: BoundedCache[tuple[str, str | int], bytes] = BoundedCache(MAX_CACHED_ATTRIBUTES)

    def encode(self, entry: LogEntry, observed_ns: int) -> bytes:
        """One LogRecord; `observed_ns` is now, in nanoseconds since the epoch."""
        return b"".join((_encode_rest(entry, observed_ns), *map(self._attribute, entry.attributes)))

    def _attribute(self, attribute: tuple[str, str | int]) -> bytes:
        """A LogRecord with one attribute. Joined, such records are one record with all of their attributes."""
        encoded = self._attributes[attribute]
        if encoded is None:
            encoded = LogRecord(attributes=pairs((attribute,))).SerializeToString()
            self._attributes.put(attribute, encoded)
        return encoded


def _encode_rest(entry: LogEntry, observed_ns: int) -> bytes:
    """The entry without its attributes."""
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
    """An ExportLogsServiceRequest of encoded entries."""
    logs = ScopeLogs(scope=scope(origin)).SerializeToString() + b"".join([field(_RECORD, entry) for entry in entries])
    whole = ResourceLogs(resource=resource(origin)).SerializeToString() + field(_SCOPE, logs)
    return field(_RESOURCE, whole)


class LogExporter:
    """Sends entries as one request. Blocks; one thread uses it."""

    def __init__(self, transport: Transport, origin: Origin) -> None:
        self._transport = transport
        self._origin = origin
        self._entries = EntryEncoder()

    def encode(self, entry: LogEntry) -> bytes:
        """An entry as `export` takes it."""
        return self._entries.encode(entry, time.time_ns())

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        """What the collector made of encoded entries; within `seconds`, or it counts as for later."""
        reply = self._transport.send(encode_logs(entries, self._origin), seconds)
        return read_result(reply, ExportLogsServiceResponse, "rejected_log_records", len(entries))

    def close(self) -> None:
        """Give connections back."""
        self._transport.close()

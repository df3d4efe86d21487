"""Log entries to a collector.

Entries are encoded one by one as they come, and a request is made of them by writing their lengths: building it as one
message costs several times as much, at one moment, in which nothing else of the process runs.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber

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
_KNOWN_ATTRIBUTES: Final = 1024
_RECORD: Final = field_tag(ScopeLogs.LOG_RECORDS_FIELD_NUMBER)
_SCOPE: Final = field_tag(ResourceLogs.SCOPE_LOGS_FIELD_NUMBER)
_RESOURCE: Final = field_tag(ExportLogsServiceRequest.RESOURCE_LOGS_FIELD_NUMBER)


def encode_entry(entry: LogEntry, observed_ns: int) -> bytes:
    """One LogRecord; `observed_ns` is now, in nanoseconds since the epoch."""
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
    return record.SerializeToString() + b"".join([_attribute(name, value) for name, value in entry.attributes])


@lru_cache(_KNOWN_ATTRIBUTES)
def _attribute(name: str, value: str | int) -> bytes:
    """A record that has this attribute only; records that are joined are one with all that is in them."""
    return LogRecord(attributes=pairs(((name, value),))).SerializeToString()


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

    def encode(self, entry: LogEntry) -> bytes:
        """An entry as `export` takes it."""
        return encode_entry(entry, time.time_ns())

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        """What the collector made of encoded entries; within `seconds`, or it counts as for later."""
        reply = self._transport.send(encode_logs(entries, self._origin), seconds)
        return read_result(reply, ExportLogsServiceResponse, "rejected_log_records", len(entries))

    def close(self) -> None:
        """Give connections back."""
        self._transport.close()

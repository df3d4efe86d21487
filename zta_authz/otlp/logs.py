"""Log entries to a collector."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs, SeverityNumber

from zta_authz.otlp.messages import Severity
from zta_authz.otlp.replies import answer
from zta_authz.otlp.values import any_value, pairs, resource, scope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.otlp.messages import Answer, LogEntry, Origin
    from zta_authz.otlp.transports import Transport

_NUMBERS = {Severity.INFO: SeverityNumber.SEVERITY_NUMBER_INFO, Severity.WARN: SeverityNumber.SEVERITY_NUMBER_WARN}


def encode_logs(entries: Sequence[LogEntry], origin: Origin, observed_ns: int) -> bytes:
    """An ExportLogsServiceRequest; `observed_ns` is now, in nanoseconds since the epoch."""
    records = [_record(entry, observed_ns) for entry in entries]
    logs = ScopeLogs(scope=scope(origin), log_records=records)
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=resource(origin), scope_logs=[logs])])
    return request.SerializeToString()


def _record(entry: LogEntry, observed_ns: int) -> LogRecord:
    return LogRecord(
        time_unix_nano=entry.time_ns,
        observed_time_unix_nano=observed_ns,
        severity_number=_NUMBERS[entry.severity],
        severity_text=entry.severity.value,
        event_name=entry.event,
        body=any_value(entry.body),
        attributes=pairs(entry.attributes),
        trace_id=bytes.fromhex(entry.trace_id),
        span_id=bytes.fromhex(entry.span_id),
    )


class LogExporter:
    """Sends entries as one request. Blocks; one thread uses it."""

    def __init__(self, transport: Transport, origin: Origin) -> None:
        self._transport = transport
        self._origin = origin

    def export(self, entries: Sequence[LogEntry], seconds: float) -> Answer:
        """What the collector made of them; within `seconds`, or it counts as for later."""
        payload = encode_logs(entries, self._origin, time.time_ns())
        reply = self._transport.send(payload, seconds)
        return answer(reply, ExportLogsServiceResponse, "rejected_log_records", len(entries))

    def close(self) -> None:
        """Give connections back."""
        self._transport.close()

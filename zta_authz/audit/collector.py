"""Sends the decision log to an OpenTelemetry collector. Records that it does not accept wait, as for a full disk.

The writer thread sends one batch after another, so records arrive in order and the sink's queue is the only one. While
a batch waits, that queue fills up; then `on_full` decides about allows. A batch is lost, and counted in `lost`, only if
the collector calls it invalid or the process ends.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from zta_authz.otlp.messages import ExportStatus, LogEntry, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.otlp.messages import ExportResult

EVENT: Final = "zta.decision"
BATCH_RECORDS: Final = 512
BATCH_BYTES: Final = 1024 * 1024
"""A batch exceeds this by at most one record, and so stays below collectors' limit of 4 MiB."""
BATCH_SECONDS: Final = 0.2
"""How long a record waits for a batch to fill."""
TRY_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 15.0
MAX_ASKED_SECONDS: Final = 60.0
"""The longest wait that a collector may request."""
_LAST_PAUSE_SECONDS = 0.25  # between attempts while the process is about to end
_NANOSECONDS = 1_000_000_000
_QUIET_SECONDS = 10.0
_SPAN_DIGITS = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOG = logging.getLogger(__name__)


class EntrySender(Protocol):
    """Sends entries to the collector."""

    def encode(self, entry: LogEntry) -> bytes:
        """Encode an entry for `export`."""
        ...

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        """Send encoded entries and return the result within about `seconds`."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class _Line(msgspec.Struct, frozen=True):
    """The fields of a record that become attributes. A stub line has only some of them."""

    decision_id: str = ""
    time: str = ""
    verdict: str = ""
    reason: str = ""
    policy: str = ""
    rule: int | None = None
    rule_name: str = ""
    principal: str = ""
    api_client: str = ""
    method: str = ""
    path: str = ""
    trace_id: str = ""


_decoder = msgspec.json.Decoder(_Line)


def log_entry(line: bytes, *, traced: bool = False, now: float = 0.0) -> LogEntry:
    r"""Convert a record's line, with or without its `\n`, to a log entry. `now` replaces a missing time.

    With `traced`, checks have spans: the span ID is the end of the decision ID, and without a parent the trace ID is
    the decision ID.
    """
    record = _decoder.decode(line)
    trace_id = record.trace_id or (record.decision_id if traced else "")
    return LogEntry(
        _nanoseconds(record.time) if record.time else round(now * _NANOSECONDS),
        Severity.INFO if record.verdict == "allow" else Severity.WARN,
        EVENT,
        line.rstrip(b"\n").decode("ascii"),
        tuple(_attributes(record)),
        trace_id,
        record.decision_id[-_SPAN_DIGITS:] if traced else "",
    )


def _attributes(record: _Line) -> list[tuple[str, str | int]]:
    """Return the attributes for queries, named as in spans, without empty ones."""
    texts = (
        ("zta.decision_id", record.decision_id),
        ("zta.verdict", record.verdict),
        ("zta.reason", record.reason),
        ("zta.policy", record.policy),
        ("zta.rule_name", record.rule_name),
        ("zta.principal", record.principal),
        ("zta.api_client", record.api_client),
        ("http.request.method", record.method),
        ("url.path", record.path),
    )
    attributes: list[tuple[str, str | int]] = [(name, text) for name, text in texts if text]
    if record.rule is not None:
        attributes.append(("zta.rule", record.rule))
    return attributes


def _nanoseconds(text: str) -> int:
    """Convert the time of a record, RFC 3339 with microseconds, to nanoseconds since the epoch."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND * 1000


class CollectorOutput:
    """Batches lines and sends each batch with `export` until the collector accepts it."""

    def __init__(self, export: EntrySender, *, traced: bool = False) -> None:
        """Create it for `export`. `traced`: checks have spans, and entries contain their IDs."""
        self.lost = 0
        self.held_since: float | None = None
        self._export = export
        self._traced = traced
        self._entries: list[bytes] = []
        self._bytes = 0
        self._due = 0.0
        self._closing_now = threading.Event()
        self._deadline: float | None = None
        self._failing = False
        self._quiet_until = 0.0

    @property
    def failing(self) -> str:
        """Why the collector accepts no records, "" if it accepts them. The details are in the service's log."""
        return "the collector takes no records" if self._failing else ""

    def write(self, lines: Sequence[bytes]) -> None:
        """Encode the lines, and send full batches."""
        now = time.time()
        for line in lines:
            self._add(line, now)
            if len(self._entries) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
                self._send()
        time.sleep(0)  # releases the interpreter, since nothing else here does while no batch is sent

    def _add(self, line: bytes, now: float) -> None:
        """Add a line to the batch. A line that can't be encoded, which is a bug, is lost without affecting others."""
        try:
            entry = self._export.encode(log_entry(line, traced=self._traced, now=now))
        except Exception as error:  # noqa: BLE001
            self._lose(1, f"they could not be encoded: {type(error).__qualname__}")
            return
        if not self._entries:
            self._due = time.monotonic() + BATCH_SECONDS
            self.held_since = now
        self._entries.append(entry)
        self._bytes += len(entry)

    def seconds_until_due(self) -> float | None:
        """Return the seconds until an incomplete batch is sent."""
        return max(0.0, self._due - time.monotonic()) if self._entries else None

    def run_due_work(self) -> None:
        """Send an incomplete batch that has waited long enough."""
        if self._entries and time.monotonic() >= self._due:
            self._send()

    def hurry(self, seconds: float) -> None:
        """Give up records that are not accepted within `seconds`, because the process ends. For any thread."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        self._closing_now.set()

    def close(self) -> None:
        """Send the last batch and close."""
        if self._entries:
            self._send()
        self._export.close()

    def _send(self) -> None:
        """Send the batch. A bug loses only this batch and does not raise."""
        entries, self._entries, self._bytes = self._entries, [], 0
        try:
            self._send_until_taken(entries)
        except Exception as error:  # noqa: BLE001
            self._lose(len(entries), f"they could not be sent: {type(error).__qualname__}")
        self.held_since = None

    def _send_until_taken(self, entries: Sequence[bytes]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while (left := self._left()) > 0:
            result = self._export.export(entries, min(TRY_SECONDS, left))
            if result.status is not ExportStatus.RETRYABLE:
                self._record_result(result, len(entries))
                return
            self._record_failure(result)
            requested = 0.0 if result.after is None else min(result.after, MAX_ASKED_SECONDS)
            self._pause(max(requested, pause * random.uniform(0.5, 1.0)))  # noqa: S311  spreads the instances' retries
            pause = min(MAX_PAUSE_SECONDS, pause * 2)
        self._lose(len(entries), "the process ended before the collector accepted them")

    def _left(self) -> float:
        """Return the seconds left for sending."""
        return TRY_SECONDS if self._deadline is None else self._deadline - time.monotonic()

    def _pause(self, seconds: float) -> None:
        if not self._closing_now.wait(seconds):
            return
        time.sleep(max(0.0, min(seconds, _LAST_PAUSE_SECONDS, self._left())))

    def _record_result(self, result: ExportResult, sent: int) -> None:
        if result.status is ExportStatus.INVALID:
            self._lose(sent, f"the collector refused them: {result.detail}")
            return
        if self._failing:
            self._failing = False
            _LOG.info("the collector takes decision records again")
        if result.rejected:
            self._lose(result.rejected, f"the collector rejected them: {result.detail}")

    def _record_failure(self, result: ExportResult) -> None:
        """Log the start of an outage once."""
        if not self._failing:
            self._failing = True
            _LOG.error("the collector takes no decision records, they wait: %s", result.detail)

    def _lose(self, count: int, why: str) -> None:
        """Count lost records. Logs one line for all that are lost within `_QUIET_SECONDS`."""
        self.lost += count
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            _LOG.error("decision records are lost, %d so far: %s", self.lost, why)

"""The decision log to an OpenTelemetry collector. What it does not take waits, as a full disk is waited for.

Batches are sent by the writer's thread, one after the other, so that records arrive in their order and the queue before
it is the only one. While a batch waits the queue fills up, and then `on_full` says what becomes of allows. A batch is
lost only where the collector calls it wrong, or the process ends: `lost` counts it.
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
"""And a record more at most, which stays below the 4 MiB that collectors take."""
BATCH_SECONDS: Final = 0.2
"""How long a record waits for others."""
TRY_SECONDS: Final = 5.0
FIRST_PAUSE_SECONDS: Final = 0.25
MAX_PAUSE_SECONDS: Final = 15.0
MAX_ASKED_SECONDS: Final = 60.0
"""The most that a collector may ask us to wait."""
_LAST_PAUSE_SECONDS = 0.25  # between tries while the process is about to end
_NANOSECONDS = 1_000_000_000
_QUIET_SECONDS = 10.0
_SPAN_DIGITS = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LOG = logging.getLogger(__name__)


class Export(Protocol):
    """What sends entries to the collector."""

    def encode(self, entry: LogEntry) -> bytes:
        """An entry as it is sent."""
        ...

    def export(self, entries: Sequence[bytes], seconds: float) -> ExportResult:
        """What the collector made of encoded entries, within about `seconds`."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


class _Line(msgspec.Struct, frozen=True):
    """What of a record's line an entry shows beside it; a line that says little only has some of it."""

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
    r"""A record's line, with or without its `\n`, as a log entry; `now` stands in for a time that it does not say.

    With `traced`, checks have spans: theirs is named by the decision's id, and without a parent so is their trace.
    """
    said = _decoder.decode(line)
    trace_id = said.trace_id or (said.decision_id if traced else "")
    return LogEntry(
        _nanoseconds(said.time) if said.time else round(now * _NANOSECONDS),
        Severity.INFO if said.verdict == "allow" else Severity.WARN,
        EVENT,
        line.rstrip(b"\n").decode("ascii"),
        tuple(_attributes(said)),
        trace_id,
        said.decision_id[-_SPAN_DIGITS:] if traced else "",
    )


def _attributes(said: _Line) -> list[tuple[str, str | int]]:
    """What a query is likely to ask for; names as in spans. What is empty is left out."""
    texts = (
        ("zta.decision_id", said.decision_id),
        ("zta.verdict", said.verdict),
        ("zta.reason", said.reason),
        ("zta.policy", said.policy),
        ("zta.rule_name", said.rule_name),
        ("zta.principal", said.principal),
        ("zta.api_client", said.api_client),
        ("http.request.method", said.method),
        ("url.path", said.path),
    )
    found: list[tuple[str, str | int]] = [(name, text) for name, text in texts if text]
    if said.rule is not None:
        found.append(("zta.rule", said.rule))
    return found


def _nanoseconds(text: str) -> int:
    """The time of a record, RFC 3339 with microseconds, in nanoseconds since the epoch."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND * 1000


class CollectorOutput:
    """Batches lines and sends them with `export`, each batch until it is taken."""

    def __init__(self, export: Export, *, traced: bool = False) -> None:
        """`traced`: spans are made of checks, and their ids are shown."""
        self.lost = 0
        self.held_since: float | None = None
        self._export = export
        self._traced = traced
        self._entries: list[bytes] = []
        self._bytes = 0
        self._due = 0.0
        self._hurried = threading.Event()
        self._deadline: float | None = None
        self._failing = False
        self._quiet_until = 0.0

    @property
    def failing(self) -> str:
        """Whether the collector took the last batch; what it said is in our log."""
        return "the collector takes no records" if self._failing else ""

    def write(self, lines: Sequence[bytes]) -> None:
        """Encode the lines, and send what is enough for a batch."""
        now = time.time()
        for line in lines:
            self._add(line, now)
            if len(self._entries) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
                self._send()
        time.sleep(0)  # nothing else waits here while nobody has to be told: let others have the interpreter

    def _add(self, line: bytes, now: float) -> None:
        """Raises nothing: an entry that can't be made is a bug, and lost; the others need not be."""
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

    def patience(self) -> float | None:
        """Seconds until what was begun is sent though it is no whole batch."""
        return max(0.0, self._due - time.monotonic()) if self._entries else None

    def tend(self) -> None:
        """Send what has waited for long enough."""
        if self._entries and time.monotonic() >= self._due:
            self._send()

    def hurry(self, seconds: float) -> None:
        """The process ends: what is not taken `seconds` from now is lost. Called by another thread."""
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(deadline, self._deadline)
        self._hurried.set()

    def close(self) -> None:
        """Send what is left."""
        if self._entries:
            self._send()
        self._export.close()

    def _send(self) -> None:
        """Send the batch. Raises nothing: where sending it is a bug, it is lost and the next need not be."""
        entries, self._entries, self._bytes = self._entries, [], 0
        try:
            self._send_until_taken(entries)
        except Exception as error:  # noqa: BLE001
            self._lose(len(entries), f"they could not be sent: {type(error).__qualname__}")
        self.held_since = None

    def _send_until_taken(self, entries: Sequence[bytes]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while (left := self._left()) > 0:
            answer = self._export.export(entries, min(TRY_SECONDS, left))
            if answer.status is not ExportStatus.RETRYABLE:
                self._settle(answer, len(entries))
                return
            self._fail(answer)
            asked = 0.0 if answer.after is None else min(answer.after, MAX_ASKED_SECONDS)
            self._pause(max(asked, pause * random.uniform(0.5, 1.0)))  # noqa: S311  not all instances at once
            pause = min(MAX_PAUSE_SECONDS, pause * 2)
        self._lose(len(entries), "the process ended before the collector took them")

    def _left(self) -> float:
        """Seconds that are left before all is lost."""
        return TRY_SECONDS if self._deadline is None else self._deadline - time.monotonic()

    def _pause(self, seconds: float) -> None:
        if not self._hurried.wait(seconds):
            return
        time.sleep(max(0.0, min(seconds, _LAST_PAUSE_SECONDS, self._left())))

    def _settle(self, answer: ExportResult, sent: int) -> None:
        if answer.status is ExportStatus.INVALID:
            self._lose(sent, f"the collector refused them: {answer.detail}")
            return
        if self._failing:
            self._failing = False
            _LOG.info("the collector takes decision records again")
        if answer.rejected:
            self._lose(answer.rejected, f"the collector rejected them: {answer.detail}")

    def _fail(self, answer: ExportResult) -> None:
        """Said once while it lasts."""
        if not self._failing:
            self._failing = True
            _LOG.error("the collector takes no decision records, they wait: %s", answer.detail)

    def _lose(self, count: int, why: str) -> None:
        """Count them; one line for all that are lost within some seconds."""
        self.lost += count
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            _LOG.error("decision records are lost, %d so far: %s", self.lost, why)

"""The service's log: one JSON object per line on standard error. Decisions go to the decision log (`audit`) instead."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from types import TracebackType

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a log record as one line of ASCII JSON. Control characters and undecodable bytes are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline. `extra` fields follow the standard ones and can't replace them."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line.setdefault(name, value)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """Formats log records for people: the message, then the record's own fields as `name=value`.

    Control characters and newlines are escaped, so that input can't control the terminal or forge a line. Only a stack
    trace has lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname} {record.name}: {record.getMessage()}"
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line += f" {name}={_field_text(value)}"
        lines = [_printable(line)]
        if record.exc_info:
            lines += [_printable(text) for text in self.formatException(record.exc_info).split("\n")]
        return "\n".join(lines)


def _field_text(value: object) -> str:
    """Format a field's value: a single word verbatim, everything else as JSON."""
    if isinstance(value, str) and value and not set(value) & set(' "=\n'):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def configure_logging(level: str = "info", stream: TextIO | None = None, *, for_people: bool = False) -> None:
    """Log records at `level` (debug, info, warning, error) or above to `stream` (default: standard error).

    Writes JSON, or text if `for_people`. Replaces the root logger's handlers. Raises ValueError for an unknown level.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(TextLines() if for_people else JsonLines())
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]


def log_python_warnings_and_exceptions() -> None:
    """Log Python's warnings and uncaught exceptions in the configured format."""
    log = logging.getLogger("python")
    logging.captureWarnings(capture=True)

    def uncaught(kind: type[BaseException], error: BaseException | None, stack: TracebackType | None) -> None:
        if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
            sys.__excepthook__(kind, error or kind(), stack)
        else:
            log.critical("uncaught exception", exc_info=(kind, error, stack))

    sys.excepthook = uncaught
    threading.excepthook = lambda failure: uncaught(failure.exc_type, failure.exc_value, failure.exc_traceback)
    sys.unraisablehook = lambda failure: uncaught(failure.exc_type, failure.exc_value, failure.exc_traceback)

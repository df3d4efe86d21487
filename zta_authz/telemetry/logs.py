"""The service's own log: one JSON object a line on standard error. Decisions are not logged here but in `audit`."""

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
    """One log record as one line of ASCII: control characters and bytes that were no text arrive escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end. `extra` fields follow the standard ones and can't replace them."""
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
    """Log lines for people: the message, then the record's own fields as `name=value`.

    Control characters and line ends are escaped, so that nobody's input steers the terminal or begins a line of its
    own. Only a stack takes lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{time} {record.levelname} {record.name}: {record.getMessage()}"
        for name, value in vars(record).items():
            if name not in _STANDARD:
                line += f" {name}={_shown(value)}"
        lines = [_printable(line)]
        if record.exc_info:
            lines += [_printable(each) for each in self.formatException(record.exc_info).split("\n")]
        return "\n".join(lines)


def _shown(value: object) -> str:
    """A field's value: a word as it is, all else as JSON."""
    if isinstance(value, str) and value and not set(value) & set(' "=\n'):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def configure_logging(level: str = "info", stream: TextIO | None = None, *, for_people: bool = False) -> None:
    """Send everything logged at `level` (debug, info, warning, error) or above to `stream`, by default standard error.

    In JSON, or as text `for_people`. Replaces the root logger's handlers. Raises ValueError for an unknown level.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(TextLines() if for_people else JsonLines())
    root = logging.getLogger()
    root.setLevel(level.upper())
    root.handlers[:] = [handler]


def log_what_python_says() -> None:
    """Let Python's own warnings and exceptions that nothing catches be log lines, too, in whatever format."""
    log = logging.getLogger("python")
    logging.captureWarnings(capture=True)

    def uncaught(kind: type[BaseException], error: BaseException | None, stack: TracebackType | None) -> None:
        if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
            sys.__excepthook__(kind, error or kind(), stack)
        else:
            log.critical("an exception that nothing caught", exc_info=(kind, error, stack))

    sys.excepthook = uncaught
    threading.excepthook = lambda told: uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: uncaught(told.exc_type, told.exc_value, told.exc_traceback)

"""Outputs for encoded records: the protocol, and writing to a file descriptor. Waits for a full disk or slow reader."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_RETRY_SECONDS = 0.1
_LOG = logging.getLogger(__name__)


class Output(Protocol):
    """The destination of encoded records. Methods may block. The writer thread calls all but `hurry`.

    `lost` counts the records since the start that were passed to `write` and then lost.
    """

    lost: int

    @property
    def failing(self) -> str:
        """Why writing fails at the moment, in a few words; "" if it works."""
        ...

    @property
    def held_since(self) -> float | None:
        """When the oldest record arrived that `write` got but did not yet deliver (epoch seconds); None without any."""
        ...

    def write(self, lines: Sequence[bytes]) -> None:
        r"""Write lines, each with its `\n`, in order."""
        ...

    def seconds_until_due(self) -> float | None:
        """Return in how many seconds to call `run_due_work`; None: only after the next write."""
        ...

    def run_due_work(self) -> None:
        """Do the work that is due, such as flushing."""
        ...

    def hurry(self, seconds: float) -> None:
        """Limit further waiting to `seconds`, because the process ends."""
        ...

    def close(self) -> None:
        """Make everything written durable, and close."""
        ...


class WriteFailure:
    """The reason why an output can't write, readable by other threads; "" if it can. `output` names it in the log."""

    __slots__ = ("output", "reason")

    def __init__(self, output: str = "the decision log") -> None:
        self.output = output
        self.reason = ""


class PlainOutput:
    """Writes lines to a file descriptor, and closes it at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._write_failure = WriteFailure()
        self.lost = 0
        self.held_since: float | None = None

    @property
    def failing(self) -> str:
        """The system's error of the last attempt, "" if it succeeded."""
        return self._write_failure.reason

    def write(self, lines: Sequence[bytes]) -> None:
        """Write the lines, and retry until it succeeds."""
        write_all(self._descriptor, b"".join(lines), self._write_failure)

    def seconds_until_due(self) -> float | None:
        """Return None: no work is ever due."""
        return None

    def run_due_work(self) -> None:
        """Do nothing: no work is ever due."""

    def hurry(self, seconds: float) -> None:
        """Do nothing: a blocked write continues with its reader, or ends with the process."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def write_all(descriptor: int, data: bytes, failure: WriteFailure) -> None:
    """Write all of `data`. Retry until it succeeds, through a missing reader or a full disk."""
    rest = memoryview(data)

    def write_some() -> bool:
        nonlocal rest
        rest = rest[os.write(descriptor, rest) :]
        return not rest

    until_done(write_some, failure)


def until_done(step: Callable[[], bool], failure: WriteFailure) -> None:
    """Repeat `step` until it returns True. On OSError, log once and wait before the next attempt."""
    while True:
        try:
            if step():
                break
            failure.reason = ""
        except OSError as error:
            if not failure.reason:
                _LOG.error("%s can't be written: %s", failure.output, error.strerror)
            failure.reason = error.strerror or type(error).__name__
            threading.Event().wait(_RETRY_SECONDS)
    failure.reason = ""

"""Where encoded records are written to: any file descriptor. A full disk or a slow reader is waited for."""

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
    """What the writer thread hands encoded records to. Each method may block; only `hurry` is called by another.

    `lost` counts the records since the start that were written and then could not be kept.
    """

    lost: int

    @property
    def failing(self) -> str:
        """Why it can't write at the moment, in a few words; "" while it can."""
        ...

    @property
    def held_since(self) -> float | None:
        """When the oldest record came that was written and has not left us (epoch seconds); None without any."""
        ...

    def write(self, lines: Sequence[bytes]) -> None:
        r"""Write lines, each with its `\n`, in this order."""
        ...

    def patience(self) -> float | None:
        """Seconds after which `tend` is to be called though nothing is written; None: not before the next write."""
        ...

    def tend(self) -> None:
        """Do what is due by now."""
        ...

    def hurry(self, seconds: float) -> None:
        """The process ends: what can't be kept `seconds` from now is not waited for any longer."""
        ...

    def close(self) -> None:
        """Make all that was written last, and end."""
        ...


class Trouble:
    """What keeps an output from writing, for others to read; "" where nothing does."""

    __slots__ = ("said",)

    def __init__(self) -> None:
        self.said = ""


class PlainOutput:
    """Lines to a file descriptor, which is closed with it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._trouble = Trouble()
        self.lost = 0
        self.held_since: float | None = None

    @property
    def failing(self) -> str:
        """What the system said of the last attempt."""
        return self._trouble.said

    def write(self, lines: Sequence[bytes]) -> None:
        """Write them, however often it takes."""
        write_all(self._descriptor, b"".join(lines), self._trouble)

    def patience(self) -> float | None:
        """Nothing is ever due."""
        return None

    def tend(self) -> None:
        """Nothing is ever due."""

    def hurry(self, seconds: float) -> None:
        """A write that waits goes on when its reader does, or ends with the process."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


def write_all(descriptor: int, data: bytes, trouble: Trouble) -> None:
    """Write all of `data`, however often it takes; a reader that is gone or a full disk is waited for."""
    rest = memoryview(data)

    def write_some() -> bool:
        nonlocal rest
        rest = rest[os.write(descriptor, rest) :]
        return not rest

    until_done(write_some, trouble)


def until_done(step: Callable[[], bool], trouble: Trouble) -> None:
    """Repeat `step` until it returns True; while it raises OSError, say so once and wait between attempts."""
    while True:
        try:
            if step():
                break
            trouble.said = ""
        except OSError as error:
            if not trouble.said:
                _LOG.error("the decision log can't be written: %s", error.strerror)
            trouble.said = error.strerror or type(error).__name__
            threading.Event().wait(_RETRY_SECONDS)
    trouble.said = ""

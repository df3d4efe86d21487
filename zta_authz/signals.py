"""What signals do before the event loop takes them, and after it has let them go.

Without a handler SIGHUP and SIGUSR2 end a process, and the kernel drops the SIGTERM of process 1 in a container. So
`serve` takes them before it imports anything that takes time, and until it serves there is nothing to drain.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

_ALL: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
_INTERRUPTED: Final = 130
_asked: Final[list[int]] = []  # SIGHUPs that nobody has heeded


def take_early() -> None:
    """From now on SIGTERM and SIGINT end the process at once, SIGHUP is remembered, and SIGUSR2 does nothing."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGHUP, _remember)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def reload_was_asked() -> bool:
    """Whether SIGHUP came since `take_early`, or since this was asked."""
    asked = bool(_asked)
    _asked.clear()
    return asked


def ignore_all() -> None:
    """The process has ended but for its last steps: it ends with its own status whatever comes now."""
    for number in _ALL:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # no exception: it could be caught where things are built, and threads that were begun would be waited for
    os._exit(_INTERRUPTED if number == signal.SIGINT else 0)


def _remember(number: int, _frame: FrameType | None) -> None:
    _asked.append(number)

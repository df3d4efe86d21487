"""Signal handlers for the time before the event loop installs its own, and after it has removed them.

Without a handler, SIGHUP and SIGUSR2 end a process, and the kernel drops SIGTERM for process 1 of a container. So
`serve` installs handlers before its slow imports. Until the service serves there is nothing to drain.
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
_pending_reloads: Final[list[int]] = []  # SIGHUPs not yet handled


def install_early_handlers() -> None:
    """Let SIGTERM and SIGINT end the process at once, remember SIGHUP, and ignore SIGUSR2."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGHUP, _remember)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def reload_requested() -> bool:
    """Whether SIGHUP arrived since `install_early_handlers` or since the last call of this function."""
    requested = bool(_pending_reloads)
    _pending_reloads.clear()
    return requested


def ignore_signals() -> None:
    """Ignore all signals during the last steps of a process, so that it exits with its own status."""
    for number in _ALL:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    # An exception could be caught by start-up code, and the exit would wait for threads that already run.
    os._exit(_INTERRUPTED if number == signal.SIGINT else 0)


def _remember(number: int, _frame: FrameType | None) -> None:
    _pending_reloads.append(number)

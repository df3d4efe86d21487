"""Log exceptions that the service survives: at most one stack trace a second.

Exception messages are left out, because they may quote the request.
"""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging

_INTERVAL_SECONDS: Final = 1.0


class FailureLog:
    """Writes rate-limited stack traces to `logger`."""

    __slots__ = ("_logger", "_quiet_until")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._quiet_until = 0.0

    def error(self, what: str, error: Exception, decision_id: str) -> None:
        """Log `error` as the cause of `what`, unless another error was logged in the last second."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _INTERVAL_SECONDS
        stack = "".join(traceback.format_tb(error.__traceback__))
        self._logger.error("%s: %s in decision %s\n%s", what, type(error).__qualname__, decision_id, stack)

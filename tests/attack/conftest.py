"""A real service on the fast server, under attack on loopback, watched from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.fakes.snapshots import HATSHOP
from tests.support.check_requests import check_request
from tests.support.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE_SECONDS = 15.0


class Victim:
    """The service, its process, and how well it answers an honest client meanwhile."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.pid = pid

    def connect(self) -> socket.socket:
        """A connection of an attacker."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(PATIENCE_SECONDS)
        made.connect(str(self.path))
        return made

    @property
    def resident_bytes(self) -> int:
        """Memory in use (proc(5), statm)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """User and system time so far (proc(5), stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[float]]:
        """An honest client asks all the while; its latencies in seconds, infinity for a call that failed."""
        latencies: list[float] = []
        over = threading.Event()

        def ask() -> None:
            payload = check_request().SerializeToString()
            with grpc.insecure_channel(f"unix:{self.path}") as channel:
                call = channel.unary_unary(CHECK)
                while not over.is_set():
                    begun = time.monotonic()
                    try:
                        call(payload, timeout=5)
                        latencies.append(time.monotonic() - begun)
                    except grpc.RpcError:
                        latencies.append(float("inf"))
                    time.sleep(0.01)

        honest = threading.Thread(target=ask)
        honest.start()
        try:
            yield latencies
        finally:
            over.set()
            honest.join()


def settings(directory: Path) -> str:
    """Times short enough to be waited for; everything else is the default."""
    return (
        f'listen: ["unix:{directory}/authz.sock"]\n'
        f"policies: [{directory}/policies]\n"
        "workload: {labels: {app: hatshop}}\n"
        "peer: {trust_proxy: true}\n"
        "health: {listen: null}\n"
        "server: fast\n"
        "http2: {request_seconds: 2, stall_seconds: 2, preface_seconds: 2}\n"
        f"audit: {{sink: file, path: {directory}/decisions.jsonl}}\n"
    )


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    directory = tmp_path_factory.mktemp("victim")
    (directory / "policies").mkdir()
    (directory / "policies" / "hatshop.yaml").write_text(HATSHOP)
    (directory / "settings.yaml").write_text(settings(directory))
    with RunningService(directory / "settings.yaml") as service:
        service.wait_for("serving")
        yield Victim(directory / "authz.sock", service.process.pid)


def send_until_closed(attacker: socket.socket, next_bytes: Callable[[], bytes], seconds: float) -> bool:
    """Send what `next_bytes` gives, reading nothing, until the other side ends it or the time is over; if it ended."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            attacker.sendall(next_bytes())
    except OSError:
        return True
    return False


def ends(attacker: socket.socket) -> bool:
    """Read until the other side ends the connection; False if it does not in time."""
    try:
        while attacker.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True

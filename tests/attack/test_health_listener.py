"""Attacks on the health listener, which the whole cluster can reach: probes succeed, and nothing leaks."""

from __future__ import annotations

import socket
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.snapshots import HATSHOP
from tests.support.service import RunningService
from zta_authz.admin.http_listener import MAX_CONNECTIONS, TIMEOUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBES_PATIENCE_SECONDS = 1.0
"""The kubelet's default."""
ATTACKERS = 3 * MAX_CONNECTIONS


class Listening:
    """The service, and the address of its health listener."""

    def __init__(self, address: str, pid: int) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._pid = pid

    def connect(self) -> socket.socket:
        """Open a connection with the smallest receive buffer."""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.settimeout(5)
        connection.connect(self._address)
        return connection

    def probe(self) -> float:
        """Send a probe; return its seconds. Raises OSError if it fails or takes too long."""
        started = time.monotonic()
        url = f"http://{self._address[0]}:{self._address[1]}/readyz"
        with urllib.request.urlopen(url, timeout=PROBES_PATIENCE_SECONDS) as answer:
            assert answer.status == 200
        return time.monotonic() - started

    @property
    def descriptors(self) -> int:
        """The number of open files and sockets of the process (proc(5), fd)."""
        return len(list(Path(f"/proc/{self._pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    directory = tmp_path_factory.mktemp("listening")
    (directory / "policies").mkdir()
    (directory / "policies" / "hatshop.yaml").write_text(HATSHOP)
    (directory / "settings.yaml").write_text(
        f'listen: ["unix:{directory}/authz.sock"]\n'
        f"policies: [{directory}/policies]\n"
        "workload: {labels: {app: hatshop}}\n"
        "peer: {trust_proxy: true}\n"
        "health: {listen: '127.0.0.1:0'}\n"
        f"audit: {{sink: file, path: {directory}/decisions.jsonl}}\n"
    )
    with RunningService(directory / "settings.yaml") as service:
        yield Listening(service.wait_for("serving")["health"], service.process.pid)


WAYS = {
    "sends nothing": b"",
    "sends half a request": b"GET /metrics HTTP/1.1\r\n",
    "does not read its metrics": b"GET /metrics HTTP/1.1\r\n\r\n",
    "is refused and stays": b"POST /metrics HTTP/1.1\r\n\r\n",
    "is refused and keeps sending": b"POST /metrics HTTP/1.1\r\n\r\n" + bytes(64_000),
}


@pytest.mark.parametrize("way", WAYS)
def test_many_connections_block_no_probe_and_leave_nothing_behind(listening: Listening, way: str) -> None:
    assert listening.probe() < PROBES_PATIENCE_SECONDS  # the control: without attackers
    before = listening.descriptors
    with ExitStack() as stack:
        for _ in range(ATTACKERS):
            stack.enter_context(attacker := listening.connect())
            attacker.sendall(WAYS[way])
        for _ in range(5):
            assert listening.probe() < PROBES_PATIENCE_SECONDS
        assert listening.descriptors <= before + MAX_CONNECTIONS + 1
        until = time.monotonic() + TIMEOUT_SECONDS + 3
        while listening.descriptors > before and time.monotonic() < until:
            time.sleep(0.05)
        assert listening.descriptors <= before  # all attackers are still connected, and none is served any more

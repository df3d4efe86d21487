"""A real service on the fast server, attacked over loopback and observed from outside."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.fakes.snapshots import HATSHOP
from tests.integration.test_tls import Files, key_pem
from tests.support.check_requests import check_request
from tests.support.pki import root
from tests.support.service import RunningService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = "/envoy.service.auth.v3.Authorization/Check"
PATIENCE_SECONDS = 15.0


ENVOY = "spiffe://cluster.local/ns/default/sa/envoy"
UNAUTHORIZED = "spiffe://cluster.local/ns/default/sa/other"


class SecuredPort:
    """A port for mutual TLS, and clients for it without a certificate or with any certificate."""

    def __init__(self, address: str, files: Files) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._contexts = {name: _context(files, name) for name in (ENVOY, UNAUTHORIZED)}

    def connect_plain(self) -> socket.socket:
        """Open a connection without a TLS handshake."""
        connection = socket.create_connection((self._host, self._port), timeout=PATIENCE_SECONDS)
        connection.settimeout(PATIENCE_SECONDS)
        return connection

    def connect(self, name: str = ENVOY) -> ssl.SSLSocket:
        """Open a connection with `name`'s certificate."""
        return self._contexts[name].wrap_socket(self.connect_plain(), server_hostname="authz.test")


def _context(files: Files, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=files.authority.pem)
    context.set_alpn_protocols(["h2"])
    client = files.directory / "client.pem"
    client.write_bytes(files.issue(name, 2).encode() + key_pem(2))
    context.load_cert_chain(client)
    return context


class Victim:
    """The service and its process, with measurements of its memory, CPU and latency."""

    def __init__(self, path: Path, pid: int, secured: SecuredPort | None = None) -> None:
        self.path = path
        self.pid = pid
        self._secured = secured

    @property
    def secured(self) -> SecuredPort:
        """The port for mutual TLS."""
        assert self._secured is not None
        return self._secured

    def connect(self) -> socket.socket:
        """Open an attacker's connection."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(self.path))
        return connection

    @property
    def resident_bytes(self) -> int:
        """Resident memory (proc(5), statm)."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """User and system time (proc(5), stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def watched(self) -> Iterator[list[float]]:
        """Let an honest client send calls; yield its latencies in seconds, infinity for a failed call."""
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
    """Settings with short timeouts; all others have their defaults."""
    return (
        f'listen: ["unix:{directory}/authz.sock", "127.0.0.1:0"]\n'
        f"policies: [{directory}/policies]\n"
        "workload: {labels: {app: hatshop}}\n"
        "peer: {trust_proxy: true}\n"
        "health: {listen: null}\n"
        "server: fast\n"
        "http2: {request_seconds: 2, stall_seconds: 2, preface_seconds: 2, handshake_seconds: 2, max_handshakes: 64,\n"
        "  max_connections: 200, max_strangers: 8, stranger_seconds: 2, max_held_bytes: 33554432}\n"
        f"tls: {{cert_file: {directory}/cert.pem, key_file: {directory}/key.pem, client_ca_file: {directory}/ca.pem,\n"
        f"  allowed_spiffe_ids: [{ENVOY}]}}\n"
        f"audit: {{sink: file, path: {directory}/decisions.jsonl}}\n"
    )


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    directory = tmp_path_factory.mktemp("victim")
    (directory / "policies").mkdir()
    (directory / "policies" / "hatshop.yaml").write_text(HATSHOP)
    (directory / "settings.yaml").write_text(settings(directory))
    validity = {"not_before": time.time() - 60, "not_after": time.time() + 3600}
    files = Files(root("ca", **validity), directory, validity)
    files.write(1)
    with RunningService(directory / "settings.yaml") as service:
        address = service.wait_for("serving")["listen"][1]
        yield Victim(directory / "authz.sock", service.process.pid, SecuredPort(address, files))


def send_until_closed(attacker: socket.socket, next_bytes: Callable[[], bytes], seconds: float) -> bool:
    """Send the results of `next_bytes` without reading. Return whether the server closed the connection in time."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            attacker.sendall(next_bytes())
    except OSError:
        return True
    return False


def ends(attacker: socket.socket) -> bool:
    """Read until the server closes the connection; False if it does not in time."""
    try:
        while attacker.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True

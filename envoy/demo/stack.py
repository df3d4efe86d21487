"""Starts the upstream, zta-authz and Envoy in this order, connected by Unix sockets, and stops them in reverse."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from envoy.demo import access, facts, identities
from envoy.demo.authz_connection import mtls_connection, unix_connection
from envoy.demo.client import Answer, Request, send, tls_context
from envoy.demo.envoyproc import NOT_FOUND, Envoy, find_envoy
from envoy.demo.processes import Child, ProcessError, wait_until
from zta_authz.cli.envoy_config.bootstrap import bootstrap, to_mapping
from zta_authz.cli.envoy_config.envoy_options import EnvoyOptions, TlsFiles, Tracing
from zta_authz.cli.envoy_config.network_address import tcp, unix_socket

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from envoy.demo.authz_connection import AuthzConnection, Mtls
    from envoy.demo.certificates import CertificateAuthority
    from envoy.demo.identities import Layout

WORKLOAD = {"namespace": "default", "labels": {"app": "hatshop"}, "trust_domain": identities.TRUST_DOMAIN}

TRUSTED_HOPS = 1
"""A client plays the load balancer in front of Envoy: it writes the address of whom it acts for to X-Forwarded-For."""

SOCKETS_PREFIX = "zta-"
SOCKETS_LINK = "sockets"


def remove_stale_sockets(root: Path) -> None:
    """Remove the sockets of an earlier stack in `root` that was killed."""
    try:
        stale = (root / SOCKETS_LINK).readlink()
    except OSError:
        return
    if stale.name.startswith(SOCKETS_PREFIX) and stale.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(stale, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class StackOptions:
    """Deviations from the demo. `authz_command` replaces zta-authz; `{socket}` in it is replaced by the socket's path.

    `collector_port`: Envoy sends its spans to an OTLP collector at this loopback port. `envoy`: the binary, None to
    search for it. `mtls` connects Envoy and zta-authz over TCP. `workers` is the setting. `administrator` starts one
    beside zta-authz. `authz_timeout` is longer than the default of 200 ms, because laptops and build machines stall.
    """

    port: int = 0
    host: str = "127.0.0.1"
    reject_underscores: bool = True
    clients_verified_by_envoy: bool = False
    authz_timeout: timedelta = timedelta(seconds=2)
    authz_command: tuple[str, ...] = ()
    envoy: Path | None = None
    mtls: Mtls | None = None
    collector_port: int = 0
    workers: int = 1
    administrator: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def authz_settings(layout: Layout, connection: AuthzConnection) -> dict[str, Any]:
    """Return the settings of zta-authz that differ from the defaults."""
    return {
        "listen": [connection.listen],
        "policies": [str(layout.policies)],
        "workload": WORKLOAD,
        "client_address": {"use_remote_address": True, "xff_num_trusted_hops": TRUSTED_HOPS},
        "facts": {"directory": str(layout.facts)},
        "networks": {"country": str(layout.facts / facts.COUNTRIES)},
        "audit": {"sink": "stdout"},
        "peer": {"verify_certificate": "required"},
        "health": {"listen": None},
        "socket": {"mode": "0600"},
        **connection.settings,
    }


class Stack:
    """The running processes. Create it with `running`, which also stops them."""

    def __init__(self, layout: Layout, sockets: Path, options: StackOptions) -> None:
        self.layout = layout
        self.options = options
        self.socket = sockets / "authz.sock"
        self.connection = (
            unix_connection(self.socket, options.workers)
            if options.mtls is None
            else mtls_connection(layout, options.mtls)
        )
        self.config = layout.root / "zta-authz.yaml"
        self.upstream_log = layout.root / "upstream.log"
        self.decisions = layout.root / "decisions.jsonl"
        self.sockets = sockets
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self.port = 0
        self.envoy: Envoy
        self.authz: Child

    def start(self, cleanup: contextlib.ExitStack) -> None:
        """Start all three, each when the previous one is ready. Registers their `stop` methods in `cleanup`."""
        binary = self.options.envoy or find_envoy()
        if binary is None:
            raise ProcessError(NOT_FOUND)
        upstream = self._start_upstream(cleanup)
        self.start_authz(cleanup)
        envoy = Envoy(binary, self.write_bootstrap(), admin=self.sockets / "admin.sock")
        cleanup.callback(envoy.child.stop)
        envoy.wait_ready()
        upstream.check()
        self.envoy = envoy
        self.port = envoy.port()

    def _start_upstream(self, cleanup: contextlib.ExitStack) -> Child:
        socket = self.sockets / "upstream.sock"
        script = Path(__file__).parent / "upstream.py"
        log = self.upstream_log
        child = Child("upstream", [sys.executable, str(script), str(socket)], stdout=log, stderr=log)
        cleanup.callback(child.stop)
        wait_until(socket.exists, child)
        return child

    def start_authz(self, cleanup: contextlib.ExitStack) -> None:
        """Start zta-authz or its replacement, and wait until it reports SERVING."""
        settings = {**authz_settings(self.layout, self.connection), **self.options.settings}
        if self.options.administrator:
            settings["administrator"] = access.administrator_settings(self.layout.root, self.sockets)
            settings["audit"] = {"sink": "file", "path": str(self.decisions)}  # chained, as `audit verify` needs it
        self.config.write_text(yaml.safe_dump(settings, sort_keys=False))
        command = self._authz_command()
        output = self.layout.root / "zta-authz.out" if self.options.administrator else self.decisions
        child = Child("zta-authz", command, stdout=output, stderr=self.layout.root / "zta-authz.log")
        cleanup.callback(child.stop)
        wait_until(self.connection.serving, child)
        if self.options.administrator:
            wait_until(access.operations_socket(self.sockets).exists, child)
        self.authz = child

    def _authz_command(self) -> list[str]:
        if self.options.authz_command:
            return [part.replace("{socket}", str(self.socket)) for part in self.options.authz_command]
        return [sys.executable, "-m", "zta_authz", "serve", "--config", str(self.config)]

    def write_bootstrap(self) -> Path:
        """Write Envoy's configuration and return the file."""
        file = self.layout.root / "envoy.json"
        file.write_text(json.dumps(to_mapping(bootstrap(self._options())), indent=2))
        return file

    def _options(self) -> EnvoyOptions:
        layout, options = self.layout, self.options
        tls = TlsFiles(str(layout.certificate("server")), str(layout.key("server")), str(layout.ca))
        collector = tcp("127.0.0.1", options.collector_port)
        return EnvoyOptions(
            authz=self.connection.target,
            listen=tcp(options.host, options.port),
            upstream=unix_socket(str(self.sockets / "upstream.sock")),
            admin=unix_socket(str(self.sockets / "admin.sock")),
            tls=tls,
            authz_timeout=options.authz_timeout,
            xff_num_trusted_hops=TRUSTED_HOPS,
            tracing=Tracing(collector) if options.collector_port else None,
            clients_verified_by_envoy=options.clients_verified_by_envoy,
            reject_underscores=options.reject_underscores,
        )

    def context(self, peer: str | None) -> ssl.SSLContext:
        """Return the TLS context of one identity; None presents no certificate."""
        if peer not in self._contexts:
            files = None if peer is None else (self.layout.certificate(peer), self.layout.key(peer))
            self._contexts[peer] = tls_context(self.layout.ca, files)
        return self._contexts[peer]

    def send(self, peer: str | None, request: Request) -> Answer:
        """Send one request through Envoy as `peer`."""
        return send(self.port, self.context(peer), request)

    def upstream_requests(self) -> int:
        """Return the number of requests that reached the upstream."""
        return len(self.upstream_log.read_text().splitlines())


@contextlib.contextmanager
def running(
    root: Path,
    options: StackOptions = StackOptions(),
    ca: CertificateAuthority | None = None,
    kind: type[Stack] = Stack,
) -> Iterator[Stack]:
    """Create identities in `root` (signed by `ca` if given), start everything, and always stop it at the end."""
    with contextlib.ExitStack() as cleanup:
        # Unix socket paths hold at most 107 bytes, so sockets live in a short directory of their own.
        sockets = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX))
        cleanup.callback(shutil.rmtree, sockets, ignore_errors=True)
        layout = identities.mint(root, ca)
        (root / SOCKETS_LINK).symlink_to(sockets)
        stack = kind(layout, sockets, options)
        stack.start(cleanup)
        yield stack

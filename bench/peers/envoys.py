"""Measure what a check adds to a request through the real Envoy, for each server, Envoy alone and Envoy's RBAC filter.

There is one Envoy per configuration. All share a CPU and one works at a time; the servers have the other CPU. The
client uses HTTP/2 over mutual TLS with an X.509-SVID and a token, so Envoy sends the same checks as in production.
Envoy responds itself (`direct_response`), so no upstream is measured.
"""

from __future__ import annotations

import copy
import json
import os
import socket as sockets
import ssl
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from bench import scenario
from bench.peers import policy, servers
from bench.peers.names import FAST, NONE, RBAC, RBAC_AND_FAST
from bench.peers.paced import PacedClient
from bench.peers.process import cpu_seconds
from envoy.demo.certificates import CertificateAuthority, Names
from envoy.demo.envoyproc import find_envoy
from envoy.demo.processes import Child, wait_until
from zta_authz._proto.ext_authz_pb2 import CheckRequest
from zta_authz.cli.envoy_config.bootstrap import bootstrap, to_mapping
from zta_authz.cli.envoy_config.envoy_options import AuthzTarget, EnvoyOptions, TlsFiles
from zta_authz.cli.envoy_config.network_address import tcp, unix_socket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.peers.servers import Running, Trial

_HOST: Final = "orders.default.svc.cluster.local"
_SECONDS: Final = 60.0


def prepare(rules: int, directory: Path, names: Sequence[str]) -> Trial:
    """As `servers.prepare` with tokens, but with a caller's certificate that Envoy's client can use."""
    trial = servers.prepare("token", rules, directory, names)
    authority = CertificateAuthority("authority", "cluster.local")
    subjects = {"client": Names(uris=(scenario.FRONTEND,)), "server": Names(dns=(_HOST,), common_name=_HOST)}
    for name, subject in subjects.items():
        issued = authority.issue(subject)
        (directory / f"{name}.pem").write_bytes(issued.certificate)
        (directory / f"{name}.key").write_bytes(issued.key)
    (directory / "ca.pem").write_bytes(authority.certificate)
    path = directory / "policies" / "policies.yaml"
    documents = [json.loads(part) for part in path.read_text().split("\n---\n")]
    for document in documents:
        if document["kind"] == "TrustBundle":
            document["spec"]["x509Authorities"] = authority.certificate.decode()
    path.write_text("\n---\n".join(map(json.dumps, documents)))
    return trial


class Proxy:
    """An Envoy with one configuration, and the connection to it."""

    def __init__(self, name: str, directory: Path, config: dict[str, Any], port: int, server: Running | None) -> None:
        self.name = name
        self.server = server
        slug = name.replace(" ", "-").replace(",", "")
        path = directory / f"envoy-{slug}.json"
        path.write_text(json.dumps(config))
        log = directory / f"envoy-{slug}.log"
        binary = find_envoy()
        command = [str(binary), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        self.child = Child(name, command, stdout=log, stderr=log)
        self._port = port

    def wait_ready(self) -> None:
        """Wait until Envoy listens. Raises `ProcessError` if it does not."""

        def listens() -> bool:
            with sockets.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._port)) == 0

        wait_until(listens, self.child, seconds=_SECONDS)

    def cpu_seconds(self) -> tuple[float, float]:
        """Return the CPU time of Envoy, and of its server (0 without one)."""
        return cpu_seconds(self.child.pid), cpu_seconds(self.server.child.pid) if self.server else 0.0

    def connect(self, directory: Path, headers: Mapping[str, str]) -> PacedClient:
        """Open a connection with the caller's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(directory / "ca.pem")
        context.load_cert_chain(directory / "client.pem", directory / "client.key")
        context.set_alpn_protocols(["h2"])
        plain = sockets.create_connection(("127.0.0.1", self._port))
        plain.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        return PacedClient(context.wrap_socket(plain, server_hostname=_HOST), headers, None)


def request_headers(trial: Trial) -> dict[str, str]:
    """Return the HTTP request that Envoy turns into the scenario's CheckRequest."""
    http = CheckRequest.FromString(trial.request).attributes.request.http
    return {name: value for name, value in sorted(http.headers.items()) if not name.startswith("x-")}


@contextmanager
def proxies(trial: Trial, running: Sequence[Running], directory: Path, cpu: int) -> Iterator[list[Proxy]]:
    """Start an Envoy without a check, one with RBAC, one for each server, and one with both RBAC and the service."""
    policies = policy.read(directory / "policies" / "policies.yaml")
    rbac = [_filter("rbac-deny", policy.to_rbac(policies, deny=True)), _filter("rbac-allow", _allow(policies))]
    plans: list[tuple[str, list[dict[str, Any]], Running | None]] = [(NONE, [], None), (RBAC, rbac, None)]
    plans += [(server.peer.name, [], server) for server in running]
    plans += [(RBAC_AND_FAST, rbac, server) for server in running if server.peer.name == FAST]
    started: list[Proxy] = []
    try:
        for name, filters, server in plans:
            port = _free_port()
            config = _config(directory, port, filters, None if server is None else server.socket)
            with servers.on_cpu(cpu):
                started.append(Proxy(name, directory, config, port, server))
            started[-1].wait_ready()
        time.sleep(1)  # Envoy's first health checks
        yield started
    finally:
        for proxy in started:
            proxy.child.stop()


def _allow(policies: policy.PolicySet) -> dict[str, Any]:
    return policy.to_rbac(policies, deny=False)


def _filter(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "typed_config": config}


def _free_port() -> int:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _config(directory: Path, port: int, filters: list[dict[str, Any]], authz: Path | None) -> dict[str, Any]:
    """Return the bootstrap with `filters` before the check (no check without `authz`) and a direct response."""
    options = EnvoyOptions(
        authz=AuthzTarget(addresses=(unix_socket(str(authz or directory / "nobody.sock")),)),
        listen=tcp("127.0.0.1", port),
        upstream=tcp("127.0.0.1", 1),
        admin=unix_socket(str(directory / f"admin-{port}.sock")),
        tls=TlsFiles(*(str(directory / name) for name in ("server.pem", "server.key", "ca.pem"))),
        authz_timeout=timedelta(seconds=5),  # so that a stall counts as latency, not as a denial
    )
    config: dict[str, Any] = copy.deepcopy(to_mapping(bootstrap(options)))
    resources = config["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    check, router = manager["http_filters"]
    check["typed_config"]["encode_raw_headers"] = (
        False  # OPA-Envoy does not read raw headers, and all servers get the same requests
    )
    manager["http_filters"] = [*filters, *([check] if authz else []), router]
    if authz is None:
        resources["clusters"] = [cluster for cluster in resources["clusters"] if cluster["name"] != "zta_authz"]
    return config


def available() -> str:
    """Return why this can't be measured here; "" if it can."""
    if find_envoy() is None:
        return "there is no Envoy: `make setup` installs it, or ZTA_ENVOY names one"
    return "" if len(os.sched_getaffinity(0)) > 1 else "it takes two CPUs"

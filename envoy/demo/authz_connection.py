"""The connection from Envoy to zta-authz: a Unix socket, or TCP with mutual TLS."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from envoy.demo.identities import AUTHZ_ID, spiffe_id
from zta_authz.cli.envoy_config.envoy_options import AuthzTarget, MtlsFiles
from zta_authz.cli.envoy_config.network_address import tcp, worker_sockets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from envoy.demo.identities import Layout

PROXY = "server"
"""The demo's Envoy uses its server certificate also as a client of zta-authz."""


@dataclass(frozen=True, slots=True)
class Mtls:
    """Mutual TLS: Envoy's client certificate, the expected server ID, and the IDs that zta-authz permits."""

    proxy: str = PROXY
    expected: str = AUTHZ_ID
    allowed: tuple[str, ...] = (spiffe_id("hatshop"),)


@dataclass(frozen=True, slots=True)
class AuthzConnection:
    """`listen` and `settings` configure zta-authz, `target` configures Envoy, `channel` connects like Envoy."""

    listen: str
    target: AuthzTarget
    settings: dict[str, Any]
    channel: Callable[[], grpc.Channel]

    def serving(self) -> bool:
        """Return whether the gRPC health service reports SERVING, or refuses us as an unauthorized peer."""
        with self.channel() as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.RpcError as error:
                code = getattr(error, "code", None)  # missing in grpc's types
                return code is not None and code() is grpc.StatusCode.PERMISSION_DENIED
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def unix_connection(path: Path, workers: int = 1) -> AuthzConnection:
    """Return a connection over the Unix socket `path`, or one socket per worker. `channel` uses the last one."""
    target = AuthzTarget(addresses=worker_sockets(str(path), workers))
    settings = {} if workers == 1 else {"workers": workers}
    return AuthzConnection(f"unix:{path}", target, settings, lambda: grpc.insecure_channel(str(target.addresses[-1])))


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def mtls_connection(layout: Layout, mtls: Mtls) -> AuthzConnection:
    """Return a connection over a free loopback port, with certificates of `layout`."""
    port = free_port()
    files = MtlsFiles(str(layout.certificate(mtls.proxy)), str(layout.key(mtls.proxy)), str(layout.ca), mtls.expected)
    tls = {
        "cert_file": str(layout.certificate("zta-authz")),
        "key_file": str(layout.key("zta-authz")),
        "client_ca_file": str(layout.ca),
        "allowed_spiffe_ids": list(mtls.allowed),
    }

    def channel() -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            layout.ca.read_bytes(), layout.key(PROXY).read_bytes(), layout.certificate(PROXY).read_bytes()
        )
        return grpc.secure_channel(f"localhost:{port}", credentials)

    target = AuthzTarget(addresses=(tcp("127.0.0.1", port),), mtls=True, files=files)
    return AuthzConnection(f"127.0.0.1:{port}", target, {"tls": tls}, channel)

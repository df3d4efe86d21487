"""How Envoy reaches zta-authz: a Unix socket, or TCP with mutual TLS."""

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
"""The demo's Envoy asks with the certificate it also shows to its clients."""


@dataclass(frozen=True, slots=True)
class Mtls:
    """Mutual TLS: which certificate Envoy asks with, whom it expects, and whom zta-authz lets ask."""

    proxy: str = PROXY
    expected: str = AUTHZ_ID
    allowed: tuple[str, ...] = (spiffe_id("hatshop"),)


@dataclass(frozen=True, slots=True)
class AuthzConnection:
    """`listen` and `settings` are zta-authz's side, `target` is Envoy's, `channel` connects as Envoy may."""

    listen: str
    target: AuthzTarget
    settings: dict[str, Any]
    channel: Callable[[], grpc.Channel]

    def serving(self) -> bool:
        """Whether the gRPC health service says SERVING, or that we are none of those who may ask."""
        with self.channel() as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.RpcError as error:
                code = getattr(error, "code", None)  # which grpc's own types do not know of
                return code is not None and code() is grpc.StatusCode.PERMISSION_DENIED
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def unix_connection(path: Path, workers: int = 1) -> AuthzConnection:
    """A Unix socket at `path`, or one for each of several `workers`; the last one tells whether they serve."""
    target = AuthzTarget(addresses=worker_sockets(str(path), workers))
    settings = {} if workers == 1 else {"workers": workers}
    return AuthzConnection(f"unix:{path}", target, settings, lambda: grpc.insecure_channel(str(target.addresses[-1])))


def free_port() -> int:
    """A TCP port of the loopback that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def mtls_connection(layout: Layout, mtls: Mtls) -> AuthzConnection:
    """A free port of the loopback, with certificates of `layout`."""
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

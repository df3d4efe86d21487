"""The parameters of Envoy's configuration. This module does not import Envoy's messages, which takes a second."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zta_authz.cli.envoy_config.network_address import NetworkAddress

AUTHZ_CLUSTER: Final = "zta_authz"
UPSTREAM_CLUSTER: Final = "application"
COLLECTOR_CLUSTER: Final = "otlp_collector"
ENVOY_SERVICE_NAME: Final = "envoy"
TLS_DIRECTORY: Final = "/etc/envoy/tls"
TIMEOUT: Final = timedelta(milliseconds=200)
BODY_BYTES: Final = 0
"""No rule reads bodies, and Envoy would delay each request until it has this much of the body, or all of it."""
AUTHZ_ACCOUNT: Final = "ns/zta-system/sa/zta-authz"
"""The default path of zta-authz's SPIFFE ID: as `k8s/` installs it."""


@dataclass(frozen=True, slots=True)
class MtlsFiles:
    """PEM files that Envoy uses as a client of zta-authz, and the SPIFFE ID that the server must have."""

    certificate: str = f"{TLS_DIRECTORY}/authz-client.pem"
    key: str = f"{TLS_DIRECTORY}/authz-client.key"
    server_ca: str = f"{TLS_DIRECTORY}/authz-ca.pem"
    server_id: str = f"spiffe://cluster.local/{AUTHZ_ACCOUNT}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the listener: its certificate and key, and the authorities of its clients."""

    certificate: str = f"{TLS_DIRECTORY}/server.pem"
    key: str = f"{TLS_DIRECTORY}/server.key"
    client_ca: str = f"{TLS_DIRECTORY}/client-ca.pem"


@dataclass(frozen=True, slots=True)
class AuthzTarget:
    """The addresses of zta-authz, one per process. `mtls` is for TCP, never for a Unix socket."""

    addresses: tuple[NetworkAddress, ...]
    mtls: bool = False
    files: MtlsFiles = MtlsFiles()


@dataclass(frozen=True, slots=True)
class Tracing:
    """Envoy's spans: the OTLP collector (gRPC), and the percentage of requests that is sampled."""

    collector: NetworkAddress
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """The parameters of a configuration. The defaults are those of the example files in `envoy/`.

    `per_try_timeout`: the maximum back-off of the retry policy, which Envoy also uses as the timeout of each try.
    `body_bytes`: the maximum size of the request body that Envoy sends; 0 sends no body and never waits for one.
    `clients_verified_by_envoy`: False leaves it to zta-authz to refuse a missing or untrusted client certificate.
    `clients_may_be_anonymous`: clients without a certificate may authenticate with a token or an API key.
    `client_chain`: Envoy writes the client's chain to X-Forwarded-Client-Cert, where zta-authz reads intermediates.
    `upstream_http2`: the application speaks HTTP/2, as gRPC requires. `websocket`: WebSockets are supported.
    `cors_origins`: pages of these origins may call (CORS); Envoy answers their preflight requests.
    `reject_underscores`: False accepts header names with `_` (Envoy's default), for tests of header removal.
    """

    authz: AuthzTarget
    listen: NetworkAddress
    upstream: NetworkAddress
    admin: NetworkAddress | None
    tls: TlsFiles = TlsFiles()
    authz_timeout: timedelta = TIMEOUT
    per_try_timeout: timedelta = TIMEOUT
    body_bytes: int = BODY_BYTES
    use_remote_address: bool = True
    xff_num_trusted_hops: int = 0
    tracing: Tracing | None = None
    clients_verified_by_envoy: bool = True
    clients_may_be_anonymous: bool = False
    client_chain: bool = False
    reject_underscores: bool = True
    upstream_http2: bool = False
    websocket: bool = False
    cors_origins: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether a response may last as long as its connection."""
        return self.upstream_http2 or self.websocket

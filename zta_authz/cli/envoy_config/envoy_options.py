"""What Envoy's configuration is made from. Imports nothing of Envoy's: the typed messages take a second to load."""

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
"""No rule reads bodies, and Envoy would keep each request back until it has so much of its body, or all."""
AUTHZ_ACCOUNT: Final = "ns/zta-system/sa/zta-authz"
"""The path of zta-authz's SPIFFE ID where nobody says otherwise: as `k8s/` installs it."""


@dataclass(frozen=True, slots=True)
class MtlsFiles:
    """PEM files of Envoy as a client of zta-authz, and the SPIFFE ID the server must have."""

    certificate: str = f"{TLS_DIRECTORY}/authz-client.pem"
    key: str = f"{TLS_DIRECTORY}/authz-client.key"
    server_ca: str = f"{TLS_DIRECTORY}/authz-ca.pem"
    server_id: str = f"spiffe://cluster.local/{AUTHZ_ACCOUNT}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the listener: its own certificate and key, and the authorities of its clients."""

    certificate: str = f"{TLS_DIRECTORY}/server.pem"
    key: str = f"{TLS_DIRECTORY}/server.key"
    client_ca: str = f"{TLS_DIRECTORY}/client-ca.pem"


@dataclass(frozen=True, slots=True)
class AuthzTarget:
    """Where zta-authz listens. Several places are several processes; `mtls` for TCP, never for a Unix socket."""

    addresses: tuple[NetworkAddress, ...]
    mtls: bool = False
    files: MtlsFiles = MtlsFiles()


@dataclass(frozen=True, slots=True)
class Tracing:
    """Envoy's own spans: the OTLP collector (gRPC), and which percentage of requests whose client does not say."""

    collector: NetworkAddress
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """What may differ between configurations; the defaults are those of the files to copy.

    `per_try_timeout`: Envoy takes the longest back-off of a retry policy like ours for the time that one try may take.
    `body_bytes`: how much of a body is sent along; 0 sends none and never waits for one.
    `clients_verified_by_envoy`: False leaves it to zta-authz to refuse a missing or foreign client certificate.
    `clients_may_be_anonymous`: a client may show no certificate, and prove who it is with a token or an API key.
    `client_chain`: Envoy writes the client's chain into X-Forwarded-Client-Cert, where zta-authz finds intermediates.
    `upstream_http2`: the application speaks HTTP/2, as gRPC needs it. `websocket`: WebSockets are let through.
    `cors_origins`: pages of these origins may call (CORS); Envoy answers their preflights itself.
    `reject_underscores`: False lets header names with `_` through (Envoy's own default), for tests of stripping.
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
        """Whether an answer may last as long as its connection."""
        return self.upstream_http2 or self.websocket

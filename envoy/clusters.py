"""The cluster through which Envoy reaches zta-authz: over Unix sockets, or over TCP with mutual TLS."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http2ProtocolOptions,
    KeepaliveSettings,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any

if TYPE_CHECKING:
    from collections.abc import Sequence

AUTHZ_CLUSTER = "zta_authz"
MAX_RETRIES = 100
"""At a time: what a dying process had in work. Envoy's default is 3."""
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class MtlsFiles:
    """PEM files of Envoy as a client of zta-authz, and the SPIFFE ID the server must have."""

    certificate: str = "/etc/envoy/tls/authz-client.pem"
    key: str = "/etc/envoy/tls/authz-client.key"
    server_ca: str = "/etc/envoy/tls/authz-ca.pem"
    server_id: str = "spiffe://cluster.local/ns/zta-system/sa/zta-authz"


@dataclass(frozen=True, slots=True)
class AuthzTarget:
    """Where zta-authz listens. Several addresses are several processes; `mtls` for TCP, never for a Unix socket."""

    addresses: tuple[Address, ...]
    mtls: bool = False
    files: MtlsFiles = MtlsFiles()


def file_source(path: str) -> DataSource:
    """A file that Envoy reads."""
    return DataSource(filename=path)


def certificate(chain: str, key: str) -> TlsCertificate:
    """A certificate chain and its key, from files."""
    return TlsCertificate(certificate_chain=file_source(chain), private_key=file_source(key))


def endpoints(cluster: str, addresses: Sequence[Address]) -> ClusterLoadAssignment:
    """Fixed endpoints of a static cluster."""
    hosts = [LbEndpoint(endpoint=Endpoint(address=address)) for address in addresses]
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=hosts)])


def _http2() -> HttpProtocolOptions:
    keepalive = KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=5))
    return HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions(connection_keepalive=keepalive)
        )
    )


def _health_check() -> HealthCheck:
    return HealthCheck(
        timeout=timedelta(seconds=1),
        interval=timedelta(seconds=2),
        no_traffic_interval=timedelta(seconds=2),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(),
    )


def _outlier_detection() -> OutlierDetection:
    return OutlierDetection(
        consecutive_gateway_failure=3,
        enforcing_consecutive_gateway_failure=100,
        interval=timedelta(seconds=1),
        base_ejection_time=timedelta(seconds=5),
        max_ejection_percent=50,
    )


def _mtls(files: MtlsFiles) -> TransportSocket:
    server = SubjectAltNameMatcher(
        san_type=SubjectAltNameMatcherSanType.URI, matcher=StringMatcher(exact=files.server_id)
    )
    context = UpstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_params=TlsParameters(
                tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
                tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
            ),
            tls_certificates=[certificate(files.certificate, files.key)],
            validation_context=CertificateValidationContext(
                trusted_ca=file_source(files.server_ca), match_typed_subject_alt_names=[server]
            ),
        )
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def authz_cluster(target: AuthzTarget) -> Cluster:
    """The way to zta-authz, with health checks and outlier detection so that a dead process is left alone quickly."""
    return Cluster(
        name=AUTHZ_CLUSTER,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(milliseconds=200),
        load_assignment=endpoints(AUTHZ_CLUSTER, target.addresses),
        typed_extension_protocol_options={_HTTP_OPTIONS: Any.pack(_http2())},
        circuit_breakers=CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=MAX_RETRIES)]),
        health_checks=[_health_check()],
        outlier_detection=_outlier_detection(),
        transport_socket=_mtls(target.files) if target.mtls else None,
    )

"""The clusters of Envoy's configuration: zta-authz, the application and the span collector."""

from __future__ import annotations

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
    Pipe,
    SocketAddress,
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

from zta_authz.cli.envoy_config.envoy_options import AUTHZ_CLUSTER, COLLECTOR_CLUSTER, UPSTREAM_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.cli.envoy_config.envoy_options import AuthzTarget, MtlsFiles
    from zta_authz.cli.envoy_config.network_address import NetworkAddress

MAX_RETRIES = 100
"""Concurrent retries: enough for all calls of a process that dies. Envoy's default is 3."""
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def envoy_address(address: NetworkAddress) -> Address:
    """`place` as Envoy has it."""
    if address.is_unix:
        return Address(pipe=Pipe(path=address.path))
    both = address.host == "::"  # as a listener: accept IPv4, too
    return Address(socket_address=SocketAddress(address=address.host, port_value=address.port, ipv4_compat=both))


def file_source(path: str) -> DataSource:
    """Return a data source for a file that Envoy reads."""
    return DataSource(filename=path)


def certificate(chain: str, key: str) -> TlsCertificate:
    """Return a certificate chain and its key, read from files."""
    return TlsCertificate(certificate_chain=file_source(chain), private_key=file_source(key))


def _endpoints(cluster: str, addresses: Sequence[NetworkAddress]) -> ClusterLoadAssignment:
    hosts = [LbEndpoint(endpoint=Endpoint(address=envoy_address(address))) for address in addresses]
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=[LocalityLbEndpoints(lb_endpoints=hosts)])


def _discovery(addresses: Sequence[NetworkAddress]) -> ClusterDiscoveryType:
    """Return the discovery type. STATIC supports only IP addresses and sockets, no names."""
    return (
        ClusterDiscoveryType.STRICT_DNS
        if any(address.is_name for address in addresses)
        else ClusterDiscoveryType.STATIC
    )


def _http2(keepalive: KeepaliveSettings | None = None) -> dict[str, Any]:
    options = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions(connection_keepalive=keepalive)
        )
    )
    return {_HTTP_OPTIONS: Any.pack(options)}


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
            alpn_protocols=["h2"],
            tls_certificates=[certificate(files.certificate, files.key)],
            validation_context=CertificateValidationContext(
                trusted_ca=file_source(files.server_ca), match_typed_subject_alt_names=[server]
            ),
        )
    )
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def authz_cluster(target: AuthzTarget) -> Cluster:
    """Return the cluster of zta-authz, with health checks and outlier detection to skip dead processes quickly."""
    return Cluster(
        name=AUTHZ_CLUSTER,
        type=_discovery(target.addresses),
        connect_timeout=timedelta(milliseconds=200),
        load_assignment=_endpoints(AUTHZ_CLUSTER, target.addresses),
        typed_extension_protocol_options=_http2(
            KeepaliveSettings(interval=timedelta(seconds=30), timeout=timedelta(seconds=5))
        ),
        circuit_breakers=CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=MAX_RETRIES)]),
        health_checks=[_health_check()],
        outlier_detection=_outlier_detection(),
        transport_socket=_mtls(target.files) if target.mtls else None,
    )


def upstream_cluster(address: NetworkAddress, *, http2: bool = False) -> Cluster:
    """Return the cluster of the application behind Envoy, over plain HTTP/1.1 or HTTP/2."""
    return Cluster(
        name=UPSTREAM_CLUSTER,
        type=_discovery([address]),
        connect_timeout=timedelta(seconds=1),
        load_assignment=_endpoints(UPSTREAM_CLUSTER, [address]),
        typed_extension_protocol_options=_http2() if http2 else {},
    )


def collector_cluster(address: NetworkAddress) -> Cluster:
    """Return the cluster of the OTLP collector that receives Envoy's spans over gRPC."""
    return Cluster(
        name=COLLECTOR_CLUSTER,
        type=_discovery([address]),
        connect_timeout=timedelta(seconds=1),
        load_assignment=_endpoints(COLLECTOR_CLUSTER, [address]),
        typed_extension_protocol_options=_http2(),
    )

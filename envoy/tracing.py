"""Envoy's own spans, sent over OTLP by gRPC; with them on, its calls to zta-authz carry a `traceparent`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import GrpcService, GrpcServiceEnvoyGrpc, Http2ProtocolOptions
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerTracing,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from envoy.clusters import endpoints

if TYPE_CHECKING:
    from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
    from envoy_data_plane.envoy.config.core.v3 import Address

COLLECTOR_CLUSTER = "otlp_collector"
SERVICE = "envoy"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def _tracing(percent: float) -> HttpConnectionManagerTracing:
    collector = GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=COLLECTOR_CLUSTER), timeout=timedelta(seconds=1)
    )
    tracer = OpenTelemetryConfig(grpc_service=collector, service_name=SERVICE)
    return HttpConnectionManagerTracing(
        random_sampling=Percent(value=percent),
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(tracer)),
    )


def _collector_cluster(address: Address) -> Cluster:
    http2 = HttpProtocolOptions(
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    )
    return Cluster(
        name=COLLECTOR_CLUSTER,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        load_assignment=endpoints(COLLECTOR_CLUSTER, [address]),
        typed_extension_protocol_options={_HTTP_OPTIONS: Any.pack(http2)},
    )


def trace(bootstrap: Bootstrap, collector: Address, percent: float = 100.0) -> None:
    """Let every listener of `bootstrap` trace `percent` of the requests whose client does not say, to `collector`."""
    resources = bootstrap.static_resources
    assert resources is not None  # for the type checker: ours always have some
    resources.clusters.append(_collector_cluster(collector))
    for listener in resources.listeners:
        for chain in listener.filter_chains:
            for each in chain.filters:
                manager = each.typed_config.unpack() if each.typed_config is not None else None
                if isinstance(manager, HttpConnectionManager):
                    manager.tracing = _tracing(percent)
                    each.typed_config = Any.pack(manager)

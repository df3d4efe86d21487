"""The listener in front of the application: mutual TLS, strict HTTP, and the ext_authz filter first."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    BackoffStrategy,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    TransportSocket,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors, CorsPolicy
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import BufferSettings, ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpConnectionManagerTracing,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CertificateValidationContextTrustChainVerification,
    CommonTlsContext,
    DownstreamTlsContext,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, Percent, StatusCode
from envoy_data_plane.google.protobuf import Any

from zta_authz.cli.envoy_config.clusters import certificate, envoy_address, file_source
from zta_authz.cli.envoy_config.envoy_options import (
    AUTHZ_CLUSTER,
    COLLECTOR_CLUSTER,
    ENVOY_SERVICE_NAME,
    UPSTREAM_CLUSTER,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zta_authz.cli.envoy_config.envoy_options import EnvoyOptions, Tracing

_CORS = "envoy.filters.http.cors"
_RETRY_BASE = timedelta(milliseconds=5)


def _retry_policy(per_try_timeout: timedelta) -> RetryPolicy:
    """Return the policy that retries an unanswered call at another process, within the same timeout."""
    previous = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on="connect-failure,refused-stream,reset,unavailable",
        num_retries=2,
        retry_back_off=BackoffStrategy(base_interval=min(_RETRY_BASE, per_try_timeout), max_interval=per_try_timeout),
        retry_host_predicate=[previous],
        host_selection_retry_max_attempts=3,
    )


def _body(limit: int) -> BufferSettings | None:
    if limit == 0:
        return None
    return BufferSettings(max_request_bytes=limit, allow_partial_message=True, pack_as_bytes=True)


def authz_filter(options: EnvoyOptions) -> HttpFilter:
    """Return the ext_authz filter. It denies with 503 if zta-authz does not answer."""
    ext_authz = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AUTHZ_CLUSTER),
            timeout=options.authz_timeout,
            retry_policy=_retry_policy(options.per_try_timeout),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        include_peer_certificate=True,
        include_tls_session=True,
        encode_raw_headers=True,
        clear_route_cache=False,
        validate_mutations=True,
        with_request_body=_body(options.body_bytes),
    )
    return HttpFilter(name="envoy.filters.http.ext_authz", typed_config=Any.pack(ext_authz))


def _protocol_options(options: EnvoyOptions) -> HttpProtocolOptions:
    actions = HttpProtocolOptionsHeadersWithUnderscoresAction
    return HttpProtocolOptions(
        idle_timeout=timedelta(minutes=15),
        max_stream_duration=timedelta(minutes=15),
        headers_with_underscores_action=actions.REJECT_REQUEST if options.reject_underscores else actions.ALLOW,
    )


def _routes(options: EnvoyOptions) -> RouteConfiguration:
    timeout = timedelta(0) if options.streams else None  # Envoy's default of 15 s would end streams
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=UPSTREAM_CLUSTER, timeout=timeout))
    host = VirtualHost(
        name=UPSTREAM_CLUSTER, domains=["*"], routes=[route], typed_per_filter_config=_cors_policy(options.cors_origins)
    )
    return RouteConfiguration(name="local", virtual_hosts=[host])


def _cors_policy(origins: Sequence[str]) -> dict[str, Any]:
    """Return the CORS policy: pages of these origins may send requests with credentials and read the responses."""
    if not origins:
        return {}
    policy = CorsPolicy(
        allow_origin_string_match=[StringMatcher(exact=origin) for origin in origins],
        allow_methods="GET, HEAD, POST, PUT, PATCH, DELETE",
        allow_headers="authorization, content-type",
        expose_headers="x-zta-decision-id",
        max_age="600",
        allow_credentials=True,
    )
    return {_CORS: Any.pack(policy)}


def _filters(options: EnvoyOptions) -> list[HttpFilter]:
    cors = HttpFilter(name=_CORS, typed_config=Any.pack(Cors()))
    router = HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router()))
    return [*([cors] if options.cors_origins else []), authz_filter(options), router]


def _tracing(tracing: Tracing | None) -> HttpConnectionManagerTracing | None:
    if tracing is None:
        return None
    collector = GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=COLLECTOR_CLUSTER), timeout=timedelta(seconds=1)
    )
    tracer = OpenTelemetryConfig(grpc_service=collector, service_name=ENVOY_SERVICE_NAME)
    return HttpConnectionManagerTracing(
        random_sampling=Percent(value=tracing.percent),
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(tracer)),
    )


def _connection_manager(options: EnvoyOptions) -> HttpConnectionManager:
    """Return the HTTP settings: normalized paths, no ambiguous header names, no forged XFCC."""
    forwarding = HttpConnectionManagerForwardClientCertDetails
    return HttpConnectionManager(
        stat_prefix="ingress",
        route_config=_routes(options),
        use_remote_address=options.use_remote_address,
        xff_num_trusted_hops=options.xff_num_trusted_hops,
        forward_client_cert_details=forwarding.SANITIZE_SET if options.client_chain else forwarding.SANITIZE,
        set_current_client_cert_details=(
            HttpConnectionManagerSetCurrentClientCertDetails(uri=True, cert=True, chain=True)
            if options.client_chain
            else None
        ),
        normalize_path=True,
        merge_slashes=False,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
        common_http_protocol_options=_protocol_options(options),
        http2_protocol_options=Http2ProtocolOptions(max_concurrent_streams=100),
        request_headers_timeout=timedelta(seconds=10),
        tracing=_tracing(options.tracing),
        upgrade_configs=[HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")] if options.websocket else [],
        http_filters=_filters(options),
    )


def _downstream_tls(options: EnvoyOptions) -> DownstreamTlsContext:
    verification = CertificateValidationContextTrustChainVerification
    verified = options.clients_verified_by_envoy
    return DownstreamTlsContext(
        require_client_certificate=verified and not options.clients_may_be_anonymous,
        common_tls_context=CommonTlsContext(
            tls_params=TlsParameters(tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2),
            alpn_protocols=["h2", "http/1.1"],
            tls_certificates=[certificate(options.tls.certificate, options.tls.key)],
            validation_context=CertificateValidationContext(
                trusted_ca=file_source(options.tls.client_ca),
                trust_chain_verification=(
                    verification.VERIFY_TRUST_CHAIN if verified else verification.ACCEPT_UNTRUSTED
                ),
            ),
        ),
    )


def listener(options: EnvoyOptions) -> Listener:
    """Return the mTLS listener in front of the application."""
    manager = Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(_connection_manager(options))
    )
    tls = TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(_downstream_tls(options)))
    return Listener(
        name="ingress",
        address=envoy_address(options.listen),
        per_connection_buffer_limit_bytes=32768,
        filter_chains=[FilterChain(filters=[manager], transport_socket=tls)],
    )

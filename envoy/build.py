"""Builds Envoy bootstraps around zta-authz from typed messages (envoy-data-plane).

The annotated files beside this one are the same configurations with the reasons written in; the end-to-end tests hold
the two equal. `python envoy/build.py uds` and `python envoy/build.py mtls-tcp` print what is built, as YAML.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any as AnyValue

import yaml
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    BackoffStrategy,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    Pipe,
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import BufferSettings, ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
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
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any

if __package__ in (None, ""):  # run as a file: let the package above be found
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from envoy.clusters import AUTHZ_CLUSTER, AuthzTarget, authz_cluster, certificate, endpoints, file_source

UPSTREAM_CLUSTER = "hatshop"
BODY_LIMIT_BYTES = 8192
TRY_LIMIT = timedelta(milliseconds=200)
"""Envoy takes the longest back-off of a retry policy like this one for the time that one try may take."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of the listener: its own certificate and key, and the authorities of its clients."""

    certificate: str = "/etc/envoy/tls/server.pem"
    key: str = "/etc/envoy/tls/server.key"
    client_ca: str = "/etc/envoy/tls/client-ca.pem"


@dataclass(frozen=True, slots=True)
class Options:
    """What differs between the configurations; the defaults are those of the files to copy.

    `clients_verified_by_envoy`: False leaves it to zta-authz to refuse a missing or foreign client certificate.
    `reject_underscores`: False lets header names with `_` through (Envoy's own default), for tests of stripping.
    """

    authz: AuthzTarget
    listen: Address
    upstream: Address
    admin: Address
    tls: TlsFiles = TlsFiles()
    authz_timeout: timedelta = timedelta(milliseconds=200)
    clients_verified_by_envoy: bool = True
    reject_underscores: bool = True


def tcp(host: str, port: int) -> Address:
    """A TCP address; port 0 lets the kernel choose."""
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def pipe(path: str) -> Address:
    """A Unix socket, of at most 107 bytes of path."""
    return Address(pipe=Pipe(path=path))


def retry_policy() -> RetryPolicy:
    """A call that one process does not answer is put to another one, within the same timeout."""
    previous = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on="connect-failure,refused-stream,reset,unavailable",
        num_retries=2,
        retry_back_off=BackoffStrategy(base_interval=timedelta(milliseconds=5), max_interval=TRY_LIMIT),
        retry_host_predicate=[previous],
        host_selection_retry_max_attempts=3,
    )


def ext_authz(timeout: timedelta) -> ExtAuthz:
    """The filter that asks zta-authz. Fields left at their default (failure_mode_allow: false) fail closed."""
    return ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=AUTHZ_CLUSTER),
            timeout=timeout,
            retry_policy=retry_policy(),
        ),
        transport_api_version=ApiVersion.V3,
        failure_mode_allow=False,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        include_peer_certificate=True,
        include_tls_session=True,
        encode_raw_headers=True,
        clear_route_cache=False,
        validate_mutations=True,
        with_request_body=BufferSettings(
            max_request_bytes=BODY_LIMIT_BYTES, allow_partial_message=True, pack_as_bytes=True
        ),
    )


def _protocol_options(options: Options) -> HttpProtocolOptions:
    actions = HttpProtocolOptionsHeadersWithUnderscoresAction
    return HttpProtocolOptions(
        idle_timeout=timedelta(minutes=15),
        max_stream_duration=timedelta(minutes=15),
        headers_with_underscores_action=actions.REJECT_REQUEST if options.reject_underscores else actions.ALLOW,
    )


def _routes() -> RouteConfiguration:
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=UPSTREAM_CLUSTER))
    return RouteConfiguration(name="local", virtual_hosts=[VirtualHost(name="hatshop", domains=["*"], routes=[route])])


def connection_manager(options: Options) -> HttpConnectionManager:
    """HTTP as the listener reads it: one spelling of each path, no doubtful header names, no forged XFCC."""
    return HttpConnectionManager(
        stat_prefix="ingress",
        route_config=_routes(),
        use_remote_address=True,
        forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.SANITIZE,
        normalize_path=True,
        merge_slashes=False,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
        common_http_protocol_options=_protocol_options(options),
        http2_protocol_options=Http2ProtocolOptions(max_concurrent_streams=100),
        request_headers_timeout=timedelta(seconds=10),
        http_filters=[
            HttpFilter(name="envoy.filters.http.ext_authz", typed_config=Any.pack(ext_authz(options.authz_timeout))),
            HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router())),
        ],
    )


def _downstream_tls(options: Options) -> DownstreamTlsContext:
    verification = CertificateValidationContextTrustChainVerification
    verified = options.clients_verified_by_envoy
    return DownstreamTlsContext(
        require_client_certificate=verified,
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


def listener(options: Options) -> Listener:
    """The mTLS listener in front of the workload."""
    manager = Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(connection_manager(options))
    )
    tls = TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(_downstream_tls(options)))
    return Listener(
        name="ingress",
        address=options.listen,
        per_connection_buffer_limit_bytes=32768,
        filter_chains=[FilterChain(filters=[manager], transport_socket=tls)],
    )


def _upstream_cluster(address: Address) -> Cluster:
    return Cluster(
        name=UPSTREAM_CLUSTER,
        type=ClusterDiscoveryType.STATIC,
        connect_timeout=timedelta(seconds=1),
        load_assignment=endpoints(UPSTREAM_CLUSTER, [address]),
    )


def bootstrap(options: Options) -> Bootstrap:
    """One listener, ext_authz in front of one upstream."""
    return Bootstrap(
        admin=Admin(address=options.admin),
        static_resources=BootstrapStaticResources(
            listeners=[listener(options)],
            clusters=[authz_cluster(options.authz), _upstream_cluster(options.upstream)],
        ),
    )


def shipped(authz: AuthzTarget) -> Options:
    """The options of the files to copy, which differ only in how Envoy reaches zta-authz."""
    return Options(
        authz=authz,
        listen=tcp("0.0.0.0", 8443),
        upstream=tcp("127.0.0.1", 8080),
        admin=tcp("127.0.0.1", 9901),
    )


def worker_pipes(path: str, workers: int) -> tuple[Address, ...]:
    """The sockets of zta-authz's `workers` where it listens on `path`: one is there itself, several have a number."""
    return (pipe(path),) if workers == 1 else tuple(pipe(f"{path}.{number}") for number in range(1, workers + 1))


def shipped_uds(workers: int = 1) -> Options:
    """`bootstrap-uds.yaml`, for as many processes of zta-authz as its setting `workers` says."""
    return shipped(AuthzTarget(addresses=worker_pipes("/run/zta-authz/authz.sock", workers)))


def shipped_mtls_tcp() -> Options:
    """`bootstrap-mtls-tcp.yaml`."""
    return shipped(AuthzTarget(addresses=(tcp("127.0.0.1", 9191),), mtls=True))


SHIPPED = {"uds": shipped_uds, "mtls-tcp": shipped_mtls_tcp}


def to_mapping(message: Bootstrap) -> dict[str, AnyValue]:
    """The bootstrap as Envoy reads it from YAML or JSON. Fields with protobuf's default value are left out."""
    mapping: dict[str, AnyValue] = message.to_dict()
    return mapping


def to_yaml(message: Bootstrap) -> str:
    """The bootstrap as YAML text."""
    return yaml.safe_dump(to_mapping(message), sort_keys=False)


def main(arguments: list[str]) -> int:
    """Print the shipped bootstrap that is named on the command line, for `uds` with a number of workers."""
    kind, workers = (*arguments, "1")[:2] if arguments else ("", "")
    several = workers.isascii() and workers.isdigit() and int(workers) > 1 and kind == "uds"
    if len(arguments) > 2 or kind not in SHIPPED or not (several or workers == "1"):
        sys.stderr.write(f"usage: build.py {'|'.join(SHIPPED)} | uds WORKERS\n")
        return 2
    sys.stdout.write(to_yaml(bootstrap(shipped_uds(int(workers)) if several else SHIPPED[kind]())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The listeners of the operations: HTTP and gRPC, each on Unix sockets and on TCP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.administrator.grpc_api import OPTIONS, GrpcApi
from zta_authz.administrator.local_callers import operators, user_namer
from zta_authz.administrator.rest_api import RestApi
from zta_authz.servers.group import Server, ServerGroup
from zta_authz.servers.grpcio.server import GrpcServer
from zta_authz.servers.listeners import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zta_authz.administrator.operations import Operations
    from zta_authz.administrator.problems import CallCounts
    from zta_authz.administrator.rest_api import TokenEndpoint
    from zta_authz.model.options import Workload
    from zta_authz.servers.listeners import SocketAccess
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls
    from zta_authz.settings.administrator_model import OperationsSettings


def operations_servers(
    section: OperationsSettings,
    operations: Operations,
    tls: MutualTls | SvidTls | None,
    access: SocketAccess,
    workload: Workload,
    token: TokenEndpoint | None = None,
    counts: CallCounts | None = None,
) -> ServerGroup:
    """Build the servers of `section`. `tls` has our certificate. Callers are named after the workload's trust domain.

    Raises:
        SettingsErrors: A TCP address that is not on loopback has no TLS, or the TLS can't be used.
    """
    domains = (workload.trust_domain, *workload.trust_domain_aliases)
    admitted = None if tls is None else tls.with_allowed(operators(domains))
    servers: list[Server] = [
        RestApi(operations, Endpoint.parse(text), domains[0], tls=admitted, access=access, token=token, counts=counts)
        for text in section.http
    ]
    endpoints = [Endpoint.parse(text) for text in section.grpc]
    servers += _grpc_servers(GrpcApi(operations, counts), endpoints, admitted, access, domains[0])
    return ServerGroup(servers)


def _grpc_servers(
    api: GrpcApi,
    endpoints: Sequence[Endpoint],
    tls: MutualTls | SvidTls | None,
    access: SocketAccess,
    trust_domain: str,
) -> Iterator[GrpcServer]:
    methods = api.methods()
    plain = [endpoint for endpoint in endpoints if endpoint.is_unix or tls is None]
    secured = [endpoint for endpoint in endpoints if endpoint not in plain]
    if plain:
        yield GrpcServer(methods, plain, access, name_user=user_namer(trust_domain), options=OPTIONS)
    if secured:
        yield GrpcServer(methods, secured, access, tls=tls, options=OPTIONS)

"""Build the servers from the settings: for proxies, plain and under mutual TLS, and for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zta_authz.admin.service import AdminService
from zta_authz.ext_authz.request import parse_check_request
from zta_authz.servers.fast.server import FastServer
from zta_authz.servers.grpcio.overload_guard import OverloadGuard
from zta_authz.servers.grpcio.server import GrpcServer, as_async
from zta_authz.servers.listeners import Endpoint
from zta_authz.servers.methods import MAX_CHECK_BYTES, Deadlines, authorization_methods, unread_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from zta_authz.admin.state import ServiceState
    from zta_authz.ext_authz.servicer import CheckServicer
    from zta_authz.servers.group import Server
    from zta_authz.servers.health import Health
    from zta_authz.servers.methods import Methods
    from zta_authz.servers.svid_tls import SvidTls
    from zta_authz.servers.tls import MutualTls
    from zta_authz.settings import Settings
    from zta_authz.telemetry.metrics import Metrics


class ServerFactory:
    """Builds the servers. `tls` is for TCP listeners (None: plain); all servers report `health`."""

    def __init__(
        self, settings: Settings, tls: MutualTls | SvidTls | None, health: Health, *, shared_ports: bool
    ) -> None:
        """With `shared_ports`, other workers listen on the same TCP ports."""
        self._settings = settings
        self._tls = tls
        self._health = health
        self._shared_ports = shared_ports

    def build(self, servicer: CheckServicer, metrics: Metrics, state: ServiceState) -> Iterator[Server]:
        """Yield all servers. `metrics` will report their counters; `state` is what the admin API serves."""
        settings, tls = self._settings, self._tls
        methods, unread = self._methods(servicer, metrics), unread_checks(servicer)
        endpoints = settings.endpoints()
        plain = [endpoint for endpoint in endpoints if endpoint.is_unix or tls is None]
        secured = [endpoint for endpoint in endpoints if endpoint not in plain]
        for group, group_tls in ((plain, None), (secured, tls)):
            if group:
                yield self._proxy_server(methods, unread, group, group_tls)
        if settings.admin.listen is not None:
            yield self._admin_server(Endpoint.parse(settings.admin.listen), state)

    def _methods(self, servicer: CheckServicer, metrics: Metrics) -> Methods:
        deadlines, max_bytes = Deadlines(), self._settings.http2.max_message_bytes
        if self._settings.transport == "grpcio":
            deadlines = guard = OverloadGuard(self._settings.max_concurrent_checks)
            max_bytes = MAX_CHECK_BYTES
            metrics.watch_calls(guard.unfinished, guard.failed)
        metrics.watch_deadlines(lambda: deadlines.late_answers)
        return authorization_methods(servicer, deadlines, max_bytes)

    def _proxy_server(
        self,
        methods: Methods,
        unread: Mapping[str, Callable[[bool], bytes]],
        endpoints: Sequence[Endpoint],
        tls: MutualTls | SvidTls | None,
    ) -> Server:
        settings = self._settings
        access = settings.socket_access()
        if settings.transport == "fast":
            return FastServer(
                methods,
                endpoints,
                access,
                health=self._health,
                tls=tls,
                bounds=settings.http2.bounds(),
                limits=settings.http2.limits(),
                peer_uids=settings.socket.peer_uids,
                shared_ports=self._shared_ports,
                unread=unread,
            )
        return GrpcServer(
            as_async(methods),
            endpoints,
            access,
            health=self._health,
            tls=tls,
            with_reflection=settings.reflection,
            shared_ports=self._shared_ports,
        )

    def _admin_server(self, endpoint: Endpoint, state: ServiceState) -> GrpcServer:
        settings, tls = self._settings, self._tls
        admin_tls = None if endpoint.is_unix or tls is None else tls.with_allowed(settings.admin.allowed_spiffe_ids)
        methods = AdminService(state, parse_check_request).methods()
        return GrpcServer(
            methods, [endpoint], settings.socket_access(), tls=admin_tls, with_reflection=settings.reflection
        )
